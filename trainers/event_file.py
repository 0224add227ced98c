"""TensorBoard's files of a run, which goes on where they cannot be written."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from tfllm.trainers.saying import reason, say

_PAUSE = 10  # points without a file before the next try, each of which leaves an empty one


class EventFile:
    """Writes points into a folder of TensorBoard's.

    On a full disk points are lost, which is said once, and the run goes on. Later ones go into a
    new file: TensorBoard reads a file up to a record that is torn, and then the next file.

    Args:
        folder: Made with the first point.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._writer: tf.summary.SummaryWriter | None = None
        self._pause = 0
        self._said = False

    @contextlib.contextmanager
    def at(self, step: int) -> Iterator[None]:
        """Inside `with`, what `tf.summary` is given is a point of the step."""
        if self._writer is None:
            self._open()
        if self._writer is None:
            with tf.summary.record_if(False):
                yield
            return
        with self._writer.as_default(step):
            try:
                yield
                self._writer.flush()
            except tf.errors.OpError as error:
                # TensorFlow flushes again as it leaves, and stays inside if that fails; a writer
                # that is closed it leaves alone.
                with contextlib.suppress(tf.errors.OpError):
                    self._writer.close()
                self._lose(error)

    def _open(self):
        if self._pause:
            self._pause -= 1
            return
        try:
            self._writer = tf.summary.create_file_writer(str(self.folder))
        except tf.errors.OpError as error:
            self._lose(error)

    def _lose(self, error):
        self._writer, self._pause = None, _PAUSE
        if not self._said:
            say(
                f"TensorBoard's files in {self.folder} cannot be written ({reason(error)}): "
                "the run goes on and points are lost. Make room there."
            )
        self._said = True
