"""What the versions of a model go through."""

from __future__ import annotations

import enum
from typing import NamedTuple

from tfllm.serving.status import ServingError


class State(enum.IntEnum):
    """What a version is doing, numbered as in `ModelVersionStatus.State`."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class VersionStatus(NamedTuple):
    """What one version is doing.

    Attributes:
        version: Its number.
        state: Its `State`.
        error: Why it ended, if it failed.
        running: The requests that it is answering now.
    """

    version: int
    state: State
    error: ServingError | None
    running: int


class LabelRule(enum.Enum):
    """Which versions a label may be given to.

    AVAILABLE is the stock server's default, NEW its
    `--allow_version_labels_for_unavailable_models`, ANY its
    `--force_allow_any_version_labels_for_unavailable_models`.
    """

    AVAILABLE = "only an AVAILABLE version"
    NEW = "any version, unless the label is in use for another one"
    ANY = "any version"


class VersionOptions(NamedTuple):
    """How versions are loaded and named; the stock server's flags of similar names say the same.

    Attributes:
        max_retries: How often a load that failed is tried again before the version ENDs. The
            stock server's default is 5.
        retry_interval_s: Seconds between two tries; they come with the looks at the base paths.
        warmup_iterations: How often each recorded request is replayed on a new version; 0 is never.
        label_rule: Which versions a label may be given to.
    """

    max_retries: int = 0
    retry_interval_s: float = 60.0
    warmup_iterations: int = 1
    label_rule: LabelRule = LabelRule.AVAILABLE
