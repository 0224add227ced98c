"""Marian's tokenizer: one SentencePiece model for each language, and a vocabulary beside them."""

import json
import os
import re
from collections.abc import Iterable, Mapping

import keras
import numpy as np
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers.added_tokens import tokenize_around
from tfllm.tokenizers.spm import SPACE, SpmModel
from tfllm.tokenizers.string_table import StringTable
from tfllm.tokenizers.tokenizer import Tokenizer

_SOURCE, _TARGET = "source.spm", "target.spm"
_VOCABULARY, _TARGET_VOCABULARY = "vocabulary.json", "target_vocabulary.json"

# What Python's `str.strip` takes.
_WHITE_SPACE = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006"
    "\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)


_CODE = re.compile(r">>(?s:.*?)<<")  # of a language, at the beginning of a text


@keras.saving.register_keras_serializable("tfllm")
class MarianTokenizer(Tokenizer):
    """The tokenizer of a translation model of Marian.

    A text is cut into pieces by SentencePiece; the id of a piece is that of its string in a
    vocabulary of its own, and the unknown one's where it has none. `>>fra<<` at the beginning of
    a text, or after an added token, is one token, which says what to translate into.

    `tokenize` and `encode` read texts to translate, `tokenize_target` and `encode_target`
    translations; `decode`, `detokenize` and all that concerns generation (`token_bytes`,
    `vocabulary_size`) is about translations.

    The vocabularies are no part of the configuration: they are saved and loaded as assets.

    Args:
        source: The SentencePiece model of the texts to translate, serialized. None, as the next
            ones, for a tokenizer whose `load_assets` is called later.
        target: That of the translations.
        vocabulary: Id of each piece, of both languages or of the first.
        target_vocabulary: Id of each piece of a translation, where it has its own.
        unk_token: Of pieces without an id.
        eos_token: End of a text.
        pad_token: Padding, and where a decoder starts.
        dtype: Of the layer; the ids are int32.
        **kwargs: Of `Tokenizer`.

    Raises:
        UserError: if a model is none, or the vocabulary lacks `unk_token`.

    Source:
        `MarianTokenizer` of Hugging Face `transformers`.
    """

    def __init__(
        self,
        source: bytes | None = None,
        target: bytes | None = None,
        vocabulary: Mapping[str, int] | None = None,
        target_vocabulary: Mapping[str, int] | None = None,
        *,
        unk_token: str = "<unk>",
        eos_token: str = "</s>",
        pad_token: str = "<pad>",
        begins_with_bos: bool = False,
        dtype="int32",
        **kwargs,
    ):
        super().__init__(dtype=dtype, begins_with_bos=begins_with_bos, **kwargs)
        self.file_assets = [_SOURCE, _TARGET, _VOCABULARY, _TARGET_VOCABULARY]
        self.unk_token, self.eos_token, self.pad_token = unk_token, eos_token, pad_token
        self._loaded = None
        if source is not None and target is not None and vocabulary is not None:
            models = SpmModel(source, _SOURCE), SpmModel(target, _TARGET)
            self._loaded = _Pair(models, (vocabulary, target_vocabulary), unk_token)

    def get_config(self):
        return {
            **super().get_config(),
            "unk_token": self.unk_token,
            "eos_token": self.eos_token,
            "pad_token": self.pad_token,
        }

    @property
    def _pair(self) -> "_Pair":
        if self._loaded is None:
            raise UserError(
                "This tokenizer has no vocabulary yet: give `source`, `target` and `vocabulary`, "
                "or call load_assets."
            )
        return self._loaded

    def tokenize_rows(self, texts: tf.Tensor) -> tf.RaggedTensor:
        return self._pair.source.tokenize(texts)

    def encode_target(self, texts: Iterable[str | bytes]) -> list[list[int]]:
        """The token ids of translations."""
        return self._run_on(texts, self._target_ids)

    def tokenize_target(self, inputs) -> tf.RaggedTensor | tf.Tensor:
        """`tokenize` of translations."""
        return self._run_in_graph(inputs, self._target_ids)

    def _target_ids(self, texts):
        return tokenize_around(self.added_tokens, texts, self._pair.target.tokenize)

    def token_bytes(self) -> list[bytes]:
        table = list(self._pair.token_bytes)
        for token in self.added_tokens:
            if token.id < len(table):
                table[token.id] = b"" if token.hidden else token.text.encode()
        return table

    def finish_whole_bytes(self, raw: bytes) -> str:
        return self.finish_bytes(raw).strip(_WHITE_SPACE)

    def finish_whole_text(self, raw: tf.Tensor) -> tf.Tensor:
        return tf.strings.regex_replace(
            self.finish_text(raw), f"^[{_WHITE_SPACE}]+|[{_WHITE_SPACE}]+$", ""
        )

    def get_vocabulary(self) -> list[str]:
        return list(self._pair.tokens)

    def vocabulary_size(self) -> int:
        return len(self._pair.tokens)

    def source_vocabulary_size(self) -> int:
        """One more than the highest id of a text to translate."""
        return 1 + max(self._pair.vocabulary.values())

    def id_to_token(self, id: int) -> str:
        if not 0 <= id < self.vocabulary_size():
            raise UserError(f"A token id must be in [0, {self.vocabulary_size()}); got {id}.")
        return self._pair.tokens[id]

    def token_to_id(self, token: str) -> int:
        """The id of a piece, or of a special token, `unk_id` where there is none."""
        return self._pair.target_vocabulary.get(token, self.unk_id)

    @property
    def models(self) -> tuple[bytes, bytes]:
        """The serialized models of the two languages."""
        return self._pair.source.model.proto, self._pair.target.model.proto

    @property
    def vocabularies(self) -> tuple[dict[str, int], dict[str, int] | None]:
        """`vocabulary` and `target_vocabulary`."""
        pair = self._pair
        separate = pair.target_vocabulary is not pair.vocabulary
        return dict(pair.vocabulary), dict(pair.target_vocabulary) if separate else None

    @property
    def pad_id(self) -> int:
        return self._pair.vocabulary.get(self.pad_token, -1)

    @property
    def unk_id(self) -> int:
        return self._pair.vocabulary[self.unk_token]

    @property
    def bos_id(self) -> int:
        """-1: Marian has none."""
        return -1

    @property
    def eos_id(self) -> int:
        return self._pair.vocabulary.get(self.eos_token, -1)

    def save_assets(self, dir_path: str) -> None:
        for name, proto in zip((_SOURCE, _TARGET), self.models, strict=True):
            with open(os.path.join(dir_path, name), "wb") as file:
                file.write(proto)
        for name, ids in zip((_VOCABULARY, _TARGET_VOCABULARY), self.vocabularies, strict=True):
            with open(os.path.join(dir_path, name), "w", encoding="utf-8") as file:
                json.dump(ids, file, ensure_ascii=False)

    def load_assets(self, dir_path: str) -> None:
        models = [SpmModel.read(os.path.join(dir_path, name)) for name in (_SOURCE, _TARGET)]
        vocabularies = [_read(os.path.join(dir_path, n)) for n in (_VOCABULARY, _TARGET_VOCABULARY)]
        self._loaded = _Pair(models, vocabularies, self.unk_token)


def _read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError as error:
        raise UserError(f"Cannot read the vocabulary {path} ({error.strerror}).") from error
    except ValueError as error:
        raise UserError(f"{path} is not a vocabulary in JSON ({error}).") from error


class _Pair:
    """What the tokenizer knows. A plain object, because Keras copies lists that layers hold."""

    def __init__(self, models, vocabularies, unk_token):
        (source, target), (vocabulary, target_vocabulary) = models, vocabularies
        for ids in filter(None, (vocabulary, target_vocabulary)):
            if unk_token not in ids:
                raise UserError(f"The vocabulary must hold {unk_token}, for pieces without an id.")
        self.vocabulary = vocabulary
        self.target_vocabulary = vocabulary if target_vocabulary is None else target_vocabulary
        self.source = _Side(source, self.vocabulary, self.vocabulary[unk_token])
        self.target = _Side(target, self.target_vocabulary, self.target_vocabulary[unk_token])
        # A vocabulary of both languages is decoded by the source's model, as `transformers` does.
        decodes = source if target_vocabulary is None else target
        strings = {id: token for token, id in self.target_vocabulary.items()}
        self.tokens = [strings.get(id, "") for id in range(max(strings) + 1)]
        # And so it does with ids that the vocabulary leaves out: they are the model's own.
        strings = dict(enumerate(decodes.pieces)) | strings
        known = dict(zip(decodes.pieces, decodes.token_bytes, strict=True))
        self.token_bytes = [
            known[token] if token in known else token.replace(SPACE, " ").encode()
            for token in (strings.get(id, "") for id in range(len(self.tokens)))
        ]


class _Side:
    """Texts of one language to ids."""

    def __init__(self, model, vocabulary, unk_id):
        self.model = model
        self._unk_id = unk_id
        self._ids = np.array([vocabulary.get(piece, -1) for piece in model.pieces], np.int32)
        self._ids[model.processor.unk_id()] = -1
        # Characters that are unknown to this model may have an id, from the other language.
        known = set(model.pieces)
        self._others = StringTable(
            {text: id for text, id in vocabulary.items() if text not in known or _CODE.match(text)}
        )

    def tokenize(self, texts):
        has_code = tf.strings.regex_full_match(texts, _CODE.pattern + "(?s:.*)")
        rest = tf.strings.regex_replace(texts, "^" + _CODE.pattern, "", replace_global=False)
        coded, after = tf.boolean_mask(texts, has_code), tf.boolean_mask(rest, has_code)
        lengths = tf.strings.length(coded) - tf.strings.length(after)
        code = tf.strings.substr(coded, tf.zeros_like(lengths), lengths)
        codes = tf.RaggedTensor.from_row_lengths(
            self._others.find(code, self._unk_id), tf.cast(has_code, tf.int64), validate=False
        )
        ids, pieces = self.model.tokens(rest)
        known = tf.gather(self._ids, ids.values)
        others = self._others.find(pieces.values, self._unk_id)
        return tf.concat([codes, ids.with_values(tf.where(known < 0, others, known))], 1)
