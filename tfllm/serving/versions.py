"""The versions of the served models: found on disk, loaded, swapped and handed out.

A base path's folders with numeric names are versions; which of them are wanted, the model says. A
wanted version is loaded while the old one goes on answering; the old one is unloaded when a wanted
one is AVAILABLE and its last running request has ended. A version that failed to load is not tried
again until its folder, or its model, has gone and come back; what was served before goes on being
served. The number of a version is all there is to it: one that is loaded stays so when its model
gets another base path.

Source:
    tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc and
    tensorflow_serving/core/availability_preserving_policy.cc, read for the behaviour.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import re
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorflow_serving.apis import model_pb2

from tfllm.serving.memory import give_back_memory
from tfllm.serving.models import ServedModel
from tfllm.serving.servables import Servable
from tfllm.serving.states import State, VersionOptions, VersionStatus
from tfllm.serving.status import Code, ServingError
from tfllm.serving.warmup import replay_warmup

log = logging.getLogger(__name__)

_INT64 = range(-(2**63), 2**63)


@dataclass
class _Version:
    """One version of one model. All fields are guarded by `Versions._changed`."""

    state: State = State.START
    error: ServingError | None = None
    servable: Any = None  # the `Servable`, from AVAILABLE on
    running: int = 0
    wanted: bool = True
    tries: int = 0
    retry_at: float = 0.0  # on time.monotonic's clock


class Versions:
    """The loaded versions of several models, kept up with their base paths by one thread.

    Args:
        models: What to serve, by name.
        poll_s: Seconds between two looks at the base paths; 0 looks only when `set_models` is
            called, and once at the start.
        options: How they are loaded.
        load: Loads a version folder, raising `ServingError`.
    """

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        poll_s: float = 1.0,
        options: VersionOptions | None = None,
        load: Callable[[Path], Servable] = Servable,
    ):
        self._models = dict(models)
        self._poll_s = poll_s
        self._options = options or VersionOptions()
        self._load_folder = load
        self._known: dict[str, dict[int, _Version]] = {name: {} for name in models}
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._missing: set[str] = set()
        self._thread = threading.Thread(target=self._watch, name="tfllm-versions", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stops watching and unloads everything; what still runs ends with CANCELLED."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()
        for name, known in self._known.items():
            for number, version in known.items():
                if version.state in (State.AVAILABLE, State.UNLOADING):
                    self._end(name, number, version)

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """What is served now, by name."""
        return self._models

    def set_models(self, models: Mapping[str, ServedModel]) -> None:
        """Serves these models from now on, and looks at all base paths at once.

        Labels change at this moment; versions are loaded and unloaded after it. What a model that
        is new failed to load in an earlier life is tried again.
        """
        with self._changed:
            for name in models.keys() - self._models.keys():
                for version in self._known.setdefault(name, {}).values():
                    version.wanted = False
            self._models = dict(models)
        self._wake.set()

    @contextlib.contextmanager
    def lease(self, spec: model_pb2.ModelSpec) -> Iterator[tuple[int, Servable]]:
        """The number and the servable that a request asks for, kept loaded inside the `with`.

        Raises:
            ServingError: INVALID_ARGUMENT without a name or for an unknown label, NOT_FOUND for
                what is not AVAILABLE.
        """
        with self._changed:
            number = self._resolve(spec)
            version = self._known[spec.name][number]
            version.running += 1
            self._changed.notify_all()
        try:
            yield number, version.servable
        finally:
            with self._changed:
                version.running -= 1

    def statuses(self, name: str) -> list[VersionStatus]:
        """Every version ever seen of a model, the highest first; empty for an unknown model."""
        with self._changed:
            return [
                VersionStatus(number, version.state, version.error, version.running)
                for number, version in sorted(self._known.get(name, {}).items(), reverse=True)
            ]

    def served_name(self, name: str) -> str:
        """`name` if a model of that name is served, else ""."""
        return name if name in self._models else ""

    def wait_until_available(self, timeout_s: float | None) -> None:
        """Blocks until every model has an AVAILABLE version.

        Raises:
            ServingError: DEADLINE_EXCEEDED, or why the newest version of a model failed if that
                model has nothing else that could become available.
        """
        if self.wait_until(self._are_available, timeout_s):
            return
        waiting = sorted(name for name in self._models if not self.is_available(name))
        raise ServingError(
            Code.DEADLINE_EXCEEDED,
            f"after {timeout_s:g} s no version is available of: {', '.join(waiting)}.",
        )

    def wait_until(self, predicate: Callable[[], bool], timeout_s: float | None) -> bool:
        """Blocks until `predicate` holds, asked whenever a version changes; False if it never did.

        Whatever it raises goes to the caller.
        """
        with self._changed:
            return self._changed.wait_for(predicate, timeout_s)

    def ask_again(self) -> None:
        """Has every predicate of `wait_until` asked, for those that depend on something else."""
        with self._changed:
            self._changed.notify_all()

    def is_available(self, name: str) -> bool:
        """Whether a version of the model answers."""
        with self._changed:
            return any(v.state == State.AVAILABLE for v in self._known[name].values())

    def are_all_available(self) -> bool:
        """Whether every model can answer."""
        return all(map(self.is_available, self._models))

    def failures(self, name: str) -> dict[int, ServingError] | None:
        """Why no version of the model answers, by version; None while one does or still may."""
        with self._changed:
            wanted = {n: v for n, v in self._known[name].items() if v.wanted}
            if not wanted or any(v.state != State.END for v in wanted.values()):
                return None
            return {n: v.error for n, v in wanted.items() if v.error is not None} or None

    def _are_available(self) -> bool:
        for name in self._models:
            versions = self.statuses(name)
            if versions and all(version.state == State.END for version in versions):
                newest = versions[0]
                if newest.error is not None:
                    message = f"{name} version {newest.version} failed to load: "
                    raise ServingError(newest.error.code, message + newest.error.message)
        return self.are_all_available()

    def _are_retried(self) -> bool:
        known = self._known.values()
        return any(v.state == State.LOADING for versions in known for v in versions.values())

    def _resolve(self, spec: model_pb2.ModelSpec) -> int:
        if not spec.name:
            raise ServingError(Code.INVALID_ARGUMENT, "ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        known = self._known.get(spec.name, {})
        available = [n for n, version in known.items() if version.state == State.AVAILABLE]
        if choice is None:
            if not available:
                message = f"Servable not found for request: Latest({spec.name})"
                raise ServingError(Code.NOT_FOUND, message)
            return max(available)
        number = spec.version.value
        if choice == "version_label":
            labels = self._models[spec.name].labels if spec.name in self._models else {}
            if spec.version_label not in labels:
                message = f"Unrecognized servable version label: {spec.version_label}"
                raise ServingError(Code.INVALID_ARGUMENT, message)
            number = labels[spec.version_label]
        if number not in available:
            message = f"Servable not found for request: Specific({spec.name}, {number})"
            raise ServingError(Code.NOT_FOUND, message)
        return number

    def _watch(self) -> None:
        is_due = True
        while not self._stopping.is_set():
            models = self._models
            for name in list(self._known):
                if is_due and name in models:
                    self._follow(name, models[name])
                elif name not in models:
                    self._want(name, ())
                    self._unload_unwanted(name)
                self._end_idle(name)
            is_due = self._poll_s > 0 or self._are_retried()
            if self._wake.wait(self._poll_s or 1.0):
                self._wake.clear()
                is_due = True

    def _follow(self, name: str, model: ServedModel) -> None:
        """One look at one base path: loads what is new and wanted, unloads what is not."""
        try:
            folders = _version_folders(Path(model.base_path))
        except OSError as error:
            # A base path that is away for a moment (a mount, a rename) unloads nothing.
            if name not in self._missing:
                log.warning("%s: cannot read %s: %s", name, model.base_path, error.strerror)
                self._missing.add(name)
            return
        self._missing.discard(name)
        for number in self._want(name, model.wanted(folders)):
            if self._stopping.is_set():
                return
            self._load(name, number, folders[number])
            self._unload_unwanted(name)
        self._unload_unwanted(name)

    def _want(self, name: str, wanted: Collection[int]) -> list[int]:
        """Notes which versions are wanted; those that are to be loaded now."""
        known = self._known[name]
        with self._changed:
            for number, version in known.items():
                has_failed = version.wanted and version.error is not None
                if version.state == State.END and number in wanted and not has_failed:
                    known[number] = _Version()
                elif version.state == State.LOADING and number not in wanted:
                    version.state = State.END  # it was waiting for its next try
                known[number].wanted = number in wanted
            for number in wanted:
                known.setdefault(number, _Version())
            now = time.monotonic()
            return [
                number
                for number in wanted
                if known[number].state == State.START
                or (known[number].state == State.LOADING and known[number].retry_at <= now)
            ]

    def _load(self, name: str, number: int, folder: Path) -> None:
        version = self._known[name][number]
        self._set(version, State.LOADING)
        version.tries += 1
        try:
            servable = self._load_and_warm_up(folder)
        except ServingError as error:
            reason = " ".join(str(error).split())
            log.error("%s version %d failed to load: %s", name, number, reason)
            if version.tries > self._options.max_retries:
                self._set(version, State.END, error=error)
            version.retry_at = time.monotonic() + self._options.retry_interval_s
        except Exception as error:  # noqa: BLE001  a folder is as foreign as a request
            frames = "".join(traceback.format_tb(error.__traceback__))
            log.error("%s version %d failed to load: %r\n%s", name, number, error, frames)
            self._set(version, State.END, error=ServingError(Code.INTERNAL, repr(error)))
        else:
            self._set(version, State.AVAILABLE, servable=servable)
            log.info("%s version %d is available", name, number)
            give_back_memory()

    def _load_and_warm_up(self, folder: Path) -> Servable:
        servable = self._load_folder(folder)
        try:
            replay_warmup(servable, folder, self._options.warmup_iterations)
        except ServingError:
            servable.close()
            raise
        return servable

    def _unload_unwanted(self, name: str) -> None:
        with self._changed:
            known = self._known[name]
            available = {n: v for n, v in known.items() if v.state == State.AVAILABLE}
            unwanted = sorted(n for n, v in available.items() if not v.wanted)
            is_replaced = len(unwanted) < len(available)
            if not is_replaced and any(v.wanted for v in known.values()):
                unwanted = unwanted[:-1]  # the best there is until a wanted one loads
            for number in unwanted:
                known[number].state = State.UNLOADING
            self._changed.notify_all()

    def _end_idle(self, name: str) -> None:
        for number, version in self._known[name].items():
            if version.state == State.UNLOADING and version.running == 0:
                self._end(name, number, version)
                give_back_memory()

    def _end(self, name: str, number: int, version: _Version) -> None:
        version.servable.close()
        self._set(version, State.END)
        gc.collect()  # a graph is full of cycles: without this its memory stays until chance
        log.info("%s version %d is unloaded", name, number)

    def _set(
        self,
        version: _Version,
        state: State,
        *,
        servable: Servable | None = None,
        error: ServingError | None = None,
    ) -> None:
        with self._changed:
            version.state, version.servable, version.error = state, servable, error
            self._changed.notify_all()


def _version_folders(base_path: Path) -> dict[int, Path]:
    """Every entry whose name is an int64, by number; of `3` and `0003` the later name wins."""
    folders = {}
    for path in sorted(base_path.iterdir()):
        if re.fullmatch(r"[+-]?[0-9]+", path.name) and int(path.name) in _INT64:
            folders[int(path.name)] = path
    return folders
