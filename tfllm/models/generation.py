"""How a model writes unless it is asked otherwise: what comes along with a checkpoint."""

import dataclasses
from typing import Any

from tfllm.errors import UserError


@dataclasses.dataclass(frozen=True)
class GenerationSettings:
    """Defaults of `generate` and `beam_search`, and what holds for every answer of the model.

    Attributes:
        max_new_tokens: New tokens at most.
        temperature: 0 = the best token each time.
        top_k: 0 = off.
        top_p: 1 = off.
        min_p: 0 = off.
        repetition_penalty: 1 = off.
        presence_penalty: 0 = off; `transformers` does not know it.
        frequency_penalty: 0 = off; `transformers` does not know it.
        num_beams: Above 1, `serving_default` answers with the best beam of so many.
        length_penalty: Of beams: the score is divided by the length to this power.
        early_stopping: Of beams: True ends when there are enough, False when no better ones are
            likely, "never" when no better ones are possible.
        end_token_ids: Tokens that end a text; () means the tokenizer's own.
        suppressed_token_ids: Tokens that are never said.
        forced_bos_token_id: The only first token; -1 = free.
        forced_eos_token_id: The token where the limit ends a text; -1 = free.
        min_new_tokens: Before this many tokens no text ends.
        no_repeat_ngram_size: No so many tokens in a row come twice in a text, its prompt included
            where the model goes on writing that; 0 = they may.

    Raises:
        UserError: a value that no search can be run with.

    Source:
        `GenerationConfig` of Hugging Face `transformers`.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    end_token_ids: tuple[int, ...] = ()
    suppressed_token_ids: tuple[int, ...] = ()
    forced_bos_token_id: int = -1
    forced_eos_token_id: int = -1
    min_new_tokens: int = 0
    no_repeat_ngram_size: int = 0

    def __post_init__(self):
        for name in ("end_token_ids", "suppressed_token_ids"):  # JSON makes lists of them
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.num_beams < 1:
            raise UserError(f"num_beams must be at least 1, got {self.num_beams}.")
        if self.no_repeat_ngram_size < 0:
            raise UserError(
                f"no_repeat_ngram_size must be at least 0, got {self.no_repeat_ngram_size}."
            )
        if self.early_stopping not in (True, False, "never"):
            raise UserError(
                f'early_stopping must be True, False or "never", got {self.early_stopping!r}.'
            )

    @classmethod
    def of(cls, value: "GenerationSettings | dict[str, Any] | None") -> "GenerationSettings":
        """Settings, or the dict or None that stands for them."""
        if isinstance(value, GenerationSettings):
            return value
        return cls(**(value or {}))
