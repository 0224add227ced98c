"""What the decode loops ask of a model: to read some tokens of every row, and to remember them.

The prompts are read by the same call as each token after them. So the graph of an export holds the
model once: its matrices are packed once, and nothing is traced twice.
"""

from typing import Any, NamedTuple, Protocol

import tensorflow as tf

# Memories grow by this many entries: every length builds new kernels, and copies the old memory.
_ENTRIES = 64


class NewTokens(NamedTuple):
    """What a step reads: n tokens in each row.

    They are one text, each token after the one before it, or beams, each token in a text of its
    own. Models with attention need not know which: `visible` says it.

    Attributes:
        token_ids: int32[b, n].
        positions: int32[b, n], where each stands in its text.
        start: int32[b], the entry of the row's memory that its first token becomes; the others
            follow.
        visible: bool[b, n, s], which entries each token sees, itself among them. The memory has s.
        entry_positions: int32[b or 1, s], where the token of each entry stands in its text.
        parent: int32[b, n], the token of the last step that each one goes on from; None: each
            from the one in its place.
        wanted: int32[b, j], the tokens after which logits are asked for.
        lengths: int32[b], by how many tokens of each row, which are one text, a state without
            positions goes on; None: each token is in a text of its own, and all count. In a memory
            with entries, those of the others are written over later.
    """

    token_ids: tf.Tensor
    positions: tf.Tensor
    start: tf.Tensor
    visible: tf.Tensor
    entry_positions: tf.Tensor
    parent: tf.Tensor | None
    wanted: tf.Tensor
    lengths: tf.Tensor | None = None


class Beginning(NamedTuple):
    """What a model wants to read at the first step.

    Attributes:
        token_ids: int32[b, n], the prompts, or what is left of them.
        start: int32[b], where in its prompt each row of them begins.
        state: What is remembered already: any nest of tensors whose static shapes are those of
            all steps.
    """

    token_ids: tf.Tensor
    start: tf.Tensor
    state: Any


class Decodable(Protocol):
    """A model, as the decode loops see it."""

    def begin(self, prompt, lengths) -> Beginning:
        """Where to begin with int32[b, t] prompts of int32[b] tokens each, at least one.

        At least the last token of each prompt is left to be read.
        """

    def grow(self, state, entries, length) -> Any:
        """The state with room for more.

        Args:
            state: From `begin` or `step`; used up.
            entries: int32 scalar, entries that a memory holds for each row from now on.
            length: int32 scalar above all positions that steps will have before the next growth.
        """

    def step(self, new: NewTokens, state) -> tuple[tf.Tensor, Any]:
        """Reads new tokens.

        Args:
            new: n tokens in each row.
            state: From `begin`, `grow` or the step before; used up.

        Returns:
            float32[b, j, v], the logits after the tokens `wanted`, and the state.
        """


def wanted(hidden, new: NewTokens) -> tf.Tensor:
    """Of hidden states float[b * n, m] of new tokens those that are wanted: float[b, j, m]."""
    rows, width = tf.unstack(tf.shape(new.token_ids))
    place = tf.range(rows)[:, None] * width + new.wanted
    return tf.gather(hidden, place)


def rounded_up(x, multiple: int = _ENTRIES) -> tf.Tensor:
    """The next multiple of `multiple` that is not below x (int32)."""
    return -(-x // multiple) * multiple


def shapes_of(nest):
    """The static shapes of tensors as `tf.while_loop` wants them.

    Any number of rows may be there, and where a dimension is 0 still, there may be anything later.
    """

    def shape(tensor):
        _, *others = tensor.shape.as_list() or [None]
        return tf.TensorShape([None, *(size or None for size in others)][: tensor.shape.rank])

    return tf.nest.map_structure(shape, nest)
