"""WordPiece, the tokenizer of BERT: ids and their places in the text, in the graph."""

import os
from collections.abc import Iterable, Mapping, Sequence

import keras
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers.added_tokens import AddedToken, part_at_added
from tfllm.tokenizers.bert_normalizer import BertNormalizer
from tfllm.tokenizers.tokenizer import Tokenizer
from tfllm.tokenizers.utf8 import valid_utf8_in_graph
from tfllm.tokenizers.wordpiece_model import WordPieceModel

SPECIAL_TOKENS = {
    "pad": "[PAD]",
    "unk": "[UNK]",
    "cls": "[CLS]",
    "sep": "[SEP]",
    "mask": "[MASK]",
}
_ASSET = "vocab.txt"


@keras.saving.register_keras_serializable("tfllm")
class WordPieceTokenizer(Tokenizer):
    """BERT's tokenizer: a text is cleaned and parted into words, words into the longest pieces.

    Ids and places are those of Hugging Face's BertTokenizer. A word that no pieces make, or that
    is too long, is `unk_id`. `tokenize` adds no special tokens; their strings in a text are
    recognised.

    `decode` and `detokenize` join pieces that continue a word, put a space before all others but
    the first, and leave it out before ". ? ! ," and the shortened "n't 'm 's 've 're". The
    `token_bytes` of a piece are what it adds after another one, so the joined bytes of a
    continuation begin with its space. A normalized added token is decoded as it is looked for.

    The configuration holds no vocabulary: it is saved and loaded as an asset.

    Args:
        vocabulary: The pieces in the order of their ids, or the path of a file with one per line.
            Of equal ones the last counts. None for a tokenizer whose `load_assets` is called
            later.
        lowercase: Whether texts are lowered.
        strip_accents: Whether letters lose their accents; None: as `lowercase`.
        tokenize_chinese_chars: Whether each Chinese character is a word.
        max_characters_per_word: Longer words are unknown.
        special_tokens: Texts of the tokens "pad", "unk", "cls", "sep" and "mask", where they are
            others than `SPECIAL_TOKENS`. "unk" must be in the vocabulary.
        added_tokens: As for every `Tokenizer`; None for the special tokens in the vocabulary.
        dtype: Of the layer; the ids are int32.
        **kwargs: Of `Tokenizer`.

    Raises:
        UserError: if the file cannot be read, the vocabulary has no "unk" or a piece that cannot
            be one, or an added token contradicts it.

    Source:
        Song et al. 2020, https://arxiv.org/abs/2012.15524; BertTokenizer of Hugging Face
        `transformers` 5 and the WordPiece model and decoder of `tokenizers`.
    """

    def __init__(
        self,
        vocabulary: Sequence[str] | str | os.PathLike | None = None,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        tokenize_chinese_chars: bool = True,
        max_characters_per_word: int = 100,
        special_tokens: Mapping[str, str] | None = None,
        added_tokens: Iterable | None = None,
        dtype="int32",
        **kwargs,
    ):
        super().__init__(dtype=dtype, added_tokens=added_tokens or (), **kwargs)
        self.file_assets = [_ASSET]
        self.lowercase = lowercase
        self.strip_accents = strip_accents
        self.tokenize_chinese_chars = tokenize_chinese_chars
        self.max_characters_per_word = max_characters_per_word
        unknown = sorted(set(special_tokens or {}) - set(SPECIAL_TOKENS))
        if unknown:
            raise UserError(
                f"special_tokens has {unknown[0]!r}; expected some of {', '.join(SPECIAL_TOKENS)}."
            )
        self._special_tokens = tuple((SPECIAL_TOKENS | dict(special_tokens or {})).items())
        self._finds_added_tokens = added_tokens is None
        self._loaded: WordPieceModel | None = None
        if isinstance(vocabulary, str | os.PathLike):
            vocabulary = _read(vocabulary)
        if vocabulary is not None:
            self._load(list(vocabulary))

    def _load(self, vocabulary: list[str]) -> None:
        if self._finds_added_tokens:
            ids = {token: i for i, token in enumerate(vocabulary)}
            special = dict.fromkeys(text for _, text in self._special_tokens if text in ids)
            self._added_tokens = tuple(AddedToken(text, ids[text]) for text in special)
        strip_accents = self.lowercase if self.strip_accents is None else self.strip_accents
        self._loaded = WordPieceModel(
            vocabulary,
            self.added_tokens,
            self.special_tokens["unk"],
            BertNormalizer(self.lowercase, strip_accents, self.tokenize_chinese_chars),
            self.max_characters_per_word,
        )

    @property
    def _model(self) -> WordPieceModel:
        if self._loaded is None:
            raise UserError(
                "This tokenizer has no vocabulary yet: give `vocabulary`, or call load_assets."
            )
        return self._loaded

    @property
    def special_tokens(self) -> dict[str, str]:
        """Texts of the special tokens, whether the vocabulary has them or not."""
        return dict(self._special_tokens)

    @property
    def pieces(self) -> list[str]:
        """The vocabulary without added tokens beyond it."""
        return list(self._model.pieces)

    def tokenize_rows(self, texts: tf.Tensor) -> tf.RaggedTensor:
        return self._model.tokenize(texts)

    def tokenize_with_offsets(self, inputs):
        """Token ids of texts, and which part of the text each stands for.

        Args:
            inputs: string[b].

        Returns:
            Three ragged int32[b, None]: the ids; where each begins and where it ends (exclusive),
            in Unicode code points of the text, invalid UTF-8 in it read as U+FFFD.
        """
        texts = tf.convert_to_tensor(inputs, tf.string)
        if texts.shape.rank != 1:
            raise UserError(f"tokenize_with_offsets takes string[b]; got shape {texts.shape}.")
        texts = valid_utf8_in_graph(texts)
        added = [token for token in self.added_tokens if not token.normalized]
        if not added:
            return self._model.tokenize_with_offsets(texts)
        parts = part_at_added(added, texts)
        ids, starts, ends = self._model.tokenize_with_offsets(
            tf.where(parts.is_token, "", parts.texts)
        )
        lengths = tf.strings.length(parts.texts, unit="UTF8_CHAR")
        before = tf.concat([[0], tf.cumsum(lengths)], 0)
        rows = tf.RaggedTensor.from_row_splits(lengths, parts.row_splits).value_rowids()
        before = before[:-1] - tf.gather(tf.gather(before, parts.row_splits), rows)
        of_text = tf.gather(before, ids.value_rowids())
        of_token = tf.boolean_mask(before, parts.is_token)
        end_of_token = of_token + tf.boolean_mask(lengths, parts.is_token)
        return (
            parts.fill(ids, parts.ids),
            parts.fill(starts.with_values(starts.values + of_text), of_token),
            parts.fill(ends.with_values(ends.values + of_text), end_of_token),
        )

    def token_bytes(self) -> list[bytes]:
        model = self._model
        pairs = zip(model.after_another, model.is_said, strict=True)
        return [said if is_said else b"" for said, is_said in pairs]

    def decode(self, token_ids: Iterable[int]) -> str:
        model = self._model
        said = [i for i in token_ids if 0 <= i < len(model.is_said) and model.is_said[i]]
        return (
            self.join(model.at_beginning, said[:1]) + self.join(model.after_another, said[1:])
        ).decode()

    def detokenize(self, inputs, skip_special_tokens: bool = True) -> tf.Tensor:
        """As of every `Tokenizer`; special tokens are shown if they are not to be skipped."""
        model = self._model
        shown = model.is_said if skip_special_tokens else model.is_token
        size = len(shown)
        if isinstance(inputs, tf.RaggedTensor):
            inputs = inputs.to_tensor(-1)
        ids = tf.convert_to_tensor(inputs, dtype_hint=tf.int32)
        within = (ids >= 0) & (ids < size)
        is_said = within & tf.gather(shown, tf.where(within, ids, 0))
        is_first = is_said & (tf.cumsum(tf.cast(is_said, tf.int32), -1) == 1)
        entries = tf.where(is_first, ids + size, tf.where(is_said, ids, -1))
        return self.join_in_graph([*model.after_another, *model.at_beginning], entries)

    def get_vocabulary(self) -> list[str]:
        return list(self._model.tokens)

    def vocabulary_size(self) -> int:
        return len(self._model.tokens)

    def id_to_token(self, id: int) -> str:
        if not 0 <= id < self.vocabulary_size():
            raise UserError(f"A token id must be in [0, {self.vocabulary_size()}); got {id}.")
        return self._model.tokens[id]

    def token_to_id(self, token: str) -> int:
        """The id of a piece or an added token, `unk_id` where there is none."""
        return self._model.ids.get(token, self.unk_id)

    def _special_id(self, name: str) -> int:
        return self._model.ids.get(self.special_tokens[name], -1)

    @property
    def pad_id(self) -> int:
        """Of padding; -1, like the others, where the vocabulary has none."""
        return self._special_id("pad")

    @property
    def unk_id(self) -> int:
        return self._special_id("unk")

    @property
    def cls_id(self) -> int:
        """Of the token that begins an input."""
        return self._special_id("cls")

    @property
    def sep_id(self) -> int:
        """Of the token that ends each text of an input."""
        return self._special_id("sep")

    @property
    def mask_id(self) -> int:
        """Of the token that stands for one to be guessed."""
        return self._special_id("mask")

    @property
    def bos_id(self) -> int:
        """`cls_id`."""
        return self.cls_id

    @property
    def eos_id(self) -> int:
        """`sep_id`."""
        return self.sep_id

    def get_config(self):
        config = {
            **super().get_config(),
            "lowercase": self.lowercase,
            "strip_accents": self.strip_accents,
            "tokenize_chinese_chars": self.tokenize_chinese_chars,
            "max_characters_per_word": self.max_characters_per_word,
            "special_tokens": self.special_tokens,
        }
        if self._finds_added_tokens:
            config["added_tokens"] = None
        return config

    def save_assets(self, dir_path: str) -> None:
        with open(os.path.join(dir_path, _ASSET), "wb") as file:
            file.writelines(f"{piece}\n".encode() for piece in self._model.pieces)

    def load_assets(self, dir_path: str) -> None:
        self._load(_read(os.path.join(dir_path, _ASSET)))


def _read(path: str | os.PathLike) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().removesuffix("\n").split("\n")
    except OSError as error:
        raise UserError(f"Cannot read the vocabulary {path} ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise UserError(f"The vocabulary {path} is not UTF-8: {error}.") from error
