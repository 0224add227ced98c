"""A corpus of texts as prepared words, for vectors of words."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from tfllm.data.cleaning import read_lemmas, read_stop_words
from tfllm.data.corpus import read_texts, unique
from tfllm.data.documents import as_list
from tfllm.data.prepare import prepare
from tfllm.data.sources import Skips
from tfllm.tokenizers.word_counting import train_words


def prepare_words(  # noqa: PLR0913 - one keyword per option of the command
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    vocabulary_size: int | None = None,
    min_count: int = 5,
    lowercase: bool = True,
    digits: str = "keep",
    stop_words: str | os.PathLike[str] | None = None,
    lemmas: str | os.PathLike[str] | None = None,
    validation_fraction: float = 0.0,
    **options: Any,
) -> dict[str, Any]:
    """Counts the words of a corpus, and prepares it for the task skip_gram.

    Args:
        sources: As of `prepare`.
        out: The folder to write.
        vocabulary_size: The most words to keep; None = no limit.
        min_count: The least number of times that a kept word occurs.
        lowercase: Whether to fold case.
        digits: "keep"; "zero", each becomes 0; or "drop".
        stop_words: "english" or a file, see `read_stop_words`; None = none.
        lemmas: A file, see `read_lemmas`; None = each word is its own.
        validation_fraction: Share of the documents to hold out, whose words are counted all the
            same.
        **options: Of `prepare`: `sequence_length`, `embedded`, `overwrite`, …

    Returns:
        What meta.json says.

    Raises:
        UserError: as `prepare`, `train_words`, `read_stop_words` and `read_lemmas`.
    """
    sources = as_list(sources)
    reading = {
        name: options[name]
        for name in ("text_field", "document_bytes", "embedded")
        if name in options
    }
    skips = Skips()
    items = unique(
        read_texts(sources, skips, "counting words", **reading), skips, "duplicate_documents"
    )
    tokenizer = train_words(
        (item.values["text"] for item in items),
        vocabulary_size=vocabulary_size,
        min_count=min_count,
        lowercase=lowercase,
        digits=digits,
        stop_words=read_stop_words(stop_words) if stop_words else (),
        lemmas=read_lemmas(lemmas) if lemmas else None,
    )
    return prepare(
        sources,
        out,
        task="skip_gram",
        tokenizer=tokenizer,
        validation_fraction=validation_fraction,
        **options,
    )
