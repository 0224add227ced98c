"""The flags of `tensorflow_model_server`, as the embedded server understands them.

A flag that means something here does what it does there. One that only tunes the stock server is
taken with a line on stderr: leaving it out changes no answer. One whose absence would change
answers, or leave a port open, is refused.

Source:
    tensorflow_serving/model_servers/main.cc, for the names, and server.cc, for what they do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfllm.errors import UserError

MODEL_NAME = "default"  # of a model that only --model_base_path names

_SHARED = "requests of both ports share threads, --grpc_max_threads says how many"
_SESSION = "TensorFlow chooses its threads"
_LITE = "there is no TensorFlow Lite here"

# What is said of a flag that is taken and has no effect.
WITHOUT_EFFECT = {
    "rest_api_num_threads": _SHARED,
    "num_load_threads": "versions are loaded one after the other, beside the requests",
    "num_unload_threads": "versions are unloaded one after the other, beside the requests",
    "flush_filesystem_caches": "no file system's cache is flushed",
    "tensorflow_session_parallelism": _SESSION,
    "tensorflow_intra_op_parallelism": _SESSION,
    "tensorflow_inter_op_parallelism": _SESSION,
    "tensorflow_session_config_file": _SESSION,
    "thread_pool_factory_config_file": _SESSION,
    "per_process_gpu_memory_fraction": "memory of a GPU is taken as it is needed",
    "remove_unused_fields_from_bundle_metagraph": "a graph is kept once, as it is",
    "num_tflite_pools": _LITE,
    "num_tflite_interpreters_per_pool": _LITE,
    "enable_profiler": "there is no profiler service",
    "skip_initialize_tpu": "no TPU is initialized",
    "enable_serialization_as_tensor_content": "answers come in typed fields, which clients read",
}

# Why a flag is refused unless it has the value that the stock server has without it.
REFUSED = {
    "platform_config_file": ("", "only SavedModels of TensorFlow are served"),
    "saved_model_tags": ("serve", "only the graph with the tag `serve` is loaded"),
    "use_alts_credentials": ("false", "use --ssl_config_file for a port that is not open to all"),
    "enable_signature_method_name_check": ("false", "method names are never looked at"),
    "enable_per_model_batching_parameters": ("false", "all models batch alike"),
    "xla_cpu_compilation_enabled": ("false", "functions for XLA are not run"),
    "xla_gpu_compilation_enabled": ("false", "functions for XLA are not run"),
    "prefer_tflite_model": ("false", _LITE),
    "mixed_precision": ("", "a model keeps the precision that it was exported with"),
}


def flag_bool(text: str) -> bool:
    """`true` or `false`, as in --enable_batching=true."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be =true or =false, got {text!r}")
    return text.lower() == "true"


def channel_arguments(text: str) -> dict[str, int | str]:
    """The gRPC arguments of `key=value,key=value`; whole numbers become int."""
    found: dict[str, int | str] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise argparse.ArgumentTypeError(f"must look like key=value,key=value, got {text!r}")
        found[key] = int(value) if value.lstrip("-").isdecimal() else value
    return found


@dataclass(frozen=True)
class _Flag:
    name: str
    kind: Any
    help: str
    others: Sequence[str] = ()


_FLAGS = (
    _Flag("model_name", str, "of the only model (default: its folder's name)", ["--name"]),
    _Flag("model_base_path", str, "of the only model, as models/gpt"),
    _Flag(
        "model_config_file", str, "which models, as text of ModelServerConfig", ["--model-config"]
    ),
    _Flag("model_config_file_poll_wait_seconds", int, "between two looks at it; 0 = one look"),
    _Flag("port", int, "for gRPC; 0 takes a free one (default 8500)"),
    _Flag("rest_api_port", int, "for REST; 0 = none (default)"),
    _Flag("rest_api_timeout_in_ms", int, "for a request (default 30000)"),
    _Flag("rest_api_enable_cors_support", flag_bool, "lets pages of other sites ask"),
    _Flag("grpc_socket_path", str, "a UNIX socket beside the port"),
    _Flag("grpc_max_threads", int, "requests that run at the same time"),
    _Flag("grpc_channel_arguments", channel_arguments, "as grpc.max_connection_age_ms=2000,…"),
    _Flag("ssl_config_file", str, "certificates, as text of SSLConfig"),
    _Flag("enable_batching", flag_bool, "lets requests of different clients share calls"),
    _Flag("batching_parameters_file", str, "how, as text of BatchingParameters"),
    _Flag("monitoring_config_file", str, "where Prometheus looks, as text of MonitoringConfig"),
    _Flag("file_system_poll_wait_seconds", float, "between two looks at the folders (default 1)"),
    _Flag(
        "max_num_load_retries",
        int,
        "of a version that fails to load (default 0, which tells of it at once; the stock server "
        "tries 5 times more, a minute apart)",
    ),
    _Flag("load_retry_interval_micros", int, "between them (default 60000000)"),
    _Flag("enable_model_warmup", flag_bool, "replays recorded requests first (default true)"),
    _Flag("num_request_iterations_for_warmup", int, "how often each (default 1)"),
    _Flag(
        "allow_version_labels_for_unavailable_models",
        flag_bool,
        "lets new labels be given to versions to come",
    ),
    _Flag(
        "force_allow_any_version_labels_for_unavailable_models",
        flag_bool,
        "lets any label be given to versions to come",
    ),
    _Flag("enable_grpc_healthcheck_service", flag_bool, argparse.SUPPRESS),  # it always is
    *(_Flag(name, str, argparse.SUPPRESS) for name in (*WITHOUT_EFFECT, *REFUSED)),
)


def add_stock_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags, each with underscores and with dashes; one that is not given is None."""
    group = parser.add_argument_group("flags of tensorflow_model_server")
    for flag in _FLAGS:
        names = dict.fromkeys([f"--{flag.name}", f"--{flag.name.replace('_', '-')}", *flag.others])
        is_switch = flag.kind is flag_bool or flag.name in (*WITHOUT_EFFECT, *REFUSED)
        kwargs: dict[str, Any] = {"metavar": _metavar(flag)}
        if is_switch:
            kwargs |= {"nargs": "?", "const": True if flag.kind is flag_bool else "true"}
        group.add_argument(*names, dest=flag.name, type=flag.kind, help=flag.help, **kwargs)


def _metavar(flag: _Flag) -> str:
    if flag.kind is str:
        return "FILE" if flag.name.endswith("_file") else "TEXT"
    return {int: "N", float: "SECONDS", flag_bool: "true|false"}.get(flag.kind, "TEXT")


def check_flags(args: argparse.Namespace) -> None:
    """Tells on stderr of what has no effect.

    Raises:
        UserError: a flag that the embedded server cannot do, or that makes no sense alone.
    """
    for name, (usual, reason) in REFUSED.items():
        if getattr(args, name) not in (None, usual):
            raise UserError(
                f"--{name} is not for the embedded server: {reason}. Leave it out, or use "
                "--server tensorflow_model_server."
            )
    for name, reason in WITHOUT_EFFECT.items():
        if getattr(args, name) is not None:
            print(f"--{name} has no effect here: {reason}.", file=sys.stderr)
    if args.batching_parameters_file and not args.enable_batching:
        raise UserError("--batching_parameters_file is for --enable_batching: give both.")
    if args.monitoring_config_file and not args.rest_api_port and args.rest_port is None:
        raise UserError("--monitoring_config_file is for --rest_api_port: give both.")
    for name in ("file_system_poll_wait_seconds", "model_config_file_poll_wait_seconds"):
        if (getattr(args, name) or 0) < 0:
            raise UserError(f"--{name} must be 0 or more: got {getattr(args, name):g}.")


def given_flags(args: argparse.Namespace) -> list[str]:
    """The names of the flags that were given."""
    return [flag.name for flag in _FLAGS if getattr(args, flag.name) is not None]
