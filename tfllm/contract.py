"""The contract of an export: what a client may send to a served model and what comes back.

The exporter builds its signatures from this table, the client builds its requests from it and the
tests hold both against it. This module imports nothing but the standard library, so that a client
needs nothing else.

Every input and output has dimension 0 = rows. Strings are UTF-8. What is wrong with one row is
said in that row (`finish_reason` or `error`) and never fails its neighbours.
"""

from __future__ import annotations

from typing import Any, NamedTuple

SERVING_DEFAULT = "serving_default"
GENERATE = "generate"
SCORE = "score"
TOKENIZE = "tokenize"
DETOKENIZE = "detokenize"

# What a row's `finish_reason` says: the model ended the text or a stop string came; the limit of
# tokens or the model's context was reached; or "error: " and the reason.
STOP = "stop"
LENGTH = "length"
ERROR_PREFIX = "error: "

MAX_STOP_STRINGS = 4
PADDING = -1  # fills short rows of `token_ids` in `tokenize` and `detokenize`

# Files of a version folder, beside saved_model.pb.
METADATA_FILE = "assets.extra/tfllm.json"
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"


class Field(NamedTuple):
    """One tensor of a signature.

    Attributes:
        name: The tensor's alias.
        dtype: TensorFlow's name of the dtype: string, int32, int64, float32 or bool.
        shape: The dimensions after the rows.
        default: One row's value when a gRPC client leaves the input out; None = required.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] = ()
    default: Any = None


class Signature(NamedTuple):
    """Inputs (the required ones first) and outputs of one signature."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]


_GENERATED = (
    Field("text", "string"),
    Field("finish_reason", "string"),
    Field("num_tokens", "int32"),
    Field("logprob", "float32"),
)

SAMPLING = (
    Field("max_new_tokens", "int32", default=64),
    Field("temperature", "float32", default=0.0),
    Field("top_k", "int32", default=0),
    Field("top_p", "float32", default=1.0),
    Field("min_p", "float32", default=0.0),
    Field("repetition_penalty", "float32", default=1.0),
    Field("seed", "int64", default=0),
    Field("stop", "string", (MAX_STOP_STRINGS,), default=("",) * MAX_STOP_STRINGS),
)

# What a text generator exports.
GENERATOR_SIGNATURES = {
    SERVING_DEFAULT: Signature((Field("prompt", "string"),), _GENERATED),
    GENERATE: Signature((Field("prompt", "string"), *SAMPLING), _GENERATED),
    SCORE: Signature(
        (Field("prompt", "string"), Field("completion", "string")),
        (
            Field("logprob", "float32"),
            Field("num_tokens", "int32"),
            Field("is_greedy", "bool"),
            Field("error", "string"),
        ),
    ),
    TOKENIZE: Signature(
        (Field("text", "string"),),
        (Field("token_ids", "int32", (None,)), Field("num_tokens", "int32")),
    ),
    DETOKENIZE: Signature(
        (Field("token_ids", "int32", (None,)),),
        (Field("text", "string"),),
    ),
}


class Generation(NamedTuple):
    """One row's answer of `generate`, live and served alike.

    Attributes:
        text: The continuation, without the prompt and without the stop string.
        finish_reason: `stop`, `length` or `error: …`.
        num_tokens: Tokens the model produced, with the one that ended the text.
        logprob: Their summed log-probability under the model itself (before temperature, penalties
            and filters), natural logarithm.
    """

    text: str
    finish_reason: str
    num_tokens: int
    logprob: float


class Score(NamedTuple):
    """One row's answer of `score`: how likely the completion is after the prompt.

    Attributes:
        logprob: Summed log-probability of the completion's tokens, natural logarithm.
        num_tokens: Their number.
        is_greedy: Whether greedy decoding would have produced them.
        error: "" when fine.
    """

    logprob: float
    num_tokens: int
    is_greedy: bool
    error: str
