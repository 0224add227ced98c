"""The flags of `tensorflow_model_server`, and why each is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tfllm.deployment.sizes import Sizes


def flags(sizes: Sizes) -> Sequence[tuple[str, str]]:
    """Each flag with its reason, in one or several lines."""
    return (
        ("--port=8500", "gRPC."),
        ("--rest_api_port=8501", "REST, which probes and Prometheus need as well."),
        (
            "--model_config_file=/config/models.config",
            "Read once. `tfllm promote` tells a running server what changes in it; looks at the\n"
            "file (--model_config_file_poll_wait_seconds) would undo that until it is written.",
        ),
        (
            "--allow_version_labels_for_unavailable_models=true",
            "Else a server that starts refuses the labels in models.config: nothing is loaded yet.",
        ),
        (
            "--max_num_load_retries=0",
            "A version that fails to load fails again. By default it is tried five times more, a\n"
            "minute apart, and what loads after it waits (docs/machines.md).",
        ),
        *(_unbatched() if sizes.has_sessions else _batched()),
        ("--monitoring_config_file=/config/monitoring.config", "What Prometheus reads."),
        (f"--tensorflow_intra_op_parallelism={sizes.intra_op_threads}", _per_op(sizes)),
        (
            f"--tensorflow_inter_op_parallelism={sizes.cpus}",
            "Ops at a time, of all calls together: one per core of the container. TensorFlow by\n"
            "itself counts the cores of the machine.",
        ),
        (f"--grpc_max_threads={sizes.request_threads}", _threads(sizes)),
        (f"--rest_api_num_threads={sizes.request_threads}", "The same for REST."),
        (
            f"--rest_api_timeout_in_ms={1000 * sizes.timeout_s}",
            "20 times a request of the slowest model alone, and at least 30 s (the default), as\n"
            "others may be in front of it. gRPC clients set their own.",
        ),
        (
            "--grpc_channel_arguments=grpc.max_connection_age_ms=300000",
            "A gRPC client stays with the server that it found first. After 5 minutes it is asked\n"
            "to connect anew, so that servers that came later get their share; no call is cut.",
        ),
    )


def _batched() -> Sequence[tuple[str, str]]:
    return (
        ("--enable_batching=true", "Requests of different clients share passes over the weights."),
        ("--batching_parameters_file=/config/batching.config", "By these rules."),
    )


def _unbatched() -> Sequence[tuple[str, str]]:
    return (
        (
            "--enable_batching=false",
            "The default. The gateway puts all texts that run into one call and sends no second\n"
            "one before its answer: a call that waited for others would wait in vain.",
        ),
    )


def _per_op(sizes: Sizes) -> str:
    if sizes.has_sessions and sizes.is_small:
        return "Per op. A step of a model this small takes longer with two threads (docs/speed.md)."
    if sizes.has_sessions:
        return "Per op: all cores, as the calls of all clients take turns."
    if sizes.is_small:
        return (
            "Per op. A model this small writes more with one thread per batch than with two\n"
            "(docs/speed.md), so the cores are left to several batches."
        )
    return (
        "Per op: half of the cores for each of two batches, so that one works where the\n"
        "other has something for a single thread. Not measured for models of this size: by\n"
        f"`tfllm bench` compare {sizes.cpus} here and num_batch_threads 1."
    )


def _threads(sizes: Sizes) -> str:
    if sizes.has_sessions:
        return (
            "A request holds a thread while it waits. Each of two gateways has at most 64 calls\n"
            "under way (embeddings, texts of models without sessions), and 16 are for status and\n"
            "metadata. The server's own default is four per core."
        )
    return (
        "A request holds a thread while it waits. (num_batch_threads + max_enqueued_batches)\n"
        "x max_batch_size rows, and 16 that are refused: the queue must be full first, since\n"
        "it says UNAVAILABLE, which clients repeat, and no thread is RESOURCE_EXHAUSTED.\n"
        "The server's own default is four per core, which would never fill a batch."
    )


def listed(entries: Sequence[tuple[str, str]], indent: int) -> str:
    """The flags as items of a YAML list, each below its reason."""
    return "\n".join(_lines(entries, " " * indent))


def _lines(entries: Sequence[tuple[str, str]], margin: str) -> Iterator[str]:
    for flag, reason in entries:
        for line in reason.splitlines():
            yield f"{margin}# {line}"
        yield f'{margin}- "{flag}"'
