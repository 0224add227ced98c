"""What an encoder–decoder model reads and has to say."""

import tensorflow as tf

from tfllm.errors import UserError
from tfllm.tokenizers import Tokenizer


def start_token(tokenizer: Tokenizer, given: int | None) -> int:
    """What the decoder reads first; as in `Seq2SeqLMPreprocessor`, None means the padding."""
    return tokenizer.padding_id if given is None else given


def require_end(tokenizer: Tokenizer, name: str) -> None:
    """Refuses a tokenizer without an end.

    Raises:
        UserError: naming the objective.
    """
    if tokenizer.eos_id < 0:
        raise UserError(
            f"{name} needs a tokenizer with an end token, this one has eos_id={tokenizer.eos_id}."
        )


def seq2seq_batch(source, source_mask, target, target_mask, start: int):
    """A batch of a `Seq2SeqBackbone`.

    Args:
        source: int32[b, s].
        source_mask: int32[b, s], 0 = padding; the numbers of the pairs where rows are packed.
        target: int32[b, t], with the ends.
        target_mask: int32[b, t], as of the source.
        start: What the decoder reads at the beginning of each target.

    Returns:
        x: `encoder_token_ids`, `encoder_padding_mask`, `decoder_token_ids` (each target moved by
            one place) and `decoder_padding_mask`.
        y: int32[b, t], the targets.
        weight: float32[b, t], 1 where there is one.
    """
    before = tf.pad(target, [[0, 0], [1, 0]])[:, :-1]
    mask_before = tf.pad(target_mask, [[0, 0], [1, 0]])[:, :-1]
    inputs = {
        "encoder_token_ids": source,
        "encoder_padding_mask": source_mask,
        "decoder_token_ids": tf.where(mask_before == target_mask, before, start),
        "decoder_padding_mask": target_mask,
    }
    return inputs, target, tf.cast(target_mask > 0, tf.float32)
