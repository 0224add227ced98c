"""Commands that bring exports to the stock server, and move version labels on it."""

from typing import Any

from tfllm.commands.options import Verb, add_server, endpoint_of, server_of
from tfllm.errors import UserError


def deploy(args) -> dict[str, Any]:
    from tfllm.deployment import write_deployment

    return write_deployment(
        args.folder,
        args.model,
        cpus=args.cpus,
        servers=args.servers,
        image=args.image,
        overwrite=args.overwrite,
    )


def promote(args) -> dict[str, Any]:
    from tfllm.serving import promote

    addresses, model = _servers(args.targets)
    moved = promote(addresses, model, args.version, label=args.label, **_options(args))
    return moved._asdict()


def rollback(args) -> dict[str, Any]:
    from tfllm.serving import rollback

    addresses, model = _servers(args.targets)
    return rollback(addresses, model, **_options(args))._asdict()


def _servers(targets: list[str]) -> tuple[list[str], str]:
    """The addresses, and the model that they all serve."""
    addresses, models = [], set()
    for target in targets:
        endpoint = endpoint_of(target)
        if not endpoint or endpoint["signature"] or "://" in target:
            raise UserError(f"A server looks like HOST:PORT/MODEL, for gRPC: got {target!r}.")
        addresses.append(endpoint["address"])
        models.add(endpoint["model"])
    if len(models) > 1:
        raise UserError(f"Labels of one model move at a time, got {', '.join(sorted(models))}.")
    return addresses, models.pop()


def _options(args) -> dict[str, Any]:
    return {"config_file": args.config, "wait_s": args.wait, **server_of(args)}


def add_deploying(verb: Verb) -> None:
    """Adds them to the parser."""
    p = verb(deploy, "writes what runs the stock server: Docker Compose, Kubernetes, Prometheus")
    p.add_argument("folder", metavar="DIR", help="the folder to write")
    p.add_argument(
        "--model", action="append", required=True, metavar="BASE",
        help="as models/gpt; its newest version is served; may be repeated",
    )  # fmt: skip
    p.add_argument("--cpus", type=int, default=4, help="of a server (default 4)")
    p.add_argument(
        "--servers", type=int, metavar="N",
        help="in Kubernetes, of models with sessions (default 2)",
    )  # fmt: skip
    p.add_argument("--image", help="of the stock server (default: of the export's TensorFlow)")
    p.add_argument("--overwrite", action="store_true", help="replace all of it but keys.txt")

    p = verb(promote, "gives a label to a version on servers that run, and in models.config")
    _add_servers(p)
    p.add_argument("--version", type=int, required=True, help="loaded first where it is not")
    p.add_argument("--label", default="stable", help="as canary (default stable)")
    add_server(p)

    p = verb(rollback, "takes the last promote back")
    _add_servers(p)
    add_server(p)


def _add_servers(parser) -> None:
    parser.add_argument("targets", nargs="+", metavar="HOST:PORT/MODEL", help="all of its servers")
    parser.add_argument(
        "--config", default="models.config", metavar="FILE",
        help="that the servers were started with; the change is written to it",
    )  # fmt: skip
    parser.add_argument("--wait", type=float, default=120.0, help="seconds for a version to load")
