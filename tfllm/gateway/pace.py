"""How much is asked of a server in one call, by what waits and by how long calls take."""

from __future__ import annotations

# Tokens of each text in one call: few while nobody waits for a slot, so that texts come smoothly
# and prompts are read soon; more when some do, which saves calls. A call costs the server a copy of
# all that its texts remember, so that of several texts even two are much cheaper than one.
_ONE, _TWO, _SOME, _MANY = 1, 2, 4, 8
# Between two calls of `decode` prompts are read for no longer than so many of its tokens take.
_READ_STEPS = 1.5
_MOST_READ = 512

READ_AT_ONCE = 32  # tokens of prompts; the server reads multiples of this


class Pace:
    """Of one server.

    Attributes:
        decode_s: Mean seconds of late calls for one token of all texts.
        read_s: The same for one token of a prompt.
    """

    def __init__(self):
        self.decode_s = 0.02
        self.read_s = 0.0005

    def took(self, seconds: float, steps: int) -> None:
        """A call of `decode` had so many tokens of its longest row."""
        self.decode_s = _mean(self.decode_s, seconds / steps)

    def took_to_read(self, seconds: float, tokens: int) -> None:
        """A call of `prefill` read so many tokens; few tell nothing."""
        if tokens >= READ_AT_ONCE:
            self.read_s = _mean(self.read_s, seconds / tokens)

    def tokens_to_write(self, is_crowded: bool, num_reading: int, num_running: int) -> int:
        """Of each text in the next call.

        Args:
            is_crowded: Whether more texts wait than slots are free.
            num_reading: Texts whose prompts are not read whole.
            num_running: The others that have slots.
        """
        if is_crowded:
            return _SOME if num_reading else _MANY
        return _ONE if num_reading or num_running == 1 else _TWO

    def tokens_to_read(self, is_crowded: bool, num_coming: int, num_running: int) -> int:
        """Of all prompts in the next call.

        Args:
            is_crowded: As above.
            num_coming: Texts that wait, or whose prompts are not read whole.
            num_running: As above.
        """
        if not num_running:
            return _MOST_READ
        # With more who wait than are held up, what is held up matters less.
        times = _MANY if is_crowded else _SOME if num_coming > num_running else _ONE
        available = _READ_STEPS * times * self.decode_s / self.read_s
        return min(_MOST_READ, max(1, int(available / READ_AT_ONCE)) * READ_AT_ONCE)


def _mean(mean: float, value: float) -> float:
    """With the latest of the most weight; one outlier does not move it far."""
    return mean + 0.2 * (min(value, 4 * mean) - mean)
