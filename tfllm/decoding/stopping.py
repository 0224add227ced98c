"""Stop strings, found in the bytes of the generated text even across tokens."""

from collections.abc import Callable

import tensorflow as tf

MAX_STOP_BYTES = 256  # bounds the work of one step; longer ones are an error of their row


class StopStrings:
    """The stop strings of each row, and how to look for them.

    Args:
        stops: string[b, n], "" = unused, each at most `MAX_STOP_BYTES`.
        bytes_of: Gives string[b], what tokens int32[b] add to the text.
        longest: The most bytes that a token adds.
    """

    def __init__(self, stops: tf.Tensor, bytes_of: Callable[[tf.Tensor], tf.Tensor], longest: int):
        lengths = tf.strings.length(stops)
        self.any = tf.reduce_any(lengths > 0)
        self._lengths = lengths  # [b, n]
        self._width = tf.reduce_max(tf.concat([tf.reshape(lengths, [-1]), [1]], 0))
        self._stops = tf.io.decode_raw(stops, tf.uint8, fixed_length=self._width)  # [b, n, w]
        self._bytes_of = bytes_of
        # A match found now ends in the last token, so it begins this close to the end.
        self._reach = self._width + longest

    def extend(self, tail, tokens):
        """Adds a token to the end of each row's text; of a row that has ended it means nothing.

        Args:
            tail: string[b], the last bytes of the text so far.
            tokens: int32[b], the new tokens.

        Returns:
            tail string[b], and bool[b], whether a stop string is in it.
        """

        def look():
            text = self._end_of(tf.strings.join([tail, self._bytes_of(tokens)]))
            # TensorFlow loses a number of rows that it knows.
            return text, tf.ensure_shape(self._first_match(text) >= 0, tokens.shape)

        return tf.cond(self.any, look, lambda: (tail, tf.zeros_like(tokens, tf.bool)))

    def cut(self, texts):
        """string[b], the texts up to their stop string if they have one."""

        def shorten():
            end = self._end_of(texts)
            match = self._first_match(end)
            length = tf.strings.length(texts)
            stop_at = length - tf.strings.length(end) + match
            return tf.strings.substr(
                texts, tf.zeros_like(length), tf.where(match >= 0, stop_at, length)
            )

        return tf.cond(self.any, shorten, lambda: texts)

    def begun(self, texts):
        """int32[b], the most bytes at the end of texts that a stop string begins with, not whole.

        Args:
            texts: string[b].
        """

        def look():
            length = tf.strings.length(texts)
            size = tf.minimum(length, self._width)
            end = tf.strings.substr(texts, length - size, size)
            end = tf.io.decode_raw(end, tf.uint8, fixed_length=self._width)  # [b, w]
            place = tf.range(self._width)
            begin = size[:, None] - place  # where the last 0, 1, 2 … bytes begin: [b, w]
            here = tf.clip_by_value(begin[..., None] + place, 0, self._width - 1)
            last = tf.gather(end, here, batch_dims=1)
            same = last[:, None] == self._stops[:, :, None]  # [b, n, w, w]
            same |= place >= place[:, None]  # only so many are compared
            some = (place < self._lengths[..., None]) & (begin >= 0)[:, None]  # [b, n, w]
            found = tf.reduce_any(tf.reduce_all(same, -1) & some, 1)  # [b, w]
            return tf.reduce_max(tf.where(found, place, 0), -1)

        return tf.cond(self.any, look, lambda: tf.zeros_like(tf.strings.length(texts)))

    def _end_of(self, texts):
        length = tf.strings.length(texts)
        size = tf.minimum(length, self._reach)
        return tf.strings.substr(texts, length - size, size)

    def _first_match(self, texts):
        """int32[b], the byte at which the first stop string begins, or -1."""
        # Room behind the text, so that every window is whole; a window may not pass the text.
        size = self._reach + self._width
        text = tf.io.decode_raw(texts, tf.uint8, fixed_length=size)  # [b, size]
        begins = tf.range(self._reach)
        windows = tf.gather(text, begins[:, None] + tf.range(self._width), axis=1)  # [b, r, w]
        unused = tf.range(self._width) >= self._lengths[..., None]  # [b, n, w]
        same = (windows[:, None] == self._stops[:, :, None]) | unused[:, :, None]
        inside = begins + self._lengths[..., None] <= tf.strings.length(texts)[:, None, None]
        found = tf.reduce_all(same, -1) & inside & (self._lengths > 0)[..., None]  # [b, n, r]
        found = tf.reduce_any(found, 1)
        first = tf.argmax(found, -1, output_type=tf.int32)
        return tf.where(tf.reduce_any(found, -1), first, -1)
