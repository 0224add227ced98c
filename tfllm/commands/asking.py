"""Commands that ask a model."""

import json
import re
import sys
from pathlib import Path
from typing import Any

from tfllm.commands.options import (
    Verb,
    add_connection,
    add_sampling,
    connection_of,
    endpoint_of,
    json_inputs,
    load_preset,
    progress,
    sampling_of,
)
from tfllm.errors import UserError


def generate(args) -> dict[str, Any]:
    from tfllm.calls import GeneratorCalls

    model = load_preset(args.preset)
    if not isinstance(model, GeneratorCalls):
        raise UserError(f"{args.preset} holds a {type(model).__name__}, which writes no text.")
    return _generations(model, args)


def call(args) -> dict[str, Any]:
    if args.input is not None:
        return _call_with_file(args)
    endpoint = _endpoint(args.target)
    with _client(args, endpoint) as client:
        if args.inputs is not None:
            inputs = json_inputs(args.inputs)
            return _plain(client.predict(inputs, endpoint["signature"] or "serving_default"))
        return _call_with_prompts(client, endpoint["signature"] or "generate", args)


def _endpoint(target: str) -> re.Match:
    endpoint = endpoint_of(target)
    if not endpoint:
        raise UserError(
            f"The endpoint must be HOST:PORT/MODEL or HOST:PORT/MODEL/SIGNATURE, before it http:// "
            f"for REST, got {target!r}."
        )
    return endpoint


def _client(args, endpoint: re.Match):
    from tfllm.serving import Client

    return Client(endpoint["address"], endpoint["model"], **connection_of(args))


def _call_with_file(args) -> dict[str, Any]:
    if args.output is None:
        raise UserError("--input FILE needs --output FILE.")
    if args.prompt or args.messages or args.inputs:
        raise UserError("Give --input FILE, or what is asked on the command line, not both.")
    if Path(args.target).exists():
        return _answered(load_preset(args.target), None, args, concurrency=1)
    endpoint = _endpoint(args.target)
    with _client(args, endpoint) as client:
        return _answered(client, endpoint["signature"], args, concurrency=args.concurrency)


def _answered(model, signature: str | None, args, concurrency: int) -> dict[str, Any]:
    from tfllm.serving.offline import answer_file

    settings = sampling_of(args) | ({"stop": args.stop} if args.stop else {})
    with progress("answering", " lines") as on_lines:
        counts = answer_file(
            model,
            args.input,
            args.output,
            signature=signature,
            batch_size=args.batch_size,
            concurrency=concurrency,
            settings=settings,
            retry_failed=args.retry_failed,
            on_lines=on_lines,
        )
    return {"output": args.output, **counts}


def _call_with_prompts(client, signature: str, args) -> dict[str, Any]:
    if signature not in ("generate", "beam_search", "score"):
        raise UserError(f"{signature} takes no --prompt: give --inputs JSON.")
    if args.messages is not None and signature != "generate":
        raise UserError(f"{signature} takes no --messages, generate does.")
    if not args.prompt and args.messages is None:
        raise UserError(
            "Give --prompt TEXT or --messages FILE, or --inputs JSON for any signature."
        )
    if signature == "score":
        scores = client.score(args.prompt, args.completion or [])
        return {"scores": [score._asdict() for score in scores]}
    if signature == "beam_search":
        beams = client.beam_search(args.prompt, max_new_tokens=args.max_new_tokens)
        return {"beams": [each._asdict() for each in beams]}
    if args.stream:
        return _streamed(client, args)
    return _generations(client, args)


def _streamed(client, args) -> dict[str, Any]:
    """One text after the other, shown on stderr while they are written."""
    settings = {"stop": args.stop or (), "logprobs": True, **sampling_of(args)}
    if args.messages is not None and args.prompt:
        raise UserError("Give --prompt or --messages, not both.")
    if args.messages is not None:
        talks = _conversations(args.messages)
        talks = talks if isinstance(talks, list) else [talks]  # which is refused by what it is
        streams = [client.stream_chat(each, **settings) for each in talks]
    else:
        streams = [client.stream(prompt, **settings) for prompt in args.prompt]
    generations = []
    for stream in streams:
        pieces = []
        for piece in stream:
            print(piece.text, end="", file=sys.stderr, flush=True)
            pieces.append(piece)
        print(file=sys.stderr)
        logprobs = [logprob for piece in pieces for logprob in piece.logprobs]
        generations.append(
            {
                "text": "".join(piece.text for piece in pieces),
                "finish_reason": pieces[-1].finish_reason,
                "num_tokens": len(logprobs),
                "logprob": sum(logprobs),
            }
        )
    return {"generations": generations}


def _generations(model, args) -> dict[str, Any]:
    settings = {"stop": args.stop or (), **sampling_of(args)}
    if args.messages is None and not args.prompt:
        raise UserError("Give --prompt TEXT or --messages FILE.")
    if args.messages is None:
        found = model.generate(args.prompt, **settings)
    elif args.prompt:
        raise UserError("Give --prompt or --messages, not both.")
    else:
        found = model.chat(_conversations(args.messages), **settings)
    if args.num_return_sequences not in (None, 1):
        return {"generations": [[each._asdict() for each in several] for several in found]}
    return {"generations": [generation._asdict() for generation in found]}


def _conversations(path: str) -> Any:
    """The conversations of a file of JSON: one, as a list or an object, or a list of several."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    found = found.get("messages") if isinstance(found, dict) else found
    if not isinstance(found, list) or all(isinstance(each, list) for each in found):
        return found  # `chat` says what is wrong with it
    return [found]


def _plain(outputs: dict[str, Any]) -> dict[str, Any]:
    from tfllm.rows import plain

    return {name: plain(array.tolist()) for name, array in outputs.items()}


def add_asking(verb: Verb) -> None:
    """Adds them to the parser."""
    p = verb(generate, "continues prompts with a preset")
    p.add_argument("preset")
    add_sampling(p)

    p = verb(call, "asks a served model; or of a file of questions also a preset")
    p.set_defaults(only_asks_servers=lambda args: not Path(args.target).exists())
    p.add_argument("target", metavar="HOST:PORT/MODEL[/SIGNATURE]|PRESET")
    add_sampling(p)
    p.add_argument("--completion", action="append", metavar="TEXT", help="for score")
    p.add_argument("--inputs", metavar="JSON", help="inputs by name, for any signature")
    p.add_argument("--stream", action="store_true", help="shows texts while they are written")
    files = p.add_argument_group("files")
    files.add_argument("--input", metavar="FILE", help='JSON lines, as {"prompt": "Hi"}')
    files.add_argument("--output", metavar="FILE", help="of answers; goes on where it ended")
    files.add_argument("--batch-size", type=int, default=8, help="lines in a request")
    files.add_argument("--concurrency", type=int, default=8, help="requests at a time")
    files.add_argument("--retry-failed", action="store_true", help="asks again what failed")
    add_connection(p, "--header")
