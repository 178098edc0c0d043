"""The app a command is about: its folder, settings and host.json; and its task hub, opened as a client."""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncGenerator, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from durable_host.config.host_json import HostJson, find_host_json, hub_name_problem, load_host_json
from durable_host.config.settings import LocalSettings, Settings, export, load_local_settings
from durable_host.engine.client import TaskHubClient
from durable_host.environment import Environment, system_environment
from durable_host.errors import ConfigurationError, StoreMismatchError
from durable_host.storage.choice import StorageChoice, choose_storage
from durable_host.storage.contract import AppLeaseOptions, HostStateStore, StorageOptions, TaskHubStore

_SOUND_HUB = "TestHubName"  # the name itself is judged by host_json.py

__all__ = ["AppContext", "Hub", "choose", "load_context", "open_hub", "storage_options"]


@dataclass(frozen=True, slots=True)
class AppContext:
    """An app folder, read. `remarks` is what should be said about its settings."""

    folder: Path
    settings: Settings
    local: LocalSettings
    host_json: HostJson
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hub:
    """An opened task hub."""

    name: str
    location: str
    choice: StorageChoice
    store: TaskHubStore
    host_state: HostStateStore
    client: TaskHubClient
    environment: Environment = field(default_factory=system_environment)


def load_context(arguments: argparse.Namespace, *, environ: MutableMapping[str, str] | None = None) -> AppContext:
    """Read the app that the arguments name; values of local.settings.json go into the environment.

    Args:
        environ: by default the process's own environment.

    Raises:
        ConfigurationError: the folder does not exist, or host.json is wrong.
    """
    if arguments.app_dir is not None and arguments.app is not None:
        raise ConfigurationError("Name the app's folder once, as APP_DIR or with --app.")
    folder = Path(arguments.app_dir or arguments.app or ".")
    if not folder.is_dir():
        raise ConfigurationError(f"The app folder '{folder}' does not exist or is no folder.")
    folder = folder.resolve()
    path = find_host_json(folder, home=_home())
    local = load_local_settings(folder, *([path.parent] if path is not None else []))
    variables = os.environ if environ is None else environ
    skipped = export(local, variables)
    settings = Settings(variables)

    try:
        host_json = load_host_json(
            path,
            variables,
            setting=settings.get,
            check=lambda read: _storage_problems(AppContext(folder, settings, local, read), arguments),
        )
    except ConfigurationError as error:
        # What would have been said later, and may well be the cause.
        hints = list(local.warnings)
        if path is not None and path.parent != folder:
            hints.append(f"The app folder has no host.json of its own; {path} holds.")
        raise ConfigurationError([*error.problems, *hints]) from None
    return AppContext(folder, settings, local, host_json, (*local.warnings, *skipped))


def _storage_problems(context: AppContext, arguments: argparse.Namespace) -> Sequence[str]:
    """What the provider says about its settings, to be told together with everything else."""
    if not hasattr(arguments, "storage"):
        return ()  # a command that opens no hub
    try:
        storage_options(context, choose(context, arguments.storage), hub=_SOUND_HUB)
    except ConfigurationError as error:
        return [f"host.json: {each}" if each.startswith("extensions.") else each for each in error.problems]
    return ()


def storage_options(
    context: AppContext, choice: StorageChoice, *, hub: str | None = None, app: str = "", worker: bool = False
) -> StorageOptions:
    """What the chosen provider is opened with.

    Raises:
        ConfigurationError: the provider refuses its settings.
    """
    name = hub or context.host_json.durable.hub
    problem = hub_name_problem(name)
    if problem is not None:
        raise ConfigurationError(f"--hub is {hub!r}: {problem}")
    durable = context.host_json.durable
    options = StorageOptions(
        hub=name,
        settings=choice.settings,
        folder=context.folder,
        url=choice.url,
        lease=durable.lease,
        app=app,
        setting=context.settings.get,
        worker=worker,
        app_lease=AppLeaseOptions(
            durable.use_app_lease, durable.app_lease, durable.app_lease_renewal, durable.app_lease_retry
        ),
    )
    problems = choice.provider.problems(options)
    if problems:
        raise ConfigurationError(problems)
    return options


def choose(context: AppContext, override: str | None) -> StorageChoice:
    """The provider of the app's hub. Raises ConfigurationError."""
    durable = context.host_json.durable
    return choose_storage(
        override=override,
        storage_type=durable.storage_type,
        settings=durable.storage,
        has_connection=lambda name: context.settings.connection(name) is not None,
        named_by=durable.storage_named_by,
    )


@asynccontextmanager
async def open_hub(arguments: argparse.Namespace, *, create: bool = False) -> AsyncGenerator[Hub, None]:
    """Open the app's task hub as a client, whether a host runs or not.

    Raises:
        ConfigurationError: the settings are wrong, or the hub lives in another process's memory.
        StoreError: there is no such hub, or it cannot be reached.
    """
    context = load_context(arguments)
    choice = choose(context, arguments.storage)
    options = storage_options(context, choice, hub=arguments.hub)
    environment = system_environment()
    opened = choice.provider.open(options, environment)
    store = opened.hub
    if not store.traits.durable:
        raise ConfigurationError(
            f"The {choice.provider.name} provider keeps the hub inside the running host, where no other process can "
            "see it. Use the host's HTTP API, or a provider that keeps it on disk."
        )
    if create:
        await store.create()
    try:
        await store.__aenter__()
    except StoreMismatchError as error:
        # A provider speaks to whoever holds its store object; here that is somebody at a terminal.
        text = str(error).replace("call create() first", "start the app once, or run `durable-host hub create`")
        raise StoreMismatchError(
            f"{text} (hub {options.hub!r}, provider {choice.provider.name}: {choice.reason})"
        ) from error
    try:
        yield Hub(
            options.hub,
            opened.location,
            choice,
            store,
            opened.host_state,
            TaskHubClient(store, environment),
            environment,
        )
    finally:
        await store.__aexit__(None, None, None)


def _home() -> Path | None:
    try:
        return Path.home().resolve()
    except RuntimeError:
        return None
