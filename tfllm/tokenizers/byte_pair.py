"""Byte-level byte-pair encoding, the tokenizer of GPT-2, Llama 3, Qwen 2 and their kin."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers.byte_alphabet import ALPHABET, unspelled
from tfllm.tokenizers.merge_table import MOST_IDS, merge_table
from tfllm.tokenizers.merging import MergeTensors, merge
from tfllm.tokenizers.pieces import cut
from tfllm.tokenizers.splitting import PATTERNS
from tfllm.tokenizers.tokenizer import Tokenizer
from tfllm.tokenizers.whole_tokens import WholeTokens

_VOCABULARY, _MERGES = "vocab.json", "merges.txt"
_HEADER = "#version: 0.2"  # what Hugging Face's files begin with
_CPU = "/device:CPU:0"  # hundreds of operations on some thousand integers each


@keras.saving.register_keras_serializable("tfllm")
class BytePairTokenizer(Tokenizer):
    """Byte-level BPE: a text is cut into pieces by a pattern, and the bytes of each are merged.

    Its ids and texts are those of Hugging Face `tokenizers`, whatever the text. It keeps nothing
    between calls: memory does not grow with the words that it meets.

    The configuration holds no vocabulary: it is saved and loaded as assets, `vocab.json` and
    `merges.txt`, in Hugging Face's formats.

    Args:
        vocabulary: Id of each token, spelled in `byte_alphabet`; or the path of a `vocab.json`.
            None for a tokenizer whose `load_assets` is called later. A byte that is no token is
            left out of every text, as the reference does.
        merges: Pairs of tokens, first merge first; or the path of a `merges.txt`.
        split: The pattern, a key of `tfllm.tokenizers.splitting.PATTERNS`.
        composes: Whether texts are brought to normalization form C first (Qwen 2).
        add_prefix_space: Whether a text that does not begin with a space gets one.
        ignore_merges: Whether a piece that is a token as a whole is that token even where the
            merges do not lead there (Llama 3).
        pad_id: Of padding; -1, as for the other special tokens, if there is none.
        unk_id: What `token_to_id` gives for no token.
        bos_id: Of the beginning of a text.
        eos_id: Of the end of a text.
        **kwargs: Of `Tokenizer`.

    Raises:
        UserError: if a file cannot be read, vocabulary and merges do not fit, or `split` is
            unknown.

    Source:
        Radford et al. 2019, section 2.2, "Language Models are Unsupervised Multitask Learners";
        https://github.com/huggingface/tokenizers.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, int] | str | os.PathLike | None = None,
        merges: Iterable[Sequence[str]] | str | os.PathLike | None = None,
        *,
        split: str = "gpt2",
        composes: bool = False,
        add_prefix_space: bool = False,
        ignore_merges: bool = False,
        pad_id: int = -1,
        unk_id: int = -1,
        bos_id: int = -1,
        eos_id: int = -1,
        **kwargs,
    ):
        super().__init__(**{"dtype": "int32", **kwargs})
        if split not in PATTERNS:
            raise UserError(f"split must be one of {', '.join(PATTERNS)}; got {split!r}.")
        if add_prefix_space and split != "gpt2":
            raise UserError(f'add_prefix_space goes with split="gpt2" only; got split={split!r}.')
        if (vocabulary is None) != (merges is None):
            raise UserError("Give both vocabulary and merges, or neither of them.")
        self.split = split
        self.composes = composes
        self.add_prefix_space = add_prefix_space
        self.ignore_merges = ignore_merges
        self.pad_id = pad_id
        self.unk_id = unk_id
        self.bos_id = bos_id
        self.eos_id = eos_id
        self.file_assets = [_VOCABULARY, _MERGES]
        self._loaded = None
        if vocabulary is not None:
            self._load(vocabulary, merges)

    def _load(self, vocabulary, merges):
        if not isinstance(vocabulary, Mapping):
            vocabulary = read_vocabulary(vocabulary)
        if isinstance(merges, str | os.PathLike):
            merges = read_merges(merges)
        self._loaded = _Model(self, dict(vocabulary), [tuple(pair) for pair in merges])

    @property
    def _model(self) -> "_Model":
        if self._loaded is None:
            raise UserError(
                "This tokenizer has no vocabulary yet: give `vocabulary` and `merges`, or call "
                "load_assets."
            )
        return self._loaded

    @property
    def vocabulary(self) -> dict[str, int]:
        """Id of each token, without the added tokens that are not among them."""
        return dict(self._model.vocabulary)

    @property
    def merges(self) -> list[tuple[str, ...]]:
        """Pairs of tokens, the first merge first."""
        return list(self._model.merges)

    def tokenize_rows(self, texts: tf.Tensor) -> tf.RaggedTensor:
        return self._model.tokenize(texts)

    def token_bytes(self) -> list[bytes]:
        return self._model.token_bytes

    def get_vocabulary(self) -> list[str]:
        """Tokens by id, spelled in `byte_alphabet`; "" for an id that is none."""
        return list(self._model.tokens)

    def vocabulary_size(self) -> int:
        return len(self._model.tokens)

    def id_to_token(self, id: int) -> str:
        if not 0 <= id < self.vocabulary_size():
            raise UserError(f"A token id must be in [0, {self.vocabulary_size()}); got {id}.")
        return self._model.tokens[id]

    def token_to_id(self, token: str) -> int:
        """The id of a token, `unk_id` where there is none."""
        return self._model.ids.get(token, self.unk_id)

    def save_assets(self, dir_path: str) -> None:
        model = self._model
        with open(os.path.join(dir_path, _VOCABULARY), "w", encoding="utf-8") as file:
            json.dump(model.vocabulary, file, ensure_ascii=False)
        with open(os.path.join(dir_path, _MERGES), "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line}\n" for line in [_HEADER, *map(" ".join, model.merges)])

    def load_assets(self, dir_path: str) -> None:
        self._load(os.path.join(dir_path, _VOCABULARY), os.path.join(dir_path, _MERGES))

    def get_config(self):
        return {
            **super().get_config(),
            "split": self.split,
            "composes": self.composes,
            "add_prefix_space": self.add_prefix_space,
            "ignore_merges": self.ignore_merges,
            "pad_id": self.pad_id,
            "unk_id": self.unk_id,
            "bos_id": self.bos_id,
            "eos_id": self.eos_id,
        }


class _Model:
    """A vocabulary with its merges, ready for both faces. Never changed, so threads may share it.

    A plain object, because Keras copies and tracks dictionaries that are attributes of a layer.
    """

    def __init__(self, config: BytePairTokenizer, vocabulary, merges):
        self.vocabulary, self.merges = vocabulary, merges
        table = merge_table(vocabulary, merges)
        byte_ids = np.array([vocabulary.get(character, -1) for character in ALPHABET], np.int32)
        added = {token.text: token.id for token in config.added_tokens}
        self.ids = {**vocabulary, **added}
        if not all(0 <= token_id < MOST_IDS for token_id in added.values()):
            raise UserError(f"The id of an added token must be in [0, {MOST_IDS}); got {added}.")
        self.tokens = [""] * (1 + max(self.ids.values(), default=-1))
        for token, token_id in self.ids.items():
            self.tokens[token_id] = token
        self.token_bytes = list(map(unspelled, self.tokens))
        for token in config.added_tokens:
            if token.hidden:
                self.token_bytes[token.id] = b""
        # Eager tensors: a graph that uses them holds references, and a SavedModel one copy for
        # all signatures.
        with tf.init_scope(), tf.device(_CPU):
            merges = MergeTensors.of(table)
            whole = WholeTokens.of(vocabulary, table.reached) if config.ignore_merges else None

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
        def tokenize(texts):
            with tf.device(_CPU):
                pieces = cut(
                    texts,
                    config.split,
                    composes=config.composes,
                    add_prefix_space=config.add_prefix_space,
                )
                tokens, places = _merged(pieces, byte_ids, merges)
                if whole is not None:
                    tokens, places = whole.put(pieces, tokens, places)
                return tf.RaggedTensor.from_value_rowids(
                    tokens,
                    tf.cast(tf.gather(pieces.rows, places), tf.int64),
                    nrows=tf.size(texts, tf.int64),
                    validate=False,
                )

        self.tokenize = tokenize


def _merged(pieces, byte_ids, merges):
    """Tokens of pieces, and the piece that each is of; int32[n] each."""
    values, places = pieces.of_bytes()
    tokens = tf.gather(byte_ids, values)
    if (byte_ids < 0).any():
        known = tf.where(tokens >= 0)
        tokens, places = tf.gather_nd(tokens, known), tf.gather_nd(places, known)
    return merge(merges, tokens, places)


def read_vocabulary(path: str | os.PathLike) -> dict[str, int]:
    """Reads a `vocab.json`.

    Raises:
        UserError: if it cannot be read, or holds something else.
    """
    try:
        with open(path, encoding="utf-8") as file:
            vocabulary = json.load(file)
    except OSError as error:
        raise UserError(f"Cannot read the vocabulary {path} ({error.strerror}).") from error
    except ValueError as error:
        raise UserError(f"{path} is not a vocabulary in JSON ({error}).") from error
    if not isinstance(vocabulary, dict):
        raise UserError(f"{path} is not a vocabulary: expected an object of tokens and their ids.")
    return vocabulary


def read_merges(path: str | os.PathLike) -> list[tuple[str, ...]]:
    """Reads a `merges.txt`: a pair in each line, parted by a space, after a line of its version.

    Raises:
        UserError: if it cannot be read, or holds something else.
    """
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            lines = file.read().split("\n")
    except OSError as error:
        raise UserError(f"Cannot read the merges {path} ({error.strerror}).") from error
    except ValueError as error:
        raise UserError(f"{path} is not a list of merges in UTF-8 ({error}).") from error
    if lines[0].startswith("#version"):
        del lines[0]
    return [tuple(line.removesuffix("\r").split(" ")) for line in lines if line]
