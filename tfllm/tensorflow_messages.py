"""TensorFlow's protocol messages without TensorFlow, for programs that only speak to servers."""

import importlib.machinery
import importlib.util
import sys


def import_messages_only() -> None:
    """Makes `import tensorflow.core...` find the messages, and run nothing of TensorFlow.

    For a program as a whole: nothing in this process can use TensorFlow from then on. It does
    nothing where TensorFlow is imported already, or is not there.
    """
    if "tensorflow" in sys.modules:
        return
    found = importlib.util.find_spec("tensorflow")
    if found is None or found.origin is None:
        return
    # Of the same folders, but without the code that `import tensorflow` runs.
    alone = importlib.machinery.ModuleSpec("tensorflow", None, is_package=True)
    alone.submodule_search_locations = found.submodule_search_locations
    sys.modules["tensorflow"] = importlib.util.module_from_spec(alone)
