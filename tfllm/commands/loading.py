"""The command that puts a load on a server."""

import asyncio
import sys
from pathlib import Path
from typing import Any

from tfllm.commands.options import (
    Verb,
    add_connection,
    connection_of,
    endpoint_of,
    json_inputs,
)
from tfllm.errors import UserError


def bench(args) -> dict[str, Any]:
    from tfllm.serving import AsyncClient
    from tfllm.serving.load import Load, put_load

    endpoint = endpoint_of(args.target)
    if not endpoint:
        raise UserError(
            f"The endpoint must be HOST:PORT/MODEL or HOST:PORT/MODEL/SIGNATURE, before it http:// "
            f"for REST, got {args.target!r}."
        )
    load = Load(
        clients=args.clients,
        rate=args.rate,
        seconds=args.seconds,
        requests=args.requests,
        warm_up=args.warm_up,
        rows=args.rows,
        prompt_words=_range(args.prompt_words),
        new_tokens=_range(args.max_new_tokens),
        texts=_texts(args.prompts) if args.prompts else (),
        inputs=json_inputs(args.inputs) if args.inputs else None,
        seed=args.seed,
    )

    async def run():
        connection = connection_of(args)
        address, model = endpoint["address"], endpoint["model"]
        async with AsyncClient(address, model, retries=0, **connection) as client:
            return await put_load(client, load, endpoint["signature"] or "generate")

    found = asyncio.run(run()).as_json()
    print(_table(found), file=sys.stderr)
    return {"target": args.target, **found}


def _range(text: str) -> tuple[int, int]:
    fewest, _, most = text.partition(":")
    try:
        return int(fewest), int(most or fewest)
    except ValueError:
        raise UserError(f"A range looks like 8:64, or 8 for always 8; got {text!r}.") from None


def _texts(path: str) -> list[str]:
    texts = [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    if not texts:
        raise UserError(f"{path} has no lines.")
    return texts


def _table(found: dict[str, Any]) -> str:
    latency = [f"{name} {value:.1f}" for name, value in found["latency_ms"].items()]
    lines = {
        "requests": f"{found['requests']}, {found['answered']} answered in {found['seconds']} s",
        "per second": f"{found['requests_per_s']} requests, {found['rows_per_s']} rows, "
        f"{found['tokens_per_s']} tokens",
        "latency in ms": ", ".join(latency) or "none was answered",
        "errors": ", ".join(f"{n} {code}" for code, n in found["errors"].items()) or "none",
        "rows refused": ", ".join(f"{n}: {why}" for why, n in found["row_errors"].items())
        or "none",
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {line}" for name, line in lines.items())


def add_loading(verb: Verb) -> None:
    """Adds it to the parser."""
    p = verb(bench, "puts a load on a served model and measures how it bears it")
    p.add_argument("target", metavar="HOST:PORT/MODEL[/SIGNATURE]")
    p.add_argument("--clients", type=int, default=8, help="that ask at a time (closed loop)")
    p.add_argument("--rate", type=float, help="requests per second at random (open loop)")
    p.add_argument("--seconds", type=float, default=10.0, help="for which requests are sent")
    p.add_argument("--requests", type=int, help="at most")
    p.add_argument("--warm-up", type=int, default=1, help="requests before, not counted")
    p.add_argument("--rows", type=int, default=1, help="in a request")
    p.add_argument("--prompt-words", default="8:64", metavar="FEWEST:MOST", help="of a prompt")
    p.add_argument("--max-new-tokens", default="16:64", metavar="FEWEST:MOST", help="of an answer")
    p.add_argument("--prompts", metavar="FILE", help="a text in each line (default: made up)")
    p.add_argument("--inputs", metavar="JSON", help="inputs by name, for any signature")
    p.add_argument("--seed", type=int, default=0, help="of lengths, texts and arrivals")
    add_connection(p, "--header")
