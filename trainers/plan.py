"""A recipe on paper: its memory, communication and time on a device, and what to change.

The step is traced and never run. Its time is a roofline: each operation takes the longer of its
arithmetic at the peak and its bytes at the bandwidth of the memory.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from tfllm.data import Records
from tfllm.errors import UserError
from tfllm.trainers.devices import Device
from tfllm.trainers.recipe import Recipe
from tfllm.trainers.step_graph import StepGraph, step_graph

_FLOAT = 4  # bytes of a weight, a gradient and a moment
_MOMENTS = 2
# AdamW reads weight, gradient and moments, and writes weight and moments; an average is both.
_OPTIMIZER_PASSES = 7
_EMA_PASSES = 3
_USABLE = 0.9  # of the memory: the rest is the runtime's and what fragments


class Plan(NamedTuple):
    """What a step takes; bytes are per replica.

    Attributes:
        memory: Bytes of `weights`, `gradients`, `optimizer`, `ema`, `activations`.
        total_bytes: Of all replicas on one device: on a CPU they share its memory.
        fits: Whether nine tenths of the device's memory hold them.
        communication_bytes: That a replica sends per step in a ring all-reduce.
        seconds: Of a step: `compute` (forward and backward), `optimizer`, `communication`.
        step_s: Their sum.
        tokens_per_second: Of all replicas.
        mfu: Share of the peak that the model's own products are.
        days: Of the whole recipe, without validation and checkpoints.
    """

    memory: dict[str, int]
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
        UserError: as `step_graph`.
    """
    if replicas < 1:
        raise UserError(f"replicas must be at least 1: got {replicas}.")
    return planned(
        step_graph(recipe, records, replicas), recipe, records.sequence_length, device, replicas
    )


def planned(step: StepGraph, recipe: Recipe, length: int, device: Device, replicas: int) -> Plan:
    """The arithmetic of `plan`.

    Args:
        step: Of one replica.
        recipe: The recipe.
        length: Tokens of a row.
        device: Where it runs.
        replicas: How many.

    Source:
        Williams et al. 2009 (roofline), https://doi.org/10.1145/1498765.1498785; a ring sends
        2 (n - 1) / n of the gradient: Patarasuk and Yuan 2009,
        https://doi.org/10.1016/j.jpdc.2008.09.002
    """
    trained = step.trained * _FLOAT
    memory = {
        "weights": step.weights * _FLOAT,
        "gradients": trained * (2 if recipe.microbatches > 1 else 1),  # a part's, and the sum
        "optimizer": _MOMENTS * trained,
        "ema": trained if recipe.ema else 0,
        "activations": step.activation_bytes,
    }
    sharing = replicas if device.is_shared else 1
    total = sum(memory.values()) * sharing
    peak, bandwidth = device.flops[recipe.precision] / sharing, device.memory_bytes_s / sharing
    passes = _OPTIMIZER_PASSES + (_EMA_PASSES if recipe.ema else 0)
    sent = 2 * (replicas - 1) / replicas * trained
    seconds = {
        "compute": sum(max(flops / peak, moved / bandwidth) for flops, moved in step.costs),
        "optimizer": passes * trained / bandwidth,
        "communication": sent / (device.interconnect_bytes_s / sharing),
    }
    step_s = sum(seconds.values())
    return Plan(
        memory=memory,
        total_bytes=total,
        fits=total <= _USABLE * device.memory_bytes,
        communication_bytes=sent,
        seconds=seconds,
        step_s=step_s,
        tokens_per_second=recipe.global_batch * length / step_s,
        mfu=step.flops / peak / step_s,
        days=recipe.steps * step_s / 86400,
    )


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
    now = plan(recipe, records, device, replicas)
    held = sum(now.memory.values()) - now.memory["activations"]
    if held > _USABLE * device.memory_bytes:
        return []  # none of these makes the weights smaller
    for kind, changes in _changes(recipe, replicas):
        if kind in kinds or (kind == "replicas" and device.is_shared):
            continue
        changed = dict(changes)
        more = changed.pop("replicas", replicas)
        if plan(dataclasses.replace(recipe, **changed), records, device, more).fits:
            kinds.add(kind)
            found.append(changes)
    return found


def _changes(recipe: Recipe, replicas: int) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = recipe.global_batch // replicas
    parts = [n for n in _doublings(recipe.microbatches * 2, rows) if rows % n == 0]
    yield from (("microbatches", {"microbatches": n}) for n in parts)
    if recipe.precision == "float32":
        yield "bfloat16", {"precision": "bfloat16"}
        yield from (("bfloat16", {"precision": "bfloat16", "microbatches": n}) for n in parts)
    batch = recipe.global_batch
    for n in _doublings(replicas * 2, batch // recipe.microbatches):
        if batch % (n * recipe.microbatches) == 0:
            yield "replicas", {"replicas": n}
    unit = replicas * recipe.microbatches
    for n in sorted(_doublings(1, batch // unit - 1), reverse=True):
        yield "global_batch", {"global_batch": n * unit}


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
