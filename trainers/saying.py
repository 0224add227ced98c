"""Words on stderr while a run goes on."""

import contextlib
import sys

from tqdm import tqdm


def say(text: str) -> None:
    """Prints a line above the line of progress.

    No run ends because it cannot speak: stderr may be a file on a full disk, or the pipe of a
    process that is gone.
    """
    with contextlib.suppress(OSError):
        tqdm.write(text, file=sys.stderr)


def reason(error: Exception) -> str:
    """What an error of the system or of TensorFlow says, in one line.

    Without the op and the file that TensorFlow names around it:
    {{function_node ...}} FILE; No space left on device [Op:SaveV2]
    """
    line = (str(error) or type(error).__name__).splitlines()[0]
    return line.split("}} ")[-1].split("; ")[-1].split(" [Op:")[0][:200]
