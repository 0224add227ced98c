"""Changing what is served while it is served, by the stock server's rules.

Source:
    tensorflow_serving/model_servers/server_core.cc, read for the behaviour and the texts.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping

from tfllm.serving.models import ServedModel
from tfllm.serving.states import LabelRule, State
from tfllm.serving.status import Code, ServingError
from tfllm.serving.versions import Versions

log = logging.getLogger(__name__)


class Reloader:
    """Gives a server other models, one change after the other.

    Args:
        versions: What is served.
        rule: Which versions a label may be given to.
    """

    def __init__(self, versions: Versions, rule: LabelRule = LabelRule.AVAILABLE):
        self._versions = versions
        self._rule = rule
        self._turn = threading.Lock()
        self._has_stopped = False

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """What is served now, by name."""
        return self._versions.models

    def reload(
        self, models: Mapping[str, ServedModel], is_over: Callable[[], bool] = lambda: False
    ) -> None:
        """Serves these models and no others, and waits until the new ones are available.

        A model that stays is not waited for. A new one whose base path holds no version is, without
        an end, as by the stock server.

        Args:
            models: What is to be served, by name.
            is_over: Whether nobody waits any more; `Versions.ask_again` has it asked.

        Raises:
            ServingError: FAILED_PRECONDITION for a label that may not be given, in which case
                nothing has changed; UNKNOWN when a new model cannot be loaded, in which case the
                change stays and the server goes on trying by its rules.
        """
        with self._turn:
            check_labels(models, self._versions, self._rule)
            new = models.keys() - self._versions.models.keys()
            if models != self._versions.models:
                self._versions.set_models(models)
                log.info("serving now: %s", ", ".join(sorted(models)) or "nothing")
            self._versions.wait_until(
                lambda: self._has_stopped or is_over() or _are_settled(self._versions, new), None
            )
        _raise_failures(self._versions, new)

    def stop(self) -> None:
        """Nobody waits for a new model any more."""
        self._has_stopped = True
        self._versions.ask_again()


def check_labels(models: Mapping[str, ServedModel], versions: Versions, rule: LabelRule) -> None:
    """Raises FAILED_PRECONDITION for a label that the rule does not allow to be given."""
    for name, model in models.items():
        states = {told.version: told.state for told in versions.statuses(name)}
        used = versions.models[name].labels if name in versions.models else {}
        for label, version in model.labels.items():
            is_new = used.get(label, version) == version
            is_allowed = rule == LabelRule.ANY or (rule == LabelRule.NEW and is_new)
            if not is_allowed and states.get(version) != State.AVAILABLE:
                raise ServingError(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label to version {version} of model {name}, which is not "
                    "currently available for inference",
                )


def _are_settled(versions: Versions, names: Collection[str]) -> bool:
    """Whether each of the models is available or has failed."""
    return all(versions.is_available(name) or versions.failures(name) is not None for name in names)


def _raise_failures(versions: Versions, names: Collection[str]) -> None:
    failed = {name: versions.failures(name) for name in sorted(names)}
    told = [
        f"{{{{name: {name} version: {number}}} due to error: {error.code.name}: {error.message}}}, "
        for name, failures in failed.items()
        for number, error in (failures or {}).items()
    ]
    if told:
        message = f"{len(told)} model(s) did not become available: {{{''.join(told)}}}"
        raise ServingError(Code.UNKNOWN, message)
