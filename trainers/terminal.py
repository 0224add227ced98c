"""What a person sees of a run: a bar on a terminal, else a line now and then."""

import sys
import time

from tqdm import tqdm

from tfllm.trainers.saying import say

LINE_EVERY_S = 30.0


class Terminal:
    """Shows on stderr how far a run is, with the time left.

    Args:
        name: Of the run.
        steps: Of the whole run.
        done: How many of them an earlier process did.
    """

    def __init__(self, name: str, steps: int, done: int):
        self._steps = steps
        self._validation: dict[str, str] = {}
        self._last_line = self._began = time.monotonic()
        self._done_before = done
        self._bar = tqdm(
            total=steps,
            initial=done,
            desc=name,
            unit="step",
            file=sys.stderr,
            disable=None,  # where there is no terminal
        )

    def step(self, step: int, loss: float, tokens_per_second: float) -> None:
        """After a step: `step` are done."""
        if not self._bar.disable:
            shown = {"loss": f"{loss:.3f}", "tokens_s": f"{tokens_per_second:,.0f}"}
            self._bar.set_postfix(shown | self._validation, refresh=False)
            self._bar.update()
            return
        now = time.monotonic()
        if now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            left_s = (now - self._began) / (step - self._done_before) * (self._steps - step)
            say(
                f"step {step:,} of {self._steps:,}: loss {loss:.3f}, {tokens_per_second:,.0f} "
                f"tokens/s, {tqdm.format_interval(left_s)} left"
            )

    def validated(self, step: int, reached: dict[str, float]) -> None:
        """After a validation."""
        self._validation = {"validation": f"{reached['loss']:.3f}"}
        shown = ", ".join(f"{name} {value:.3f}" for name, value in reached.items())
        say(f"step {step:,}: {shown}")

    def close(self) -> None:
        self._bar.close()
