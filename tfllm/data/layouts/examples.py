"""Examples that are stored as texts: the model's own preprocessor reads them in training."""

from __future__ import annotations

import collections

from tfllm.data import tables
from tfllm.data.layouts.layout import Columns, Layout
from tfllm.data.tables import Field
from tfllm.errors import UserError


class LabelledTexts(Layout):
    """Texts, or pairs of them, and the names of their labels."""

    fields = (Field("text"), Field("label", tables.label), Field("text_pair", optional=True))
    stores_texts = True

    def __init__(self, tokenizer, sequence_length):
        super().__init__(tokenizer, sequence_length)
        self._labels: collections.Counter[str] = collections.Counter()

    @classmethod
    def texts(cls, values):
        return [values[name] for name in ("text", "text_pair") if name in values]

    def columns(self) -> Columns:
        return {name: ("bytes", 1) for name in ("text", "text_pair", "label")}

    def add(self, items):
        for item in items:
            self._labels[item.values["label"]] += 1
            yield {name: [item.values.get(name, "").encode()] for name in self.columns()}

    def summary(self):
        # Numbers in their order, not 1, 10, 2.
        labels = sorted(self._labels, key=lambda name: (not name.isdecimal(), len(name), name))
        if not all(map(str.isdecimal, labels)):
            labels = sorted(labels)
        return {"labels": {name: self._labels[name] for name in labels}}


class SpanQAExamples(Layout):
    """Questions, contexts, and where the answer stands: 0 and 0 where there is none.

    The answers come as those of SQuAD ({"text": […], "answer_start": […]}, or a list of {"text": …,
    "answer_start": …}), of which the first is trained on, or as one `answer` with its `start` in
    code points; without a start the first place is taken where the context has it.
    """

    fields = (
        Field("question"),
        Field("context"),
        Field("answer", optional=True),
        Field("start", tables.whole, optional=True),
        Field("answers", tables.anything, optional=True),
    )
    split_by = "context"  # no paragraph is in both splits
    stores_texts = True

    @classmethod
    def texts(cls, values):
        return [values["question"], values["context"]]

    def columns(self) -> Columns:
        return {
            "question": ("bytes", 1),
            "context": ("bytes", 1),
            "begin": ("int64", 1),
            "end": ("int64", 1),
        }

    def add(self, items):
        for item in items:
            begin, end = span_of(item.values, item.place)
            self.counts["unanswerable"] += end == 0
            yield {
                "question": [item.values["question"].encode()],
                "context": [item.values["context"].encode()],
                "begin": [begin],
                "end": [end],
            }


def span_of(values: dict, place: str = "") -> tuple[int, int]:
    """Where the answer of a row of `SpanQAExamples` begins and ends (exclusive), in code points.

    Args:
        values: The row.
        place: Its file and line.

    Raises:
        UserError: the context has not the answer there.
    """
    named = f"{place}: " if place else ""
    context = values["context"]
    answer, start = values.get("answer", ""), values.get("start")
    if "answers" in values:
        answer, start = _first_of_squad(values["answers"], values["question"], named)
    if not answer:
        return 0, 0
    if start is None:
        start = context.find(answer)
    if start < 0 or context[start : start + len(answer)] != answer:
        raise UserError(
            f"{named}The answer {answer[:60]!r} to {values['question'][:60]!r} does not stand in "
            f"its context{'' if start < 0 else f' at character {start}'}."
        )
    return start, start + len(answer)


def _first_of_squad(answers, question: str, named: str) -> tuple[str, int | None]:
    try:
        if isinstance(answers, list):
            texts, starts = ([one[name] for one in answers] for name in ("text", "answer_start"))
        else:
            texts, starts = answers["text"], answers["answer_start"]
        if not texts:
            return "", None
        answer, start = tables.text(texts[0]), tables.whole(starts[0])
    except (KeyError, TypeError, ValueError, IndexError):
        raise UserError(
            f'{named}expected answers as {{"text": ["…"], "answer_start": [0]}} for '
            f"{question[:60]!r}, got {str(answers)[:60]!r}."
        ) from None
    return answer, start


class EmbedderExamples(Layout):
    """Pairs of texts: with a score how similar they are, without one texts that belong together."""

    fields = (Field("text"), Field("text_pair"), Field("score", tables.number, optional=True))
    stores_texts = True

    @classmethod
    def texts(cls, values):
        return [values["text"], values["text_pair"]]

    def columns(self) -> Columns:
        return {"text": ("bytes", 1), "text_pair": ("bytes", 1), "score": ("float32", 1)}

    def add(self, items):
        for item in items:
            self.counts["scored"] += "score" in item.values
            self.counts["pairs"] += 1
            if 0 < self.counts["scored"] < self.counts["pairs"]:
                raise UserError(
                    f"{item.place}: Either every pair has a score or none has: "
                    f"{item.values['text'][:60]!r} is the first that differs."
                )
            yield {
                "text": [item.values["text"].encode()],
                "text_pair": [item.values["text_pair"].encode()],
                "score": [item.values.get("score", 1.0)],
            }
