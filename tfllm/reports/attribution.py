"""The attribution report: what each token of a text adds to a classifier's answer."""

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.evaluators.report import aligned
from tfllm.models import TextClassifier
from tfllm.reports.report import Report, number

HTML_FILE = "attribution.html"
_CONTINUES = "##"

_LIMITS = (
    "Why the model decided: gradient × input is the slope where the text stands, times the "
    "embedding. What a token would do if it were left out or replaced can differ, in sign too.",
    "Shares of the logit: only where the model is linear in its embeddings do they sum to the "
    "logit less its bias; sum and logit are given for every text.",
    "What positions, segments and the order of the words add: only the tokens' own embeddings are "
    "counted.",
    "How the model treats other texts: these are the numbers of single texts.",
)


class Attribution(NamedTuple):
    """What the tokens of one text add to the logit of a label.

    Attributes:
        text: The text.
        text_pair: The second one, "" where there is none.
        label: Whose logit it is.
        logit: Of that label.
        tokens: As the model reads them, special ones too.
        contributions: Of each: the gradient of the logit by its embedding, times the embedding.
        words: The tokens put together.
        word_contributions: Their sums.
    """

    text: str
    text_pair: str
    label: str
    logit: float
    tokens: list[str]
    contributions: list[float]
    words: list[str]
    word_contributions: list[float]


def attribute(
    model: TextClassifier, text: str, text_pair: str = "", label: str | None = None
) -> Attribution:
    """Gradient × input of the token embeddings.

    Args:
        model: Live.
        text: What it classifies.
        text_pair: With this, if anything.
        label: One of the model's labels; None means the one with the largest logit.

    Raises:
        UserError: the model is no live classifier, has no such label or refuses the text; or its
            vocabulary has fewer entries than the text has tokens.

    Source:
        Shrikumar et al. 2016, https://arxiv.org/abs/1605.01713; Simonyan et al. 2013,
        https://arxiv.org/abs/1312.6034, for the gradient; Ancona et al. 2018,
        https://arxiv.org/abs/1711.06104, for what it is and is not.
    """
    if not isinstance(model, TextClassifier):
        raise UserError(
            f"Attributions need a preset of a TextClassifier, got a {type(model).__name__}."
        )
    if label is not None and label not in model.labels:
        raise UserError(f"label must be one of {', '.join(model.labels)}, got {label!r}.")
    padded, error = model.text().read(tf.constant([text]), tf.constant([text_pair]))
    if error[0] != "":
        raise UserError(f"The model refused {text[:40]!r}: {error[0].numpy().decode()}.")
    size = int(tf.reduce_sum(padded["padding_mask"]))
    inputs = {name: tensor[:, :size] for name, tensor in padded.items()}
    chosen = None if label is None else model.labels.index(label)
    chosen, logit, contributions = gradient_times_input(model, inputs, chosen)
    tokenizer = model.preprocessor.tokenizer
    tokens = [tokenizer.id_to_token(int(i)) for i in inputs["token_ids"][0]]
    words, sums = whole_words(tokens, contributions)
    return Attribution(
        text, text_pair, model.labels[chosen], logit, tokens, contributions, words, sums
    )


def gradient_times_input(
    model: Any, inputs: dict[str, tf.Tensor], chosen: int | None = None
) -> tuple[int, float, list[float]]:
    """What each token's embedding adds to a logit.

    It works on any model that looks its tokens up in `backbone.token_embedding`.

    Args:
        model: From inputs to logits float[1, c].
        inputs: The model's inputs, one row, `token_ids` int32[1, t] among them; t must not be
            above the size of the vocabulary.
        chosen: Which logit; None means the largest.

    Returns:
        Which logit; the logit; t numbers.
    """
    table = model.backbone.token_embedding.embeddings
    token_ids = inputs["token_ids"][0]
    size, vocabulary_size = int(token_ids.shape[0]), table.shape[0]
    if size > vocabulary_size:
        raise UserError(
            f"The text has {size} tokens, more than the {vocabulary_size} of the vocabulary."
        )
    # The gradient by a table sums over the places of a token. So each place gets a row of its own,
    # in a table that stands for the model's while this runs.
    rows = tf.gather(tf.convert_to_tensor(table), token_ids)  # [t, m]
    with tf.GradientTape() as tape:
        tape.watch(rows)
        unused = tf.zeros([vocabulary_size - size, rows.shape[1]], rows.dtype)
        with keras.StatelessScope(state_mapping=[(table, tf.concat([rows, unused], 0))]):
            logits = model({**inputs, "token_ids": tf.range(size)[None]}, training=False)[0]
        if chosen is None:
            chosen = int(tf.argmax(logits))
        logit = logits[chosen]
    gradient = tape.gradient(logit, rows)
    return chosen, float(logit), tf.reduce_sum(gradient * rows, -1).numpy().tolist()


def whole_words(
    tokens: Sequence[str], contributions: Sequence[float]
) -> tuple[list[str], list[float]]:
    """Pieces of WordPiece put together, and what they add summed."""
    words: list[str] = []
    sums: list[float] = []
    for token, value in zip(tokens, contributions, strict=True):
        if words and token.startswith(_CONTINUES):
            words[-1] += token.removeprefix(_CONTINUES)
            sums[-1] += value
        else:
            words.append(token)
            sums.append(value)
    return words, sums


def attribution(
    model: TextClassifier,
    texts: Sequence[str],
    text_pairs: Sequence[str] = (),
    *,
    label: str | None = None,
) -> Report:
    """What the words of some texts add to a classifier's answers.

    Args:
        model: Live.
        texts: What it classifies.
        text_pairs: As many second texts; or none.
        label: One of the model's labels; None means each text's own best.

    Returns:
        `Report`, with a page of HTML that shows the words in colour.

    Raises:
        UserError: there is no text, or not as many second ones; or as `attribute`.
    """
    if not texts or (text_pairs and len(text_pairs) != len(texts)):
        raise UserError(
            f"Expected texts, and as many second texts or none: got {len(texts)} and "
            f"{len(text_pairs)}."
        )
    pairs = text_pairs or [""] * len(texts)
    found = [attribute(model, text, pair, label) for text, pair in zip(texts, pairs, strict=True)]
    return Report(
        "attribution",
        {"texts": [_numbers(each) for each in found]},
        _LIMITS,
        "\n".join(map(_table, found)),
        files={HTML_FILE: page(found)},
    )


def _numbers(found: Attribution) -> dict[str, Any]:
    return {**found._asdict(), "sum": sum(found.contributions)}


def _table(found: Attribution) -> str:
    rows = [
        (word, number(value))
        for word, value in zip(found.words, found.word_contributions, strict=True)
    ]
    total = ("sum, of a logit of " + number(found.logit), number(sum(found.contributions)))
    return aligned([("word", f"adds to {found.label}"), *rows, total])


def page(found: Sequence[Attribution]) -> str:
    """A page of HTML: words that add to the label in blue, those that take from it in red."""
    body = "".join(
        f"<p><b>{html.escape(each.label)}</b> (logit {number(each.logit)})<br>{_coloured(each)}</p>"
        for each in found
    )
    limits = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in _LIMITS)
    return (
        '<!doctype html><meta charset="utf-8"><title>Attributions</title>\n'
        f"{body}\n<p>This does not show:</p><ul>{limits}</ul>\n"
    )


def _coloured(found: Attribution) -> str:
    most = max(map(abs, found.word_contributions)) or 1.0
    return " ".join(
        f'<span title="{number(value)}" style="background:rgba('
        f'{"60,110,255" if value > 0 else "255,80,60"},{abs(value) / most:.2f})">'
        f"{html.escape(word)}</span>"
        for word, value in zip(found.words, found.word_contributions, strict=True)
    )
