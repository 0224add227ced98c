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
BEAM_SEARCH = "beam_search"
CLASSIFY = "classify"
CLASSIFY_EXAMPLES = "classify_examples"
FILL_MASK = "fill_mask"
EMBED = "embed"
ANSWER = "answer"
DESCRIBE = "describe"
PREFILL = "prefill"
DECODE = "decode"
RELEASE = "release"
SLOTS = "slots"

# What a row's `finish_reason` says: the model ended the text or a stop string came; the limit of
# tokens or the model's context was reached; or "error: " and the reason.
STOP = "stop"
LENGTH = "length"
ERROR_PREFIX = "error: "

MAX_STOP_STRINGS = 4
# What `describe` is asked for; its values are JSON.
CHAT_TEMPLATE = "chat_template"

PADDING = -1  # fills short rows of token ids

# Of sessions: what one `decode` gives at most, and what a text's own settings hold at most.
MAX_DECODED_TOKENS = 32
MAX_ALTERNATIVES = 5
MAX_BIASES = 64

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
    """Inputs (the required ones first) and outputs of one signature, and the call it answers."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    method: str = "tensorflow/serving/predict"


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
    Field("presence_penalty", "float32", default=0.0),
    Field("frequency_penalty", "float32", default=0.0),
    Field("seed", "int64", default=0),
    Field("stop", "string", (MAX_STOP_STRINGS,), default=("",) * MAX_STOP_STRINGS),
)

# What exports of earlier versions lack: sent to those that have it.
LATER_SAMPLING = ("presence_penalty", "frequency_penalty")

_ERROR = Field("error", "string")

# What an export with sessions has besides, for a text in a slot of the server: `prefill` puts it
# there, `decode` goes on with it, `release` gives the slot back. `lease` is the client's own word
# for one text, and no other's; `position` is how many tokens the text has behind its prompt.
SESSION_SIGNATURES = {
    # Called again with the same lease while `is_ready` is false: it reads on.
    PREFILL: Signature(
        (
            Field("prompt", "string"),
            Field("lease", "string"),
            # What stands behind the prompt already, as `token_ids` of `decode`, to go on elsewhere.
            Field("generated", "int32", (None,), default=(PADDING,)),
            Field("max_prefill_tokens", "int32", default=2**30),
            *SAMPLING,
            Field("num_alternatives", "int32", default=0),
            Field("bias_token_ids", "int32", (None,), default=(PADDING,)),
            Field("bias", "float32", (None,), default=(0.0,)),
        ),
        (
            Field("slot", "int32"),  # -1 = none
            Field("is_ready", "bool"),
            Field("num_prompt_tokens", "int32"),
            Field("num_read", "int32"),  # of the text, with this call
            Field("num_reused", "int32"),  # of the text, before this call
            Field("max_new_tokens", "int32"),  # that there is room for
            _ERROR,
        ),
    ),
    # A row with the position of the call before gets the answer of the call before.
    DECODE: Signature(
        (
            Field("slot", "int32"),
            Field("lease", "string"),
            Field("position", "int32"),
            Field("max_tokens", "int32", default=8),
        ),
        (
            Field("text", "string"),  # what is new, whole characters
            Field("finish_reason", "string"),  # "" = it goes on
            Field("position", "int32"),
            Field("num_tokens", "int32"),  # new ones
            Field("token_ids", "int32", (None,)),
            Field("token_bytes", "string", (None,)),
            Field("logprobs", "float32", (None,)),
            Field("alternative_ids", "int32", (None, MAX_ALTERNATIVES)),
            Field("alternative_bytes", "string", (None, MAX_ALTERNATIVES)),
            Field("alternative_logprobs", "float32", (None, MAX_ALTERNATIVES)),
        ),
    ),
    RELEASE: Signature((Field("slot", "int32"), Field("lease", "string")), (_ERROR,)),
    SLOTS: Signature(
        (Field("slot", "int32"),),
        (
            Field("is_free", "bool"),
            Field("idle_s", "float32"),
            Field("num_tokens", "int32"),
            Field("num_slots", "int32"),
            _ERROR,
        ),
    ),
}

# Every signature that there is. The defaults of a generator's settings may be other ones in an
# export whose checkpoint says so.
SIGNATURES = {
    GENERATE: Signature((Field("prompt", "string"), *SAMPLING), _GENERATED),
    BEAM_SEARCH: Signature(
        (
            Field("prompt", "string"),
            Field("max_new_tokens", "int32", default=64),
            Field("length_penalty", "float32", default=1.0),
        ),
        (
            Field("text", "string", (None,)),
            Field("score", "float32", (None,)),
            Field("finish_reason", "string", (None,)),
        ),
    ),
    SCORE: Signature(
        (Field("prompt", "string"), Field("completion", "string")),
        (
            Field("logprob", "float32"),
            Field("num_tokens", "int32"),
            Field("is_greedy", "bool"),
            _ERROR,
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
    CLASSIFY: Signature(
        (Field("text", "string"), Field("text_pair", "string", default="")),
        (
            Field("label", "string"),
            Field("score", "float32"),
            Field("labels", "string", (None,)),
            Field("scores", "float32", (None,)),
            _ERROR,
        ),
    ),
    # The names are those that TensorFlow Serving's Classify call looks for.
    CLASSIFY_EXAMPLES: Signature(
        (Field("inputs", "string"),),
        (Field("classes", "string", (None,)), Field("scores", "float32", (None,))),
        method="tensorflow/serving/classify",
    ),
    FILL_MASK: Signature(
        (Field("text", "string"),),
        (
            Field("token", "string", (None,)),
            Field("score", "float32", (None,)),
            Field("text", "string", (None,)),
            _ERROR,
        ),
    ),
    EMBED: Signature((Field("text", "string"),), (Field("embedding", "float32", (None,)), _ERROR)),
    ANSWER: Signature(
        (Field("question", "string"), Field("context", "string")),
        (
            Field("answer", "string"),
            Field("score", "float32"),
            Field("start", "int32"),
            Field("end", "int32"),
            _ERROR,
        ),
    ),
    # An entry of METADATA_FILE as JSON, for clients that see only the server; "" if there is none.
    DESCRIBE: Signature((Field("key", "string"),), (Field("value", "string"),)),
    **SESSION_SIGNATURES,
}


def signatures_of(*names: str) -> dict[str, Signature]:
    """A task's table: those signatures, and the first with its required inputs as the default."""
    first = SIGNATURES[names[0]]
    required = tuple(field for field in first.inputs if field.default is None)
    return {
        SERVING_DEFAULT: Signature(required, first.outputs),
        **{name: SIGNATURES[name] for name in names},
    }


# What the exports of each task have.
GENERATOR_SIGNATURES = signatures_of(GENERATE, BEAM_SEARCH, SCORE, TOKENIZE, DETOKENIZE)
# With a chat template, which a client cannot know without asking for it.
CHAT_SIGNATURES = GENERATOR_SIGNATURES | {DESCRIBE: SIGNATURES[DESCRIBE]}
CLASSIFIER_SIGNATURES = signatures_of(CLASSIFY, CLASSIFY_EXAMPLES, TOKENIZE, DETOKENIZE)
MASKED_LM_SIGNATURES = signatures_of(FILL_MASK, TOKENIZE, DETOKENIZE)
EMBEDDER_SIGNATURES = signatures_of(EMBED, TOKENIZE, DETOKENIZE)
SPAN_QA_SIGNATURES = signatures_of(ANSWER, TOKENIZE, DETOKENIZE)


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


class Beams(NamedTuple):
    """One row's answer of `beam_search`: continuations, the best first.

    Attributes:
        text: The continuations.
        score: Of each: summed log-probability divided by its number of tokens to the power of the
            length penalty.
        finish_reason: Of each.
    """

    text: list[str]
    score: list[float]
    finish_reason: list[str]


class Classification(NamedTuple):
    """One row's answer of `classify`.

    Attributes:
        label: The most probable label; "" with an error.
        score: Its probability.
        labels: All labels of the model, in its order.
        scores: Their probabilities.
        error: "" when fine.
    """

    label: str
    score: float
    labels: list[str]
    scores: list[float]
    error: str


class MaskFill(NamedTuple):
    """One row's answer of `fill_mask`: tokens for the first mask, the most probable first.

    Attributes:
        token: The tokens.
        score: Their probabilities.
        text: The text with each of them in place of the mask.
        error: "" when fine.
    """

    token: list[str]
    score: list[float]
    text: list[str]
    error: str


class Embedding(NamedTuple):
    """One row's answer of `embed`.

    Attributes:
        embedding: A vector of unit length, zeros with an error.
        error: "" when fine.
    """

    embedding: list[float]
    error: str


class Answer(NamedTuple):
    """One row's answer of `answer`.

    Attributes:
        answer: The part of the context that answers; "" if none does.
        score: Its probability.
        start: Where it begins in the context, in Unicode code points.
        end: Where it ends, exclusive.
        error: "" when fine.
    """

    answer: str
    score: float
    start: int
    end: int
    error: str
