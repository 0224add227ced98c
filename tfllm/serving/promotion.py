"""Moving version labels on running servers, from a `models.config` that says what they serve.

A server of TensorFlow Serving is told all its models at once and cannot be asked for them, and it
refuses a label for a version that is not loaded. So the file is what is changed, and a change takes
two requests to each server: one that has it load what the labels will need, one that moves them.

Source:
    tensorflow_serving/apis/model_service.proto and tensorflow_serving/model_servers/server_core.cc,
    read for the behaviour.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from tfllm.aside import locked
from tfllm.errors import Failure, UserError
from tfllm.serving.client import Client
from tfllm.serving.models_file import ModelsFile
from tfllm.serving.status import ServingError
from tfllm.serving.transport import place_of


class Assignment(NamedTuple):
    """Which versions a model's labels name.

    Attributes:
        model: Its name.
        labels: Versions by label.
        before: What they were.
    """

    model: str
    labels: dict[str, int]
    before: dict[str, int]


def promote(
    addresses: Sequence[str],
    model: str,
    version: int,
    *,
    label: str = "stable",
    config_file: str | os.PathLike = "models.config",
    wait_s: float = 120.0,
    **connection: Any,
) -> Assignment:
    """Gives a label to a version, on all servers or on none.

    The versions that had a label stay loaded, so that `rollback` takes no time; those that had none
    are unloaded, unless the version policy of the file is `all`.

    Args:
        addresses: "host:port" of each server, for gRPC.
        model: The name that they serve it by.
        version: Loaded first where it is not.
        label: Clients ask for it, as `Client(version_label="stable")`.
        config_file: What the servers serve; changed when they all have done it.
        wait_s: Seconds for the servers to load the version.
        connection: As `Client`: timeout_s, tls, headers.

    Raises:
        UserError: a file that cannot be read or has no such model.
        Failure: a server did not do it; the others are as before, or named in the message.
    """
    with _changing(config_file) as file, _clients(addresses, model, connection) as clients:
        before = file.entry(model)
        after = file.entry(model)
        after.version_labels[label] = version
        if after.model_version_policy.WhichOneof("policy_choice") != "all":
            kept = set(before.version_labels.values()) or _available(clients)
            _set_versions(after, kept | set(after.version_labels.values()))
        if dict(after.version_labels) != dict(before.version_labels):
            file.push(model)
        return _move(file, clients, before, after, wait_s)


def rollback(
    addresses: Sequence[str],
    model: str,
    *,
    config_file: str | os.PathLike = "models.config",
    wait_s: float = 120.0,
    **connection: Any,
) -> Assignment:
    """Takes the last `promote` of a model back; called again, the one before.

    Args:
        addresses: As `promote`, as the others.
        model: Its name.
        config_file: What the servers serve, and what they served before.
        wait_s: Seconds for the servers to load a version that is no longer there.
        connection: As `Client`.

    Raises:
        UserError: as `promote`, or there is nothing to go back to.
        Failure: as `promote`.
    """
    with _changing(config_file) as file, _clients(addresses, model, connection) as clients:
        before, after = file.entry(model), file.entry(model)
        past = file.before(model)
        after.ClearField("version_labels")
        after.version_labels.update(past.version_labels)
        after.model_version_policy.CopyFrom(past.model_version_policy)
        if after.model_version_policy.WhichOneof("policy_choice") == "specific":
            kept = set(past.model_version_policy.specific.versions)
            _set_versions(after, kept | set(before.version_labels.values()))
        file.pop(model)
        return _move(file, clients, before, after, wait_s)


def _move(
    file: ModelsFile,
    clients: Sequence[Client],
    before: ModelConfig,
    after: ModelConfig,
    wait_s: float,
) -> Assignment:
    """Has all servers serve `after` and writes the file; else has them serve `before` again."""
    loading = ModelConfig()
    loading.CopyFrom(before)
    needed = set(after.version_labels.values())
    if before.model_version_policy.WhichOneof("policy_choice") != "all":
        _set_versions(loading, _available(clients) | _specific(before) | needed)
    asked: list[Client] = []
    try:
        for client in clients:
            asked.append(client)
            _reload(client, file.with_entry(loading))
        for client in clients:
            for version in sorted(needed):
                _wait(client, version, wait_s)
        for client in clients:
            _reload(client, file.with_entry(after))
        file.write(file.with_entry(after))
    except (ServingError, OSError, KeyboardInterrupt) as error:
        left = [told for client in asked if (told := _not_set_back(client, file.config))]
        end = f"Not set back: {'; '.join(left)}." if left else "No label has moved."
        raise Failure(f"{str(error) or 'interrupted'}. {end}") from error
    return Assignment(after.name, dict(after.version_labels), dict(before.version_labels))


@contextlib.contextmanager
def _changing(config_file: str | os.PathLike) -> Iterator[ModelsFile]:
    file = ModelsFile(config_file)
    busy = f"{config_file} is being changed by another process: wait until it has ended."
    with locked(file.path.parent, busy):
        yield ModelsFile(config_file)


@contextlib.contextmanager
def _clients(
    addresses: Sequence[str], model: str, connection: dict[str, Any]
) -> Iterator[list[Client]]:
    """Clients of all servers, each of which has answered."""
    if not addresses:
        raise UserError("there is no server to ask: give the address of at least one.")
    if rest := [address for address in addresses if place_of(address).scheme]:
        raise UserError(f"REST cannot change what {rest[0]} serves: give its gRPC port.")
    with contextlib.ExitStack() as open_clients:
        clients = [
            open_clients.enter_context(Client(address, model, **connection))
            for address in addresses
        ]
        for client in clients:
            with _named(client):
                client.status()
        yield clients


def _available(clients: Sequence[Client]) -> set[int]:
    """The versions that a server has loaded."""
    told = [status for client in clients for status in client.status()]
    return {status.version for status in told if status.state == "AVAILABLE"}


def _specific(entry: ModelConfig) -> set[int]:
    return set(entry.model_version_policy.specific.versions)


def _set_versions(entry: ModelConfig, versions: set[int]) -> None:
    entry.model_version_policy.Clear()
    entry.model_version_policy.specific.versions.extend(sorted(versions))


def _reload(client: Client, config: ModelServerConfig) -> None:
    with _named(client):
        client.reload(config)


def _wait(client: Client, version: int, wait_s: float) -> None:
    with _named(client):
        client.wait_until_available(wait_s, version=version)


def _not_set_back(client: Client, config: ModelServerConfig) -> str:
    """Why a server could not be given the old config, "" if it could."""
    try:
        _reload(client, config)
    except ServingError as error:
        return error.message
    return ""


@contextlib.contextmanager
def _named(client: Client) -> Iterator[None]:
    """Errors begin with the server that they came from."""
    try:
        yield
    except ServingError as error:
        raise ServingError(error.code, f"{client.address}: {error.message}") from error
