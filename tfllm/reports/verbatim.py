"""How much of a text a model repeats word for word when it is shown how the text begins."""

import itertools
import math
import os.path
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from tqdm import tqdm

from tfllm import contract
from tfllm.errors import UserError

# The bytes of a character beside its first: so many tokens a cut may have to move on.
_BYTES = 3
_Z = 1.959964  # of a two-sided 95 % interval
# Greedy, whatever the model's own settings are.
_GREEDY = {
    "temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0,
    "presence_penalty": 0.0, "frequency_penalty": 0.0,
}  # fmt: skip


class Beginning(NamedTuple):
    """The beginning of a text in two parts.

    Attributes:
        prompt: What the model is shown.
        ends: Characters of the text behind the prompt at the end of each token that follows, in
            order; None where a token ends inside a character.
        wanted: The text behind the prompt.
        is_cut_alike: Whether the tokens of the prompt alone are those at the beginning of the text.
    """

    prompt: str
    ends: list[int | None]
    wanted: str
    is_cut_alike: bool


class Repeated(NamedTuple):
    """What a model wrote behind the beginning of one text.

    Attributes:
        prompt: What it was shown.
        wanted: How the text goes on.
        written: How the model goes on.
        tokens: Of `wanted`.
        matched_tokens: Of these, how many at its beginning the model wrote.
        is_exact: Whether it wrote them all.
    """

    prompt: str
    wanted: str
    written: str
    tokens: int
    matched_tokens: int
    is_exact: bool


class Verbatim(NamedTuple):
    """How much of some texts a model repeats.

    Attributes:
        documents: Texts that were tried.
        too_short: Texts with fewer tokens than are needed, which were not.
        exact: How many the model went on with exactly.
        share: Of the documents.
        interval: Of the share, 95 %, Wilson's.
        mean_matched_tokens: Mean length of what it repeated, from the prompt on.
        cut_otherwise: Prompts whose tokens, alone, are not those at the beginning of the text.
        repeated: Each document.
    """

    documents: int
    too_short: int
    exact: int
    share: float
    interval: tuple[float, float]
    mean_matched_tokens: float
    cut_otherwise: int
    repeated: list[Repeated]


def verbatim(
    model: Any,
    texts: Sequence[str],
    *,
    prefix_tokens: int = 50,
    continuation_tokens: int = 50,
    batch_size: int = 16,
) -> Verbatim:
    """Shows a model how texts begin and compares what it writes, greedily, with the texts.

    Texts are compared as the tokenizer gives them back. A continuation may leave out the space that
    it begins with.
    A cut inside a character moves on to its end, by up to three tokens.

    Args:
        model: A `CausalLM`, or a client of one. A `Seq2SeqLM` reads the beginning as its source.
        texts: Documents.
        prefix_tokens: Shown to the model, of each.
        continuation_tokens: That it may repeat.
        batch_size: Prompts per call.

    Raises:
        UserError: a number is below 1, no text is long enough, or the model refuses a prompt or has
            no room behind it.

    Source:
        Carlini et al. 2023, https://arxiv.org/abs/2202.07646, definition 3.1 (extractable with k
        tokens of context; they take 50 and 50); Wilson 1927 on the interval.
    """
    numbers = {
        "prefix_tokens": prefix_tokens,
        "continuation_tokens": continuation_tokens,
        "batch_size": batch_size,
    }
    for name, value in numbers.items():
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}.")
    parts = [beginning(model, text, prefix_tokens, continuation_tokens) for text in texts]
    long = [part for part in parts if part is not None]
    if not long:
        raise UserError(
            f"None of {len(texts)} documents has {prefix_tokens + continuation_tokens} tokens: "
            "take smaller prefix_tokens and continuation_tokens, or longer documents."
        )
    found = list(_repeated(model, long, batch_size))
    exact = sum(each.is_exact for each in found)
    return Verbatim(
        len(long),
        len(texts) - len(long),
        exact,
        exact / len(long),
        wilson(exact, len(long)),
        sum(each.matched_tokens for each in found) / len(long),
        sum(not part.is_cut_alike for part in long),
        found,
    )


def beginning(
    model: Any, text: str, prefix_tokens: int, continuation_tokens: int
) -> Beginning | None:
    """The parts of a text; None if it has too few tokens."""
    (ids,) = model.tokenize([text])
    if len(ids) < prefix_tokens + continuation_tokens:
        return None
    last = min(len(ids), prefix_tokens + continuation_tokens + 2 * _BYTES)
    cuts = range(prefix_tokens, last + 1)
    texts = dict(zip(cuts, model.detokenize([ids[:cut] for cut in cuts]), strict=True))
    # Tokens may be bytes; a cut inside a character decodes to something else.
    whole = texts[last]
    clean = [cut for cut in cuts if whole.startswith(texts[cut])]
    begin = clean[0]
    end = next((cut for cut in clean if cut >= begin + continuation_tokens), None)
    if end is None:
        return None
    prompt = texts[begin]
    (alone,) = model.tokenize([prompt])
    return Beginning(
        prompt,
        [
            len(texts[cut]) - len(prompt) if cut in clean else None
            for cut in range(begin + 1, end + 1)
        ],
        texts[end][len(prompt) :],
        alone == ids[:begin],
    )


def wilson(count: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share, which also says something of 0 and of 1."""
    share, z2 = count / total, _Z**2
    middle = share + z2 / (2 * total)
    half = _Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    scale = 1 + z2 / total
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def draw(texts: Iterable[str], limit: int | None, seed: int = 0) -> list[str]:
    """Some of the texts, each as likely as another, in their order; the rest is not kept.

    Args:
        texts: However many.
        limit: How many; None = all.
        seed: Of the draw.

    Raises:
        UserError: `limit` is below 1.

    Source:
        Vitter 1985, "Random sampling with a reservoir", algorithm R.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit must be at least 1, got {limit}.")
    numbered = enumerate(texts)
    kept = list(itertools.islice(numbered, limit))
    numbers = random.Random(seed)
    for i, text in numbered:
        place = numbers.randrange(i + 1)
        if place < len(kept):
            kept[place] = (i, text)
    return [text for _, text in sorted(kept)]


def _repeated(model: Any, parts: Sequence[Beginning], batch_size: int) -> Iterator[Repeated]:
    for at in tqdm(range(0, len(parts), batch_size), desc="repeating", disable=None):
        batch = parts[at : at + batch_size]
        answers = model.generate(
            [part.prompt for part in batch],
            max_new_tokens=[len(part.ends) for part in batch],
            stop=(),
            **_GREEDY,
        )
        for part, answer in zip(batch, answers, strict=True):
            _require_room(part, answer)
            yield compare(part, answer.text)


def compare(part: Beginning, written: str) -> Repeated:
    """What a model wrote, beside the text."""
    # An encoder–decoder writes no space where its target begins.
    head = " " if part.wanted.startswith(" ") and len(part.wanted) > 1 else ""
    common = os.path.commonprefix([part.wanted[len(head) :], written.removeprefix(head)])
    same = len(head) + len(common) if common else 0
    reached = (k for k, end in enumerate(part.ends, start=1) if end is not None and end <= same)
    return Repeated(
        part.prompt,
        part.wanted,
        written,
        len(part.ends),
        max(reached, default=0),
        same == len(part.wanted),
    )


def _require_room(part: Beginning, answer: Any) -> None:
    reason = answer.finish_reason
    if reason.startswith(contract.ERROR_PREFIX):
        raise UserError(
            f"The model refused the beginning of a text: "
            f"{reason.removeprefix(contract.ERROR_PREFIX)}. Take smaller prefix_tokens."
        )
    if reason == contract.LENGTH and answer.num_tokens < len(part.ends):
        raise UserError(
            f"The model's context ended after {answer.num_tokens} of {len(part.ends)} tokens: take "
            "smaller prefix_tokens or continuation_tokens."
        )
