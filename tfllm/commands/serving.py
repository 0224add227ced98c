"""The command that serves exports."""

import argparse
import logging
from typing import Any

from tfllm.commands.options import Verb, given
from tfllm.commands.stock_flags import MODEL_NAME, add_stock_flags, check_flags, given_flags
from tfllm.errors import UserError


def serve(args) -> None:
    check_flags(args)
    if args.server == "embedded":
        from tfllm.serving import serve

        if args.log_requests:
            logging.getLogger("tfllm.serving.requests").setLevel(logging.DEBUG)
        serve(_models(args), **_options(args))
        return
    from tfllm.serving import run_stock_server

    if others := set(given_flags(args)) - {"model_name", "port"}:
        raise UserError(
            f"--{min(others)} is a flag of tensorflow_model_server itself: start that with all its "
            "flags, without tfllm."
        )
    if (args.host, args.rest_port, args.max_rows) != (None, None, None):
        raise UserError(
            "tensorflow_model_server listens on every address and has no limit of rows: leave "
            "--host, --rest-port and --max-rows out."
        )
    run_stock_server(_models(args), port=given(args.port, 8500))


def _models(args) -> Any:
    """What to serve; as by the stock server, a config file comes before a base path."""
    if args.model_config_file and args.models:
        raise UserError("Give BASE or --model_config_file, not both.")
    if args.model_config_file:
        from tfllm.serving.config_file import ConfigFile

        poll_s = given(args.model_config_file_poll_wait_seconds, 0)
        return ConfigFile(args.model_config_file, poll_s, _label_rule(args))
    if args.model_base_path and args.models:
        raise UserError("Give BASE or --model_base_path, not both.")
    if args.model_base_path:
        return {args.model_name or MODEL_NAME: args.model_base_path}
    if not args.models:
        raise UserError("Give the BASE of a model, as models/gpt, or --model_config_file FILE.")
    if args.model_name and len(args.models) > 1:
        raise UserError(f"--name names one model, got {len(args.models)}.")
    return {args.model_name: args.models[0]} if args.model_name else args.models


def _options(args) -> dict[str, Any]:
    """The other arguments of `Server`."""
    from tfllm.serving.states import VersionOptions

    options: dict[str, Any] = {
        "port": given(args.port, 8500),
        "host": given(args.host, "127.0.0.1"),
        "poll_s": given(args.file_system_poll_wait_seconds, 1.0),
        "num_threads": args.grpc_max_threads,
        "version_options": VersionOptions(
            given(args.max_num_load_retries, 0),
            given(args.load_retry_interval_micros, 60_000_000) / 1e6,
            given(args.num_request_iterations_for_warmup, 1) or 1
            if given(args.enable_model_warmup, True)
            else 0,
            _label_rule(args),
        ),
        "grpc_options": _grpc_options(args),
    }
    if args.rest_api_port or args.rest_port is not None:
        options |= {"rest_port": args.rest_api_port or args.rest_port, "rest": _rest_options(args)}
    if args.enable_batching:
        from tfllm.serving.batching_parameters import BatchingParameters, read_batching_parameters

        path = args.batching_parameters_file
        options["batching"] = read_batching_parameters(path) if path else BatchingParameters()
    return options


def _label_rule(args):
    from tfllm.serving.states import LabelRule

    if args.force_allow_any_version_labels_for_unavailable_models:
        return LabelRule.ANY
    allows = args.allow_version_labels_for_unavailable_models
    return LabelRule.NEW if allows else LabelRule.AVAILABLE


def _grpc_options(args):
    from tfllm.serving.grpc_options import GrpcOptions, ServerCertificate

    path = args.ssl_config_file
    return GrpcOptions(
        certificate=ServerCertificate.of_config(path) if path else None,
        max_rows=args.max_rows,
        socket_path=args.grpc_socket_path,
        channel_arguments=args.grpc_channel_arguments or {},
    )


def _rest_options(args):
    from tfllm.serving.config_protos import read_monitoring_config
    from tfllm.serving.rest_server import RestOptions

    given_options: dict[str, Any] = {
        "timeout_s": given(args.rest_api_timeout_in_ms, 30_000) / 1000,
        "cors": bool(args.rest_api_enable_cors_support),
    }
    if args.monitoring_config_file:
        prometheus = read_monitoring_config(args.monitoring_config_file).prometheus_config
        if not prometheus.enable:
            given_options["metrics_path"] = None
        elif prometheus.path:
            given_options["metrics_path"] = prometheus.path
    return RestOptions(**given_options)


def add_serving(verb: Verb) -> None:
    """Adds it to the parser."""
    p: argparse.ArgumentParser = verb(serve, "serves exports until it is stopped")
    p.add_argument("models", nargs="*", metavar="BASE", help="as models/gpt")
    p.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    p.add_argument("--rest-port", type=int, help="for REST; 0 takes a free one (default: no REST)")
    p.add_argument("--max-rows", type=int, metavar="N", help="of a request (default: any number)")
    p.add_argument("--log-requests", action="store_true", help="writes what clients send to stderr")
    p.add_argument("--server", choices=["embedded", "tensorflow_model_server"], default="embedded")
    add_stock_flags(p)
