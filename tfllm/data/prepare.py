"""`tfllm prepare`: text or tables in, a folder with a tokenizer and rows out."""

from __future__ import annotations

import collections
import fnmatch
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tfllm import tokenizers
from tfllm.chat import chatml
from tfllm.data.corpus import Item, read_table, read_texts, unique
from tfllm.data.documents import as_list
from tfllm.data.layouts import LAYOUTS, Layout
from tfllm.data.records import FORMAT_VERSION, SPLITS, TOKENIZER_FOLDER
from tfllm.data.shards import ShardWriter
from tfllm.data.sources import META_FILE, VALIDATION_FILE, Skips
from tfllm.data.staging import new_folder
from tfllm.errors import UserError
from tfllm.tokenizers import Tokenizer

SENTENCEPIECE = "sentencepiece"
# What can be trained here, by the name that asks for it.
_TRAINERS: dict[str, Callable[..., Tokenizer]] = {
    SENTENCEPIECE: tokenizers.train_sentencepiece,
    "wordpiece": tokenizers.train_wordpiece,
    "byte_bpe": tokenizers.train_byte_pair,
    "words": tokenizers.train_words,
}
_DEFAULTS = {"masked_lm": "wordpiece", "skip_gram": "words"}

_BATCH_BYTES = 1 << 20
_SENTINELS = 100  # as T5 has; enough for windows of 2,000 tokens
_OUR_FILES = (META_FILE, VALIDATION_FILE, TOKENIZER_FOLDER, "*.tfrecord", "*.index")


def prepare(  # noqa: PLR0913 - one keyword per option of the command
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    task: str = "causal_lm",
    tokenizer: Tokenizer | str | os.PathLike[str] | None = None,
    vocabulary_size: int = 8000,
    model_type: Literal["unigram", "bpe"] = "unigram",
    sequence_length: int = 256,
    validation_fraction: float = 0.05,
    validation: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
    columns: Mapping[str, str] | None = None,
    header: bool | None = None,
    document_bytes: int = 4096,
    text_field: str = "text",
    embedded: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Reads texts or tables and writes them as the rows that a task is trained on.

    The folder gets `tokenizer/`, the shards and index of each split (see `shards.py`),
    `validation.jsonl` (what is held out, one object of its fields per line) and `meta.json`. It
    appears when it is complete.

    What occurred before, to the byte, is dropped, and so is from the training split what
    `validation` holds out: of a table each row whose first field (the context of a question) is
    there. Memory is bounded but for about 100 bytes per document or row of a table (the hashes that
    tell duplicates) and 8 bytes per stored row.

    Args:
        sources: Paths, folders and globs. For causal_lm, masked_lm and denoising texts, see
            `read_documents` for what is a document; for the other tasks tables, see `read_rows`.
        out: The folder to write.
        task: What is trained on the data; a name in `LAYOUTS`, which says what is stored.
        tokenizer: "sentencepiece", "wordpiece", "byte_bpe" or "words" to train one on the training
            split; or a tokenizer, or the path of one (a preset has one). None means
            "sentencepiece", "wordpiece" for masked_lm, "words" for skip_gram, and none at all for
            a task that stores texts: the model to start from brings its own.
        vocabulary_size: Of the tokenizer to train.
        model_type: Of the SentencePiece to train: `unigram` or `bpe`.
        sequence_length: Tokens of a row; at least 8.
        validation_fraction: Share of the items to hold out, in [0, 1).
        validation: Sources of what is held out, instead of a share of `sources`.
        columns: Of tables, column by field; see `read_rows`.
        header: Of tables, see `read_rows`.
        document_bytes: The size from which a blank line ends a document, in UTF-8 bytes.
        text_field: The field of a JSONL line that holds the text of a document.
        embedded: Whether to read the corpus that comes with Python as well.
        overwrite: Whether to replace `out` if it has prepared data.

    Returns:
        What meta.json says.

    Raises:
        UserError: if an option is out of range, a source cannot be read, a row of a table does
            not fit, nothing is left to train on, or `out` must not be replaced.
    """
    if task not in LAYOUTS:
        raise UserError(f"task must be one of {', '.join(LAYOUTS)}; got {task!r}.")
    if sequence_length < 8:
        raise UserError(f"sequence_length must be at least 8, got {sequence_length}.")
    if document_bytes < 1:
        raise UserError(f"document_bytes must be at least 1, got {document_bytes}.")
    if not 0 <= validation_fraction < 1:
        raise UserError(f"validation_fraction must be in [0, 1), got {validation_fraction}.")
    layout, sources, held_out = LAYOUTS[task], as_list(sources), as_list(validation)
    if not sources and not embedded:
        raise UserError("Nothing to read: name files, folders or patterns, or pass embedded=True.")
    if layout.fields and embedded:
        raise UserError(f"The corpus that comes with Python is text, {task} needs tables.")
    if not layout.fields and (columns or header is not None):
        raise UserError(
            f"Columns and headers are of tables, and {task} reads texts; the field of a JSONL line "
            "is named by text_field (--text-field)."
        )
    reading = (
        _Reading(layout, {"columns": columns, "header": header})
        if layout.fields
        else _Reading(
            layout,
            {"text_field": text_field, "document_bytes": document_bytes, "embedded": embedded},
        )
    )
    split = _Splitting(reading, sources, held_out, validation_fraction)
    with new_folder(out, overwrite=overwrite, ours=_is_ours) as folder:
        made = _make_tokenizer(tokenizer, task, split, vocabulary_size, model_type)
        if made is not None:
            made.save(folder / TOKENIZER_FOLDER)
        skips = Skips(log=made is None or tokenizer not in (None, *_TRAINERS))
        writers = {
            name: _SplitWriter(folder, name, layout(made, sequence_length)) for name in SPLITS
        }
        _write_splits(folder, split.read(skips, "writing"), writers)
        splits = {name: writer.close() for name, writer in writers.items()}
        if not splits["train"]["rows"]:
            raise _nothing_to_train_on(split)
        meta = {
            "format_version": FORMAT_VERSION,
            "task": task,
            "columns": writers["train"].layout.columns(),
            "sources": ["pydoc_data.topics"] * embedded + [_name(s) for s in sources + held_out],
            "tokenizer": None if made is None else type(made).__name__,
            "vocabulary_size": None if made is None else made.vocabulary_size(),
            "sequence_length": sequence_length,
            "document_bytes": document_bytes,
            "validation_fraction": 0.0 if held_out else validation_fraction,
            "skipped": dict(skips.counts),
            "splits": splits,
        }
        text = json.dumps(meta, indent=1, ensure_ascii=False)
        (folder / META_FILE).write_text(text + "\n", encoding="utf-8")
    return json.loads(text)


def _is_ours(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _OUR_FILES)


def _name(source: str | os.PathLike[str]) -> str:
    # JSON is UTF-8; the name of a file may be any bytes.
    return os.fsencode(Path(source).absolute().name).decode("utf-8", "replace")


class _Reading(NamedTuple):
    """How the sources of a layout are read."""

    layout: type[Layout]
    options: dict[str, Any]

    def items(self, sources: list, skips: Skips, description: str) -> Iterator[Item]:
        """The items of the sources."""
        if not self.layout.fields:
            return read_texts(sources, skips, description, **self.options)
        return read_table(
            sources, description, self.layout.fields, self.layout.split_by, **self.options
        )


class _Splitting(NamedTuple):
    """Which item is of which split."""

    reading: _Reading
    sources: list
    held_out: list
    fraction: float

    def read(self, skips: Skips, description: str) -> Iterator[tuple[str, Item]]:
        """Each item once, with its split; what is held out by name comes first."""
        of = "rows" if self.reading.layout.fields else "documents"
        held_out = set()
        if self.held_out:
            options = {**self.reading.options}
            if not self.reading.layout.fields:
                options["embedded"] = False
            items = self.reading._replace(options=options).items(self.held_out, skips, description)
            for item in unique(items, skips, f"duplicate_{of}"):
                held_out.add(item.split_digest)
                yield "validation", item
        items = self.reading.items(self.sources, skips, description)
        for item in unique(items, skips, f"duplicate_{of}"):
            if item.split_digest in held_out:
                skips.counts[f"held_out_{of}"] += 1
            else:
                apart = not self.held_out and item.is_validation(self.fraction)
                yield SPLITS[apart], item

    def training_items(self, skips: Skips, description: str) -> Iterator[Item]:
        """The items of the training split alone."""
        return (item for split, item in self.read(skips, description) if split == "train")


def _make_tokenizer(
    tokenizer: Tokenizer | str | os.PathLike[str] | None,
    task: str,
    split: _Splitting,
    vocabulary_size: int,
    model_type: Literal["unigram", "bpe"],
) -> Tokenizer | None:
    """The tokenizer given, or loaded, or trained in a first pass over the items."""
    if tokenizer is None:
        if LAYOUTS[task].stores_texts:
            return None
        tokenizer = _DEFAULTS.get(task, SENTENCEPIECE)
    if isinstance(tokenizer, Tokenizer) or tokenizer not in _TRAINERS:
        made = (
            tokenizer if isinstance(tokenizer, Tokenizer) else tokenizers.load_tokenizer(tokenizer)
        )
        if task == "chat" and made.chat_template is None:
            # Its marks are plain text here: the model has no embeddings for new tokens.
            made.chat_template = chatml()
        return made
    options = {"model_type": model_type} if tokenizer == SENTENCEPIECE else {}
    made = _TRAINERS[tokenizer](_training_texts(split), vocabulary_size=vocabulary_size, **options)
    if task == "denoising":  # it needs a token for each span that it takes out of a window
        return tokenizers.with_sentinels(made, _SENTINELS)
    if task == "chat":
        made = made.with_added_tokens(chatml().special_tokens)
        made.chat_template = chatml()
    return made


def _training_texts(split: _Splitting) -> Iterator[str]:
    texts = (
        text
        for item in split.training_items(Skips(), "reading for the tokenizer")
        for text in split.reading.layout.texts(item.values)
    )
    first = next(texts, None)
    if first is None:
        raise _nothing_to_train_on(split)
    return itertools.chain([first], texts)


def _nothing_to_train_on(split: _Splitting) -> UserError:
    """Reads once more, to say why."""
    skips = Skips(log=False)
    found = collections.Counter(name for name, _ in split.read(skips, "looking for text"))
    if found["train"]:
        return UserError(
            f"Nothing to train on: none of {found['train']} items has something to learn within "
            "the sequence_length. Prepare with a longer one, or other data."
        )
    if split.held_out and found:
        return UserError("Nothing to train on: all that the sources have is held out.")
    if found:
        return UserError(
            f"Nothing to train on: all {found['validation']} documents fell to validation. Add "
            "text, or pass validation_fraction=0."
        )
    return UserError(f"No text in the sources. Left out: {skips or 'nothing, they are empty'}.")


class _SplitWriter:
    """Writes the rows of one split, and counts what is in them."""

    def __init__(self, folder: Path, split: str, layout: Layout):
        self.layout = layout
        self._shards = ShardWriter(folder, split)
        self._num_items = self._num_bytes = 0

    def add(self, items: list[Item]) -> None:
        """Adds items."""
        self._num_items += len(items)
        self._num_bytes += sum(item.num_bytes for item in items)
        for row in self.layout.add(items):
            self._shards.write(row)

    def close(self) -> dict[str, Any]:
        """Writes what is left and returns the split's part of meta.json."""
        for row in self.layout.flush():
            self._shards.write(row)
        self._shards.close()
        rows, counts = self._shards.num_rows, self.layout.summary()
        found = {"documents": self._num_items, "bytes": self._num_bytes, **counts, "rows": rows}
        if "stored" in counts:
            efficiency = found.pop("stored") / max(1, rows * self.layout.positions())
            found["packing_efficiency"] = round(efficiency, 4)
        return {**found, "shards": self._shards.shards}


def _write_splits(
    folder: Path, items: Iterator[tuple[str, Item]], writers: dict[str, _SplitWriter]
) -> None:
    """Writes all items, and those held out as texts too."""
    with open(folder / VALIDATION_FILE, "w", encoding="utf-8") as held_out:
        for batch in _batches(items):
            for split, writer in writers.items():
                writer.add([item for name, item in batch if name == split])
            for name, item in batch:
                if name == "validation":
                    held_out.write(json.dumps(item.values, ensure_ascii=False) + "\n")


def _batches(items: Iterator[tuple[str, Item]]) -> Iterator[list[tuple[str, Item]]]:
    """Lists of items of about `_BATCH_BYTES` together."""
    batch: list[tuple[str, Item]] = []
    size = 0
    for split, item in items:
        batch.append((split, item))
        size += item.num_bytes
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
