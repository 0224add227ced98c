"""How large everything is made for the exports that are served.

What is not measured where it will run is estimated, from numbers that were measured elsewhere; each
is a start, to be held against `tfllm bench`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tfllm.deployment.exported import Exported
from tfllm.errors import UserError

# Time of a pass over the weights: the ops themselves, and reading each weight once. A core read 28
# to 38 GB/s; 1.3 ms is a step of a model whose weights cost next to nothing (docs/speed.md).
_OPS_S, _BYTES_PER_S = 1e-3, 30e9
_BATCH_SIZES = (1, 2, 4, 8, 16, 32)
# Below it, one thread writes more than two (docs/speed.md, "Traffic of ever new sizes").
_SMALL_BYTES = 64 * 2**20
_SERVER_BYTES = 512 * 2**20
# Times of one row that a step of 32 rows takes (GPT-2 small, docs/speed.md).
_FULL_STEP = 6
# Calls of a server that a gateway has under way, and how many gateways there are.
_GATEWAY_CALLS, _GATEWAYS = 64, 2
_LOAD_BYTES_PER_S = 50e6


@dataclass(frozen=True)
class Sizes:
    """The values of one server.

    Attributes:
        exports: What it serves.
        cpus: Cores that it has.
    """

    exports: Sequence[Exported]
    cpus: int

    def __post_init__(self):
        if self.cpus < 1:
            raise UserError(f"A server needs at least one CPU, got {self.cpus}.")

    @cached_property
    def has_sessions(self) -> bool:
        """Whether a model keeps texts in the server. Then nothing is batched by the server: calls
        of one text after the other would each wait for others in vain."""
        return any(export.sessions for export in self.exports)

    @cached_property
    def slots(self) -> int:
        """Texts that the model with the most slots holds."""
        return max(export.sessions for export in self.exports)

    @cached_property
    def alone_s(self) -> float:
        """Seconds of one request by the defaults, of the quickest model, on an idle server."""
        return min(_alone_s(export) for export in self.exports)

    @cached_property
    def slowest_s(self) -> float:
        """The same of the slowest model."""
        return max(_alone_s(export) for export in self.exports)

    @cached_property
    def batch_sizes(self) -> tuple[int, ...]:
        """Doubled until 32, and until a warm-up request fits, whose failure would end the load."""
        sizes = list(_BATCH_SIZES)
        while sizes[-1] < max(export.warm_rows for export in self.exports):
            sizes.append(2 * sizes[-1])
        return tuple(sizes)

    @cached_property
    def max_batch_size(self) -> int:
        return self.batch_sizes[-1]

    @cached_property
    def batch_timeout_micros(self) -> int:
        """A twentieth of a request alone, 1 to 50 ms, in two digits."""
        micros = min(max(self.alone_s * 1e6 / 20, 1_000), 50_000)
        digits = 10 ** (math.floor(math.log10(micros)) - 1)
        return round(micros / digits) * digits

    @cached_property
    def queue_micros(self) -> int:
        """The mean wait above which another server is worth its cost."""
        return 10 * self.batch_timeout_micros

    @cached_property
    def is_small(self) -> bool:
        return max(export.weights_bytes for export in self.exports) <= _SMALL_BYTES

    @cached_property
    def batch_threads(self) -> int:
        if self.has_sessions:
            return 1
        return self.cpus if self.is_small else min(2, self.cpus)

    @cached_property
    def intra_op_threads(self) -> int:
        if self.has_sessions:
            return 1 if self.is_small else self.cpus
        return self.cpus // self.batch_threads

    @cached_property
    def enqueued_batches(self) -> int:
        return 2 * self.batch_threads

    @cached_property
    def request_threads(self) -> int:
        """As many as requests of one row that run or wait in the queue, and a few to be refused."""
        if self.has_sessions:
            return _GATEWAYS * _GATEWAY_CALLS + 16
        return (self.batch_threads + self.enqueued_batches) * self.max_batch_size + 16

    @cached_property
    def timeout_s(self) -> int:
        """For a request that waits behind a full queue, three full batches in a row."""
        return max(30, math.ceil(20 * self.slowest_s))

    @cached_property
    def longest_text_s(self) -> int:
        """For a text that fills its slot while all others are taken."""
        steps = (export.context_length * _step_s(export) for export in self.exports)
        return max(30, math.ceil(_FULL_STEP * max(steps)))

    @cached_property
    def weights_mib(self) -> int:
        """Of one version of each model with its packed copies."""
        return _mib(sum(export.weights_bytes * (1 + export.packed) for export in self.exports))

    @cached_property
    def slots_mib(self) -> int:
        """Of all slots of one version of each model."""
        return _mib(sum(export.session_bytes for export in self.exports))

    @cached_property
    def working_mib(self) -> int:
        """Keys and values of full batches of full rows, of the model that needs most of it; or a
        copy of the slots."""
        if self.has_sessions:
            return self.slots_mib
        rows = self.batch_threads * self.max_batch_size
        return _mib(max(rows * _cache_bytes(export) for export in self.exports))

    @cached_property
    def memory_mib(self) -> int:
        """Three versions are loaded while a canary is replaced: the server loads the new one before
        it unloads the old one."""
        total = _mib(_SERVER_BYTES) + 3 * (self.weights_mib + self.slots_mib) + self.working_mib
        return math.ceil(total / 256) * 256

    @cached_property
    def start_s(self) -> int:
        """Until the first version has loaded and replayed its warm-up, generously."""
        weights = sum(export.weights_bytes for export in self.exports)
        seconds = 60 + weights / _LOAD_BYTES_PER_S + 30 * self.slowest_s
        return math.ceil(seconds / 30) * 30


def _alone_s(export: Exported) -> float:
    return export.passes * _step_s(export)


def _step_s(export: Exported) -> float:
    return _OPS_S + export.weights_bytes / _BYTES_PER_S


def _cache_bytes(export: Exported) -> float:
    """Of one row of full length, as a Transformer that had all its weights in layers.

    A layer of width d has 12 d² weights and 2 d numbers per token, so N weights have N / (6 d).
    """
    number_bytes = 4 if export.precision == "float32" else 2
    return export.context_length * export.num_weights / (6 * export.width) * number_bytes


def _mib(size: float) -> int:
    return math.ceil(size / 2**20)
