"""What was written, in the shapes of OpenAI's answers.

Source:
    https://platform.openai.com/docs/api-reference, read for the objects and their fields.
"""

from __future__ import annotations

import base64
import datetime
import uuid
from array import array
from collections.abc import Sequence
from typing import Any

from tfllm.contract import Embedding
from tfllm.gateway.texts import Piece, Refused, Text, Token

_TYPES = {429: "rate_limit_error"}


def error_body(refused: Refused) -> dict[str, Any]:
    """The body of a refusal."""
    kind = "server_error" if refused.status >= 500 else "invalid_request_error"
    return {
        "error": {
            "message": refused.message,
            "type": _TYPES.get(refused.status, kind),
            "param": refused.param,
            "code": refused.code,
        }
    }


def usage_of(texts: Sequence[Sequence[Text]], num_written: int) -> dict[str, Any]:
    """The numbers of tokens: of each prompt once, and of all that was written."""
    prompts = sum(group[0].num_prompt_tokens for group in texts)
    return {
        "prompt_tokens": prompts,
        "completion_tokens": num_written,
        "total_tokens": prompts + num_written,
        "prompt_tokens_details": {"cached_tokens": sum(group[0].num_reused for group in texts)},
    }


class Shape:
    """How an interface shows texts: the parts that all its messages have.

    Args:
        model: As the client called it.
        wants_logprobs: Whether tokens are told.
    """

    prefix: str
    whole: str
    part: str

    def __init__(self, model: str, wants_logprobs: bool):
        self.wants_logprobs = wants_logprobs
        self._model = model
        self._id = f"{self.prefix}-{uuid.uuid4().hex}"
        self._created = int(datetime.datetime.now(datetime.UTC).timestamp())

    def _message(self, kind: str, choices: list, **more: Any) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "choices": choices,
            **more,
        }

    def answer(self, choices: list[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        """The body of an answer that is no stream."""
        return self._message(self.whole, choices, usage=usage)

    def chunk(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """One message of a stream."""
        return self._message(self.part, choices, **more)

    def first(self, index: int) -> dict[str, Any] | None:
        """What a stream says of a choice before its first piece."""
        raise NotImplementedError

    def choice(self, index: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        """A whole text."""
        raise NotImplementedError

    def piece(self, index: int, piece: Piece, num_before: int) -> dict[str, Any]:
        """A part of one, behind so many characters of tokens."""
        raise NotImplementedError


class Completions(Shape):
    """Of `/v1/completions`."""

    prefix, whole, part = "cmpl", "text_completion", "text_completion"

    def first(self, index):  # noqa: ARG002 - the interface
        return None

    def choice(self, index, pieces):
        joined = _joined(pieces)
        return self.piece(index, joined, 0)

    def piece(self, index, piece, num_before):
        return {
            "index": index,
            "text": piece.text,
            "logprobs": self._logprobs(piece.tokens, num_before) if self.wants_logprobs else None,
            "finish_reason": piece.finish_reason or None,
        }

    def _logprobs(self, tokens: Sequence[Token], at: int):
        offsets = []
        for token in tokens:
            offsets.append(at)
            at += len(shown(token.raw))
        best = [
            {_named(raw): _finite(value) for raw, value in token.alternatives} for token in tokens
        ]
        return {
            "tokens": [_named(token.raw) for token in tokens],
            "token_logprobs": [_finite(token.logprob) for token in tokens],
            "top_logprobs": best if any(best) else None,
            "text_offset": offsets,
        }


class Chat(Shape):
    """Of `/v1/chat/completions`."""

    prefix, whole, part = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def first(self, index):
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def choice(self, index, pieces):
        joined = _joined(pieces)
        return {
            "index": index,
            "message": {"role": "assistant", "content": joined.text, "refusal": None},
            "logprobs": self._logprobs(joined.tokens),
            "finish_reason": joined.finish_reason,
        }

    def piece(self, index, piece, num_before):  # noqa: ARG002 - the interface
        return {
            "index": index,
            "delta": {"content": piece.text} if piece.text else {},
            "logprobs": self._logprobs(piece.tokens),
            "finish_reason": piece.finish_reason or None,
        }

    def _logprobs(self, tokens: Sequence[Token]):
        if not self.wants_logprobs:
            return None
        return {
            "content": [
                {
                    **_token(token.raw, token.logprob),
                    "top_logprobs": [_token(*best) for best in token.alternatives],
                }
                for token in tokens
            ],
            "refusal": None,
        }


def embeddings(
    model: str, found: Sequence[Embedding], in_base64: bool, num_tokens: int
) -> dict[str, Any]:
    """The body of an answer of `/v1/embeddings`."""

    def vector(one: Embedding):
        packed = array("f", one.embedding).tobytes()
        return base64.b64encode(packed).decode() if in_base64 else one.embedding

    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector(one)}
            for index, one in enumerate(found)
        ],
        "model": model,
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    }


def shown(raw: bytes) -> str:
    """A token as text; a part of a character as the character that stands for what is unknown."""
    return raw.decode(errors="replace")


def _named(raw: bytes) -> str:
    """A token as OpenAI's completions name it: parts of characters are told apart."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def _token(raw: bytes, logprob: float) -> dict[str, Any]:
    return {"token": shown(raw), "logprob": _finite(logprob), "bytes": list(raw)}


def _finite(logprob: float) -> float:
    return max(logprob, -9999.0)  # JSON has no infinity; OpenAI says this number for it


def _joined(pieces: Sequence[Piece]) -> Piece:
    return Piece(
        "".join(piece.text for piece in pieces),
        sum(piece.num_tokens for piece in pieces),
        pieces[-1].finish_reason,
        tuple(token for piece in pieces for token in piece.tokens),
    )
