"""What is looked at in a run beside its numbers, by option."""

import dataclasses
import re

from tfllm.errors import UserError


@dataclasses.dataclass(frozen=True)
class Watch:
    """What costs time and is therefore asked for; nothing of it changes a weight.

    Attributes:
        profile: (first, last): these steps, counted from 1, are profiled for TensorBoard; or None.
        histograms: Whether each validation writes histograms of the weights.
        attention_entropy: Whether each validation writes how spread out the attention of each
            layer is.

    Raises:
        UserError: the steps to profile are none.
    """

    profile: tuple[int, int] | None = None
    histograms: bool = False
    attention_entropy: bool = False

    def __post_init__(self):
        if self.profile is not None and not 1 <= self.profile[0] <= self.profile[1]:
            raise UserError(
                "The steps to profile are counted from 1, the first one first, as 20:25: got "
                f"{self.profile[0]}:{self.profile[1]}."
            )


def steps_of(text: str) -> tuple[int, int]:
    """(20, 25) of "20:25".

    Raises:
        UserError: it is no such text.
    """
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if not found:
        raise UserError(f"The steps to profile look like 20:25: got {text!r}.")
    return int(found[1]), int(found[2])
