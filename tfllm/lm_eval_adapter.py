"""Scores a served model by the tasks of lm-eval, over gRPC.

    python -m tfllm.lm_eval_adapter run --model tfllm --model_args target=localhost:8500/gpt \
        --include_path my_tasks --tasks my_task

is lm-eval's own command with our model known to it; so is any code that imports this module first.

Source:
    `lm_eval.api.model.LM`, https://github.com/EleutherAI/lm-evaluation-harness
"""

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

from tfllm import contract
from tfllm.errors import UserError
from tfllm.evaluators.perplexity import score_pieces, served_context_length
from tfllm.evaluators.windows import last_part
from tfllm.rows import refusal
from tfllm.serving import Client

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import normalize_gen_kwargs
except ModuleNotFoundError as error:
    raise UserError(
        f"lm-eval cannot be imported ({error}): pip install 'tfllm[lm_eval]'."
    ) from error

_MAX_STOP_BYTES = 256  # the server refuses a longer one; it ends the text here
_SETTINGS = {
    field.name: field.default
    for field in contract.SAMPLING
    if field.name not in ("max_new_tokens", "seed", "stop")
}
_log = logging.getLogger(__name__)


@register_model("tfllm")
class ServedLM(LM):
    """A model of lm-eval whose answers come from a server.

    A context that is too long for the model loses its beginning, as in lm-eval's own models, and
    the log says how often. What follows a context is tokenized for itself, as `score` does it.

    Args:
        target: "host:port/model"; or a model or client that answers the same calls.
        batch_size: Rows per call; "auto" is 16.
        context_length: Tokens; default the model's own.
        stride: Of texts longer than the context, see `tfllm.evaluators.perplexity`.
        max_gen_toks: New tokens where a task does not say.
        seed: Of sampling; each request has another.
        timeout_s: Seconds for one call.
        device: Of lm-eval; a server has its own.
        max_batch_size: Of lm-eval; `batch_size` is what is sent.

    Raises:
        UserError: `target` has another form.
    """

    def __init__(
        self,
        target: Any,
        batch_size: int | str = 16,
        context_length: int | None = None,
        stride: int | None = None,
        max_gen_toks: int = 256,
        seed: int = 0,
        timeout_s: float = 60.0,
        device: Any = None,  # noqa: ARG002
        max_batch_size: Any = None,  # noqa: ARG002
    ):
        super().__init__()
        self.model = _client(target, timeout_s) if isinstance(target, str) else target
        self.batch_size = 16 if batch_size == "auto" else int(batch_size)
        self.stride = stride
        self.max_gen_toks = max_gen_toks
        self.seed = seed
        self.context_length = context_length or served_context_length(self.model)

    def loglikelihood(self, requests, disable_tqdm=False) -> list[tuple[float, bool]]:  # noqa: ARG002
        """Of each (context, continuation): the summed log-probability, and whether it is greedy."""
        asked = [_spaces_behind(*request.args) for request in requests]
        pairs = [
            (last_part(self.model, context, text, self.context_length), text)
            for context, text in asked
        ]
        _tell_cut(asked, pairs)
        return self._in_batches(pairs, self._score)

    def loglikelihood_rolling(self, requests, disable_tqdm=False) -> list[float]:  # noqa: ARG002
        """Of each (text,) its log-probability, by a sliding window."""
        texts = [request.args[0] for request in requests]
        sums = [0.0] * len(texts)
        for piece in score_pieces(
            self.model, texts, self.context_length, self.stride, self.batch_size
        ):
            sums[piece.text] += piece.logprob
        return sums

    def generate_until(self, requests, disable_tqdm=False) -> list[str]:  # noqa: ARG002
        """Of each (context, settings) what the model writes, before the first stop string."""
        rows = []
        for i, request in enumerate(requests):
            context, kwargs = request.args
            settings = _settings(kwargs, self.max_gen_toks)
            room = self._room(settings["max_new_tokens"])
            rows.append((last_part(self.model, context, "", room), settings, self.seed + i))
        _tell_cut([request.args for request in requests], rows)
        return self._in_batches(rows, self._write)

    def _room(self, max_new_tokens: int) -> int:
        """Tokens of a context; half of all at least, so that something is left of it."""
        return max(self.context_length - max_new_tokens, self.context_length // 2)

    def _in_batches(self, rows: Sequence, answer: Callable[[list], list]) -> list:
        """Answers in the order of the rows; rows of like length go together."""
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))
        found: list = [None] * len(rows)
        for begin in range(0, len(order), self.batch_size):
            here = order[begin : begin + self.batch_size]
            for i, value in zip(here, answer([rows[i] for i in here]), strict=True):
                found[i] = value
        return found

    def _score(self, pairs: list[tuple[str, str]]) -> list[tuple[float, bool]]:
        contexts, texts = map(list, zip(*pairs, strict=True))
        scores = self.model.score(contexts, texts)
        for score in scores:
            _require(score.error)
        return [(score.logprob, score.is_greedy) for score in scores]

    def _write(self, rows: list[tuple[str, dict[str, Any], int]]) -> list[str]:
        contexts, settings, seeds = map(list, zip(*rows, strict=True))
        columns: dict[str, Any] = {
            name: [row[name] for row in settings] for name in settings[0] if name != "until"
        }
        short = [
            [s for s in row["until"] if len(s.encode()) <= _MAX_STOP_BYTES] for row in settings
        ]
        stop = [texts[: contract.MAX_STOP_STRINGS] for texts in short]
        answers = self.model.generate(contexts, stop=stop, seed=seeds, **columns)
        for answer in answers:
            _require(refusal(answer))
        return [
            _before_first(answer.text, row["until"])
            for answer, row in zip(answers, settings, strict=True)
        ]


def _client(target: str, timeout_s: float) -> Client:
    address, slash, model = target.partition("/")
    if not re.fullmatch(r"[^/\s]+:\d+", address) or not slash or not model:
        raise UserError(f"target must be HOST:PORT/MODEL, got {target!r}.")
    return Client(address, model, timeout_s=timeout_s)


def _spaces_behind(context: str, text: str) -> tuple[str, str]:
    """The pair with the spaces at the end of the context before the text: tokens begin there."""
    kept = context.rstrip()
    return kept, context[len(kept) :] + text


def _settings(kwargs: dict[str, Any], max_gen_toks: int) -> dict[str, Any]:
    """The settings of `generate` and `until` that a task's arguments mean; the same names always.

    Raises:
        UserError: an argument that the server does not know.
    """
    given = normalize_gen_kwargs(kwargs, max_gen_toks)
    settings = {"until": given.pop("until"), "max_new_tokens": given.pop("max_gen_toks")}
    if given.pop("do_sample"):
        given.setdefault("temperature", 1.0)
    settings |= {name: given.pop(name, default) for name, default in _SETTINGS.items()}
    if given:
        raise UserError(
            f"A served model takes {', '.join(_SETTINGS)}, until, max_gen_toks and do_sample; the "
            f"task also has {', '.join(given)}."
        )
    return settings


def _before_first(text: str, until: list[str]) -> str:
    for stop in until:
        text = text.split(stop)[0] if stop else text
    return text


def _require(error: str) -> None:
    if error:
        raise UserError(f"The model refused a request: {error}.")


def _tell_cut(asked: Sequence[tuple], rows: Sequence[tuple]) -> None:
    """Logs how many of the contexts, the first of each, are not what was asked."""
    cut = sum(one[0] != other[0] for one, other in zip(asked, rows, strict=True))
    if cut:
        _log.warning("%d of %d contexts were too long: their ends were read.", cut, len(rows))


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
