"""A file that says which models to serve, read again while they are served.

Source:
    tensorflow_serving/model_servers/server.cc (`PollFilesystemAndReloadConfig`), read for the
    behaviour: at each look what the file says is set again, also over what a client has set since.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Collection, Iterator

from tfllm.errors import UserError
from tfllm.serving.model_config import models_of, read_model_config
from tfllm.serving.models import ServedModel
from tfllm.serving.reloading import Reloader
from tfllm.serving.states import LabelRule
from tfllm.serving.status import ServingError

log = logging.getLogger(__name__)


class ConfigFile:
    """A `--model_config_file`, as the stock server reads it.

    Args:
        path: A text file with a `ModelServerConfig`. A base path in it may come later.
        poll_s: Seconds between two looks at the file; 0 is one look.
        label_rule: Which versions a label may be given to.

    Attributes:
        models: What it says at first, by name.

    Raises:
        UserError: a file that cannot be read, or that the stock server would refuse to start with.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        poll_s: float = 0.0,
        label_rule: LabelRule = LabelRule.AVAILABLE,
    ):
        self._path = path
        self._poll_s = poll_s
        self.models = self._read()
        for name, model in self.models.items():
            if model.labels and label_rule == LabelRule.AVAILABLE:
                raise UserError(
                    f"{path} gives labels to versions of {name}, and none is available before the "
                    "server has started: the stock server refuses that, too. Give "
                    "--allow_version_labels_for_unavailable_models, or labels later by "
                    "HandleReloadConfigRequest."
                )

    @contextlib.contextmanager
    def followed_by(self, reloader: Reloader) -> Iterator[None]:
        """Serves what the file says, inside the `with`; what is wrong with it is logged."""
        if self._poll_s <= 0:
            yield
            return
        stopping = threading.Event()

        def follow() -> None:
            told = ""
            while not stopping.wait(self._poll_s):
                try:
                    # No wait for the new models: the next look may find a file without them.
                    reloader.reload(self._read(reloader.models), lambda: True)
                    told = ""
                except (ServingError, UserError) as error:
                    if str(error) != told:
                        log.error("%s changes nothing: %s", self._path, error)
                    told = str(error)

        thread = threading.Thread(target=follow, name="tfllm-config-file", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()

    def _read(self, current: Collection[str] = ()) -> dict[str, ServedModel]:
        try:
            return models_of(read_model_config(self._path), current)
        except ServingError as error:
            raise UserError(f"{self._path}: {error.message}") from error
