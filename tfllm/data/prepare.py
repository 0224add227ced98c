"""`tfllm prepare`: text in, a folder with a tokenizer and packed rows out."""

from __future__ import annotations

import collections
import fnmatch
import functools
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from tfllm import tokenizers
from tfllm.data.corpus import Document, read_corpus, unique
from tfllm.data.documents import as_list
from tfllm.data.packing import Packer
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
}

_BATCH_BYTES = 1 << 20
_OUR_FILES = (META_FILE, VALIDATION_FILE, TOKENIZER_FOLDER, "*.tfrecord", "*.index")

_Read = Callable[[Skips, str], Iterator[Document]]


def prepare(  # noqa: PLR0913 - one keyword per option of the command
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    tokenizer: Tokenizer | str | os.PathLike[str] | None = None,
    vocabulary_size: int = 8000,
    model_type: Literal["unigram", "bpe"] = "unigram",
    sequence_length: int = 256,
    validation_fraction: float = 0.05,
    document_bytes: int = 4096,
    text_field: str = "text",
    embedded: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Reads documents, trains a tokenizer on them, and writes them packed into rows.

    The folder gets `tokenizer/`, the shards and index of each split (see `shards.py`),
    `validation.jsonl` (the held-out texts, {"text": …} per line) and `meta.json`. It appears when
    it is complete.

    A document that occurred before, to the byte, is dropped. Memory is bounded but for about 100
    bytes per document (the hashes that tell duplicates) and 8 bytes per row (the index).

    Args:
        sources: Paths, folders and globs; see `read_documents` for what is a document.
        out: The folder to write.
        tokenizer: "sentencepiece" (which None means), "wordpiece" or "byte_bpe" to train one on
            the training split; or a tokenizer, or the path of one.
        vocabulary_size: Of the tokenizer to train.
        model_type: Of the SentencePiece to train: `unigram` or `bpe`.
        sequence_length: Inputs, and targets, of a row; at least 8.
        validation_fraction: Share of the documents to hold out, in [0, 1).
        document_bytes: The size from which a blank line ends a document, in UTF-8 bytes.
        text_field: The field of a JSONL line that holds the text.
        embedded: Whether to read the corpus that comes with Python as well.
        overwrite: Whether to replace `out` if it has prepared data.

    Returns:
        What meta.json says.

    Raises:
        UserError: if an option is out of range, a source cannot be read, nothing is left to train
            on, or `out` must not be replaced.
    """
    if sequence_length < 8:
        raise UserError(f"sequence_length must be at least 8, got {sequence_length}.")
    if document_bytes < 1:
        raise UserError(f"document_bytes must be at least 1, got {document_bytes}.")
    if not 0 <= validation_fraction < 1:
        raise UserError(f"validation_fraction must be in [0, 1), got {validation_fraction}.")
    sources = as_list(sources)
    if not sources and not embedded:
        raise UserError("Nothing to read: name files, folders or patterns, or pass embedded=True.")
    read = functools.partial(
        read_corpus,
        sources,
        text_field=text_field,
        document_bytes=document_bytes,
        embedded=embedded,
    )
    with new_folder(out, overwrite=overwrite, ours=_is_ours) as folder:
        made = _make_tokenizer(tokenizer, read, validation_fraction, vocabulary_size, model_type)
        made.save(folder / TOKENIZER_FOLDER)
        trained = tokenizer is None or tokenizer in _TRAINERS
        skips = Skips(log=not trained)  # else the first pass did
        documents = unique(read(skips, "tokenizing"), skips)
        splits = _write_splits(folder, documents, made, sequence_length, validation_fraction)
        if not splits["train"]["rows"]:
            raise _nothing_to_train_on(read)
        # JSON is UTF-8; the name of a file may be any bytes.
        names = [
            os.fsencode(Path(source).absolute().name).decode("utf-8", "replace")
            for source in sources
        ]
        meta = {
            "format_version": FORMAT_VERSION,
            "sources": ["pydoc_data.topics"] * embedded + names,
            "tokenizer": type(made).__name__,
            "vocabulary_size": made.vocabulary_size(),
            "sequence_length": sequence_length,
            "document_bytes": document_bytes,
            "validation_fraction": validation_fraction,
            "skipped": dict(skips.counts),
            "splits": splits,
        }
        text = json.dumps(meta, indent=1, ensure_ascii=False)
        (folder / META_FILE).write_text(text + "\n", encoding="utf-8")
    return meta


def _is_ours(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _OUR_FILES)


def _make_tokenizer(
    tokenizer: Tokenizer | str | os.PathLike[str] | None,
    read: _Read,
    validation_fraction: float,
    vocabulary_size: int,
    model_type: Literal["unigram", "bpe"],
) -> Tokenizer:
    """The tokenizer given, or loaded, or trained in a first pass over the documents."""
    if isinstance(tokenizer, Tokenizer):
        return tokenizer
    tokenizer = SENTENCEPIECE if tokenizer is None else tokenizer
    if tokenizer not in _TRAINERS:
        return tokenizers.load_tokenizer(tokenizer)
    options = {"model_type": model_type} if tokenizer == SENTENCEPIECE else {}
    texts = _training_texts(read, validation_fraction)
    return _TRAINERS[tokenizer](texts, vocabulary_size=vocabulary_size, **options)


def _training_texts(read: _Read, validation_fraction: float) -> Iterator[str]:
    skips = Skips()
    documents = unique(read(skips, "reading for the tokenizer"), skips)
    texts = (d.text for d in documents if not d.is_validation(validation_fraction))
    first = next(texts, None)
    if first is None:
        raise _nothing_to_train_on(read)
    return itertools.chain([first], texts)


def _nothing_to_train_on(read: _Read) -> UserError:
    """Reads once more, to say why."""
    skips = Skips(log=False)
    if num_documents := sum(1 for _ in read(skips, "looking for text")):
        return UserError(
            f"Nothing to train on: all {num_documents} documents fell to validation. Add text, or "
            "pass validation_fraction=0."
        )
    return UserError(f"No text in the sources. Left out: {skips or 'nothing, they are empty'}.")


class _SplitWriter:
    """Packs and writes the documents of one split, and counts them."""

    def __init__(self, folder: Path, split: str, sequence_length: int, pad_id: int):
        self._packer = Packer(sequence_length, pad_id)
        self._shards = ShardWriter(folder, split)
        self._sequence_length = sequence_length
        self._counts = collections.Counter(documents=0, bytes=0, tokens=0, targets=0)

    def add(self, document: Document, token_ids: list[int]) -> None:
        """Adds a document; its ids begin with bos and end with eos."""
        self._counts["documents"] += 1
        self._counts["bytes"] += document.num_bytes
        self._counts["tokens"] += len(token_ids) - 2
        self._counts["targets"] += len(token_ids) - 1
        for row in self._packer.add(token_ids):
            self._shards.write(row)

    def close(self) -> dict[str, Any]:
        """Writes what is left and returns the split's part of meta.json."""
        for row in self._packer.flush():
            self._shards.write(row)
        self._shards.close()
        rows = self._shards.num_rows
        efficiency = self._counts["targets"] / max(1, rows * self._sequence_length)
        return {
            **self._counts,
            "rows": rows,
            "packing_efficiency": round(efficiency, 4),
            "shards": self._shards.shards,
        }


def _write_splits(
    folder: Path,
    documents: Iterator[Document],
    tokenizer: Tokenizer,
    sequence_length: int,
    validation_fraction: float,
) -> dict[str, dict[str, Any]]:
    """Tokenizes and writes all documents; returns the `splits` of meta.json."""
    bos, eos = _ends(tokenizer)
    writers = {
        split: _SplitWriter(folder, split, sequence_length, tokenizer.padding_id)
        for split in SPLITS
    }
    with open(folder / VALIDATION_FILE, "w", encoding="utf-8") as held_out:
        for batch in _batches(documents):
            encoded = tokenizer.encode_batch([document.text for document in batch])
            for document, ids in zip(batch, encoded, strict=True):
                split = "validation" if document.is_validation(validation_fraction) else "train"
                writers[split].add(document, [bos, *ids, eos])
                if split == "validation":
                    held_out.write(json.dumps({"text": document.text}, ensure_ascii=False) + "\n")
    return {split: writer.close() for split, writer in writers.items()}


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Lists of documents of about `_BATCH_BYTES` together."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += document.num_bytes
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _ends(tokenizer: Tokenizer) -> tuple[int, int]:
    """The ids that begin and end a document."""
    for name in ("bos_id", "eos_id"):
        if getattr(tokenizer, name) < 0:
            raise UserError(f"The tokenizer has no {name}: documents need a token for their ends.")
    return tokenizer.bos_id, tokenizer.eos_id
