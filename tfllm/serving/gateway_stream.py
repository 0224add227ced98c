"""A client's side of the gateway's gRPC service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfllm import rows
from tfllm.errors import UserError
from tfllm.serving.session_stream import Piece
from tfllm.serving.text_generation import GenerateRequest


def request_of(
    model: str,
    prompt: str | None,
    messages: Sequence[Mapping[str, Any]] | None,
    settings: Mapping[str, list],
    **wanted: Any,
) -> Any:
    """A `GenerateRequest` for one text.

    Args:
        model: As the gateway knows it.
        prompt: A text, or None for a conversation.
        messages: Dicts with `role` and `content`, or None.
        settings: Columns of one row, without what is left out.
        **wanted: `wants_logprobs` and `num_alternatives`.

    Raises:
        UserError: a message is none.
    """
    request = GenerateRequest(model=model, prompt=prompt, **wanted)
    for message in messages or ():
        if not isinstance(message, Mapping) or message.keys() != {"role", "content"}:
            raise UserError(f"A message must have role and content and nothing else: {message!r}.")
        role, content = rows.text_rows([message["role"], message["content"]], "messages")
        request.messages.add(role=role, content=content)
    for name, (value,) in settings.items():
        if name == "stop":
            request.stop.extend(text for text in value if text)
        else:
            setattr(request, name, value)
    return request


def piece_of(reply: Any) -> Piece:
    """What a `GenerateReply` tells."""
    return Piece(
        reply.text,
        list(reply.token_ids),
        list(reply.logprobs),
        reply.finish_reason,
        [list(zip(best.tokens, best.logprobs, strict=True)) for best in reply.alternatives],
    )
