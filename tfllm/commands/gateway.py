"""The command that puts OpenAI's interface before model servers."""

import contextlib
import sys

from tfllm.commands.options import Verb, add_server, endpoint_of, server_of
from tfllm.errors import UserError


def gateway(args) -> None:
    from tfllm.gateway import run
    from tfllm.gateway.keys import Keys
    from tfllm.gateway.records import Records

    endpoints = []
    for target in args.targets:
        endpoint = endpoint_of(target)
        if not endpoint or endpoint["signature"]:
            raise UserError(f"An endpoint must be HOST:PORT/MODEL, got {target!r}.")
        endpoints.append((endpoint["address"], endpoint["model"]))
    if args.max_waiting < 1:
        raise UserError(f"--max-waiting must be at least 1, got {args.max_waiting}.")
    keys = Keys.of_file(args.api_keys) if args.api_keys else None
    if args.log_texts and not args.log_requests:
        raise UserError("--log-texts says what --log-requests FILE writes: give both.")
    with _request_log(args.log_requests) as file, _tracing(args.otlp) as tracing:
        records = Records(file, with_texts=args.log_texts, tracing=tracing)
        served = run.gateway(
            endpoints,
            keys=keys,
            records=records,
            max_waiting=args.max_waiting,
            version_label=args.label,
            **server_of(args),
        )
        run.run(served, args.host, args.port, args.grpc_port, args.grace)


@contextlib.contextmanager
def _request_log(path: str | None):
    """The file of `--log-requests`, of which "-" is stderr."""
    if path in (None, "-"):
        yield sys.stderr if path else None
        return
    with open(path, "a", encoding="utf-8") as file:
        yield file


@contextlib.contextmanager
def _tracing(endpoint: str | None):
    if endpoint is None:
        yield None
        return
    from tfllm.gateway.tracing import Tracing

    with contextlib.closing(Tracing.to(endpoint)) as tracing:
        yield tracing


def add_gateway(verb: Verb) -> None:
    """Adds it to the parser."""
    p = verb(gateway, "streams texts of model servers, by the interface of OpenAI")
    p.set_defaults(only_asks_servers=lambda _: True)
    p.add_argument("targets", nargs="+", metavar="HOST:PORT/MODEL", help="gRPC ports of servers")
    p.add_argument("--label", help="of the version to ask for (default: the newest)")
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    p.add_argument("--port", type=int, default=8080, help="0 takes a free one (default 8080)")
    p.add_argument(
        "--grpc-port", type=int, metavar="N", help="also streams by gRPC; 0 = a free one"
    )
    p.add_argument("--api-keys", metavar="FILE", help="one a line, with limits (default: none)")
    p.add_argument("--max-waiting", type=int, default=256, metavar="N", help="texts per server")
    p.add_argument("--grace", type=float, default=30.0, help="seconds for running texts at the end")
    p.add_argument("--log-requests", metavar="FILE", help="JSON lines; - = stderr (default: none)")
    p.add_argument("--otlp", metavar="URL", help="traces to a collector, as http://localhost:4318")
    p.add_argument("--log-texts", action="store_true", help="with prompts and answers")
    add_server(p)
