"""A recipe on paper: its memory, communication and time on a device, and what to change.

The step is traced and never run. Its time is a roofline: each operation takes the longer of its
arithmetic and its bytes at the bandwidth of the memory. The arithmetic is that of products, at
the peak; on a CPU also that of random numbers and of what else is slow there, as measured.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tfllm.data import Records
from tfllm.errors import UserError
from tfllm.trainers.devices import Device
from tfllm.trainers.feed import BUCKET_ROWS
from tfllm.trainers.recipe import Recipe
from tfllm.trainers.step_graph import Planned, StepGraph, step_graphs

_FLOAT = 4  # bytes of a weight, a gradient and a moment
_MOMENTS = 2
# AdamW reads weight, gradient and moments, and writes weight and moments; an average is both.
_OPTIMIZER_PASSES = 7
_EMA_PASSES = 3
_USABLE = 0.9  # of the memory: the rest is what fragments, and an accelerator's runtime


class Plan(NamedTuple):
    """What a step takes; bytes are per replica.

    Attributes:
        memory: Bytes of `weights`, `gradients`, `optimizer`, `ema`, `activations`.
        runtime_bytes: What the processes of a CPU hold beside that, in all.
        total_bytes: Of all replicas on one device: on a CPU they share its memory.
        fits: Whether nine tenths of the device's memory hold them.
        communication_bytes: That a replica sends per step in a ring all-reduce; in one process,
            its share of what is read and written to add the gradients up.
        seconds: Of a step: `compute` (forward and backward), `optimizer`, `communication`.
        step_s: Their sum.
        tokens_per_second: Of all replicas.
        mfu: Share of the peak that the model's own products are.
        days: Of the whole recipe, without validation and checkpoints.
    """

    memory: dict[str, int]
    runtime_bytes: int
    total_bytes: int
    fits: bool
    communication_bytes: float
    seconds: dict[str, float]
    step_s: float
    tokens_per_second: float
    mfu: float
    days: float


def plan(recipe: Recipe, records: Records, device: Device, replicas: int = 1) -> Plan:
    """Plans a recipe.

    Raises:
        UserError: as `step_graphs`.
    """
    if replicas < 1:
        raise UserError(f"replicas must be at least 1: got {replicas}.")
    steps = step_graphs(recipe, records, replicas, on_cpu=device.is_shared)
    return planned(steps, recipe, device, replicas)


def planned(steps: list[Planned], recipe: Recipe, device: Device, replicas: int) -> Plan:
    """The arithmetic of `plan`: memory of the largest step, time of the mean one.

    Args:
        steps: Of one replica.
        recipe: The recipe.
        device: Where it runs.
        replicas: How many.

    Source:
        Williams et al. 2009 (roofline), https://doi.org/10.1145/1498765.1498785; a ring sends
        2 (n - 1) / n of the gradient: Patarasuk and Yuan 2009,
        https://doi.org/10.1016/j.jpdc.2008.09.002
    """
    trained = steps[0].step.trained * _FLOAT
    memory = _memory([one.step for one in steps], recipe)
    sharing = replicas if device.is_shared else 1
    total = _total(memory, device, replicas)
    peak, bandwidth = device.flops[recipe.precision] / sharing, device.memory_bytes_s / sharing
    passes = _OPTIMIZER_PASSES + (_EMA_PASSES if recipe.ema else 0)
    sent, sending = _communication(trained, device, replicas)
    seconds = {
        "compute": sharing * mean_of(steps, lambda s: _compute_s(s.step, recipe, device)),
        "optimizer": passes * trained / bandwidth,
        "communication": sending,
    }
    step_s = sum(seconds.values())
    return Plan(
        memory=memory,
        runtime_bytes=_runtime(device, replicas),
        total_bytes=total,
        fits=total <= _USABLE * device.memory_bytes,
        communication_bytes=sent,
        seconds=seconds,
        step_s=step_s,
        tokens_per_second=mean_of(steps, lambda s: s.tokens) / step_s,
        mfu=mean_of(steps, lambda s: s.step.flops) / peak / step_s,
        days=recipe.steps * step_s / 86400,
    )


def _compute_s(step: StepGraph, recipe: Recipe, device: Device) -> float:
    """Each operation the longest of its arithmetic, in products or in elements, and its bytes."""
    peak, bandwidth = device.flops[recipe.precision], device.memory_bytes_s
    return sum(
        max(
            cost.flops / peak,
            cost.moved / bandwidth,
            cost.elements / device.elements_s.get(cost.kind, math.inf),
        )
        for cost in step.costs
    )


def _communication(gradient: int, device: Device, replicas: int) -> tuple[float, float]:
    """Bytes that a replica sends, and the seconds until all have the sum."""
    if device.interconnect_bytes_s is None:  # one of them reads what all have, and writes the sum
        touched = (replicas + 1) * gradient if replicas > 1 else 0
        return touched / replicas, touched / device.memory_bytes_s
    sent = 2 * (replicas - 1) / replicas * gradient
    sharing = replicas if device.is_shared else 1
    return sent, sent / (device.interconnect_bytes_s / sharing)


def _total(memory: dict[str, int], device: Device, replicas: int) -> int:
    of_steps = sum(memory.values()) * (replicas if device.is_shared else 1)
    return of_steps + _runtime(device, replicas)


def _runtime(device: Device, replicas: int) -> int:
    return device.runtime_bytes * device.processes(replicas)


def _memory(steps: list[StepGraph], recipe: Recipe) -> dict[str, int]:
    """Of the largest step."""
    trained = steps[0].trained * _FLOAT
    return {
        "weights": steps[0].weights * _FLOAT,
        "gradients": trained * (2 if recipe.microbatches > 1 else 1),  # a part's, and the sum
        "optimizer": _MOMENTS * trained,
        "ema": trained if recipe.ema else 0,
        "activations": max(step.activation_bytes for step in steps),
    }


def mean_of(steps: list[Planned], number: Callable[[Planned], float]) -> float:
    """Of the steps of a recipe on average."""
    return sum(one.share * number(one) for one in steps)


def advice(
    recipe: Recipe, records: Records, device: Device, replicas: int = 1
) -> list[dict[str, Any]]:
    """Changes that make a recipe fit, by the same arithmetic; [] if none of these does.

    Returns:
        The settings of each, as `microbatches=4`, perhaps with `replicas`; first what changes
        least: parts of a batch, then bfloat16, more replicas (on devices of their own),
        and a smaller batch, which is another training.
    """
    found: list[dict[str, Any]] = []
    kinds: set[str] = set()
    now = _largest(recipe, records, device, replicas)
    if _total(now | {"activations": 0}, device, replicas) > _USABLE * device.memory_bytes:
        return []  # none of these makes the weights smaller
    for kind, changes in _changes(recipe, replicas):
        if kind in kinds or (kind == "replicas" and device.is_shared):
            continue
        changed = dict(changes)
        more = changed.pop("replicas", replicas)
        if _would_fit(dataclasses.replace(recipe, **changed), records, device, more):
            kinds.add(kind)
            found.append(changes)
    return found


def _would_fit(recipe: Recipe, records: Records, device: Device, replicas: int) -> bool:
    try:
        memory = _largest(recipe, records, device, replicas)
    except UserError:  # a budget below some rows of the longest example
        return False
    return _total(memory, device, replicas) <= _USABLE * device.memory_bytes


def _largest(recipe: Recipe, records: Records, device: Device, replicas: int) -> dict[str, int]:
    on_cpu = device.is_shared
    steps = step_graphs(recipe, records, replicas, on_cpu=on_cpu, largest=True)
    return _memory([one.step for one in steps], recipe)


def _changes(recipe: Recipe, replicas: int) -> Iterator[tuple[str, dict[str, Any]]]:
    size = "batch_tokens" if recipe.batch_tokens else "global_batch"
    rows = (BUCKET_ROWS if recipe.batch_tokens else recipe.global_batch) // replicas
    parts = [n for n in _doublings(recipe.microbatches * 2, rows) if rows % n == 0]
    yield from (("microbatches", {"microbatches": n}) for n in parts)
    if recipe.precision == "float32":
        yield "bfloat16", {"precision": "bfloat16"}
        yield from (("bfloat16", {"precision": "bfloat16", "microbatches": n}) for n in parts)
    batch = BUCKET_ROWS if recipe.batch_tokens else recipe.global_batch
    for n in _doublings(replicas * 2, batch // recipe.microbatches):
        if batch % (n * recipe.microbatches) == 0:
            yield "replicas", {"replicas": n}
    unit = 1 if recipe.batch_tokens else replicas * recipe.microbatches
    for n in sorted(_doublings(1, getattr(recipe, size) // unit - 1), reverse=True):
        yield size, {size: n * unit}


def _doublings(first: int, last: int) -> list[int]:
    found = []
    while first <= last:
        found.append(first)
        first *= 2
    return found


def described(found: Plan, recipe: Recipe, device: Device, replicas: int) -> str:
    """The plan for people."""
    lines = [f"{recipe.name}, {recipe.precision}, on {replicas} x {device.name} ({device.source})"]
    lines += [f"  {name:13} {_size(size)}" for name, size in found.memory.items() if size]
    if found.runtime_bytes:
        lines.append(f"  {'runtime':13} {_size(found.runtime_bytes)}")
    fits = "fits" if found.fits else "does NOT fit"
    lines.append(f"  {_size(found.total_bytes)} {fits} in {_size(device.memory_bytes)}")
    lines += [f"  {name:13} {value * 1e3:,.3g} ms" for name, value in found.seconds.items()]
    lines.append(
        f"  a step {found.step_s * 1e3:,.4g} ms, {found.tokens_per_second:,.0f} tokens/s, "
        f"{found.mfu:.0%} of the peak; {recipe.steps:,} steps {found.days:,.3g} days"
    )
    return "\n".join(lines) + "\n"


def _size(count: float) -> str:
    return f"{count / 2**30:,.2f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
