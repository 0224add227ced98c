"""A tokenizer whose tokens are whole words, for word vectors."""

import os
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers.string_table import StringTable
from tfllm.tokenizers.tokenizer import Tokenizer
from tfllm.tokenizers.utf8 import valid_utf8
from tfllm.tokenizers.word_normalizer import WordNormalizer

_WORDS, _FORMS = "words.tsv", "forms.tsv"


@keras.saving.register_keras_serializable("tfllm")
class WordTokenizer(Tokenizer):
    """Whole words, cleaned as `WordNormalizer` says; words that it does not know are left out.

    There are no special tokens: all their ids are -1. `decode` and `detokenize` join words by
    spaces.

    Args:
        counts: How often each word occurs, the most frequent first: its place is its id. None
            until `load_assets`.
        forms: Other spellings of words, such as inflected forms of a lemma.
        lowercase: Of `WordNormalizer`.
        digits: Of `WordNormalizer`.
        **kwargs: Of `Tokenizer`.

    Attributes:
        words: The words by id.
        counts: int64[v], how often each occurs in the corpus, all its forms together.

    Raises:
        UserError: a form is that of no word, or `digits` is none of its choices.
    """

    def __init__(
        self,
        counts: Mapping[str, int] | None = None,
        forms: Mapping[str, str] | None = None,
        lowercase: bool = True,
        digits: str = "keep",
        dtype="int32",
        **kwargs,
    ):
        super().__init__(dtype=dtype, **kwargs)
        self.file_assets = [_WORDS, _FORMS]
        self.normalizer = WordNormalizer(lowercase, digits).check()
        self._words: list[str] = []
        if counts is not None:
            self._load(counts, forms or {})

    def _load(self, counts: Mapping[str, int], forms: Mapping[str, str]) -> None:
        self._words = list(counts)
        self._counts = np.fromiter(counts.values(), np.int64, len(counts))
        self._ids = {word: i for i, word in enumerate(counts)}
        self._forms = dict(forms)
        for form, word in forms.items():
            if word not in self._ids:
                raise UserError(f"{form!r} is a form of {word!r}, which is no word of the table.")
        forms_ids = {form: self._ids[word] for form, word in forms.items()}
        self._table = StringTable(self._ids | forms_ids)

    @property
    def words(self) -> Sequence[str]:
        if not self._words:
            raise UserError("This tokenizer has no words yet: give `counts`, or call load_assets.")
        return self._words

    @property
    def counts(self) -> np.ndarray:
        return self._counts

    def tokenize_rows(self, texts: tf.Tensor) -> tf.RaggedTensor:
        words = tf.strings.split(self.normalizer.normalize(texts), " ")
        words = tf.ragged.boolean_mask(words, words != "")  # what an empty text is split into
        ids = words.with_values(self._table.find(words.values, -1))
        return tf.ragged.boolean_mask(ids, ids >= 0)

    def token_bytes(self) -> list[bytes]:
        return [f" {word}".encode() for word in self.words]

    def finish_whole_bytes(self, raw: bytes) -> str:
        return valid_utf8(raw).removeprefix(" ")

    def finish_whole_text(self, raw: tf.Tensor) -> tf.Tensor:
        return tf.strings.regex_replace(raw, "^ ", "")

    def get_vocabulary(self) -> list[str]:
        return list(self.words)

    def vocabulary_size(self) -> int:
        return len(self.words)

    def id_to_token(self, id: int) -> str:
        if not 0 <= id < self.vocabulary_size():
            raise UserError(f"A token id must be in [0, {self.vocabulary_size()}); got {id}.")
        return self.words[id]

    def token_to_id(self, token: str) -> int:
        """The id of a word as it stands in the table, -1 where it does not."""
        return self._ids.get(token, -1)

    pad_id = unk_id = bos_id = eos_id = property(lambda self: -1)  # noqa: ARG005

    def get_config(self):
        return {**super().get_config(), **self.normalizer._asdict()}

    def save_assets(self, dir_path: str) -> None:
        counts = zip(self.words, self.counts.tolist(), strict=True)
        for name, rows in ((_WORDS, counts), (_FORMS, self._forms.items())):
            with open(os.path.join(dir_path, name), "w", encoding="utf-8", newline="\n") as file:
                file.writelines(f"{left}\t{right}\n" for left, right in rows)

    def load_assets(self, dir_path: str) -> None:
        counts, forms = (_read(os.path.join(dir_path, name)) for name in self.file_assets)
        try:
            whole = {word: int(count) for word, count in counts.items()}
        except ValueError as error:
            raise UserError(f"{os.path.join(dir_path, _WORDS)} is damaged: {error}.") from error
        self._load(whole, forms)


def _read(path: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8") as file:
            rows = [line.rstrip("\n").split("\t") for line in file]
    except OSError as error:
        raise UserError(f"Cannot read the words {path} ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise UserError(f"The words {path} are not UTF-8: {error}.") from error
    for number, row in enumerate(rows, start=1):
        if len(row) != 2:
            raise UserError(f"{path} line {number} must be two columns, it is {len(row)}.")
    return {left: right for left, right in rows}
