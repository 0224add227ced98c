"""Tokens that stand for a span of text that was taken out."""

from tfllm.errors import UserError
from tfllm.tokenizers.tokenizer import Tokenizer


def with_sentinels(tokenizer: Tokenizer, count: int) -> Tokenizer:
    """A tokenizer with `<extra_id_0>`, `<extra_id_1>`, … behind its other tokens.

    The first one has the highest id, as T5 has it. It is for a model that is yet to be made.

    Args:
        tokenizer: Without sentinels.
        count: How many; one for each span of a window is needed, about a twentieth of its tokens.

    Raises:
        UserError: the count is none, or there are sentinels already.

    Source:
        `T5Tokenizer` of Hugging Face `transformers`.
    """
    if count < 1:
        raise UserError(f"The number of sentinels must be at least 1; got {count}.")
    if any(token.text == _text(0) for token in tokenizer.added_tokens):
        raise UserError(f"The tokenizer has sentinels already ({_text(0)} …).")
    return tokenizer.with_added_tokens([_text(number) for number in reversed(range(count))])


def sentinel_ids(tokenizer: Tokenizer, count: int) -> list[int]:
    """The ids of the first so many sentinels of a tokenizer.

    Raises:
        UserError: it has fewer.
    """
    ids = {token.text: token.id for token in tokenizer.added_tokens}
    found = [ids[_text(number)] for number in range(count) if _text(number) in ids]
    if len(found) < count:
        raise UserError(
            f"{count} sentinels ({_text(0)} …) are needed, one for each span of a window, and the "
            f"tokenizer has {len(found)} of them: add them with tfllm.tokenizers.with_sentinels "
            "before the text is prepared, or make the windows shorter or the spans longer."
        )
    return found


def _text(number):
    return f"<extra_id_{number}>"
