"""The command that puts OpenAI's interface before model servers."""

import logging

from tfllm.commands.options import Verb, add_server, endpoint_of, server_of
from tfllm.errors import UserError


def gateway(args) -> None:
    from tfllm.gateway import run
    from tfllm.gateway.keys import Keys

    endpoints = []
    for target in args.targets:
        endpoint = endpoint_of(target)
        if not endpoint or endpoint["signature"]:
            raise UserError(f"An endpoint must be HOST:PORT/MODEL, got {target!r}.")
        endpoints.append((endpoint["address"], endpoint["model"]))
    if args.max_waiting < 1:
        raise UserError(f"--max-waiting must be at least 1, got {args.max_waiting}.")
    keys = Keys.of_file(args.api_keys) if args.api_keys else None
    served = run.gateway(endpoints, keys=keys, max_waiting=args.max_waiting, **server_of(args))
    if not args.log_requests:
        logging.getLogger("tfllm.gateway.server").setLevel(logging.WARNING)
    run.run(served, args.host, args.port, args.grace)


def add_gateway(verb: Verb) -> None:
    """Adds it to the parser."""
    p = verb(gateway, "streams texts of model servers, by the interface of OpenAI")
    p.add_argument("targets", nargs="+", metavar="HOST:PORT/MODEL", help="gRPC ports of servers")
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    p.add_argument("--port", type=int, default=8080, help="0 takes a free one (default 8080)")
    p.add_argument("--api-keys", metavar="FILE", help="one a line, with limits (default: none)")
    p.add_argument("--max-waiting", type=int, default=256, metavar="N", help="texts per server")
    p.add_argument("--grace", type=float, default=30.0, help="seconds for running texts at the end")
    p.add_argument("--log-requests", action="store_true", help="to stderr, without their texts")
    add_server(p)
