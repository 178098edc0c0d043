"""Storage providers, found by the entry-point group `durable_host.providers`.

An entry point's name is the provider's name in `storageProvider.type`, compared without case; what it refers to is a
`StorageProvider` or a function that returns one. Only the provider that is asked for is imported, except by
`provider_for_url`, which looks for one that knows the scheme.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from durable_host.environment import Environment, system_environment
from durable_host.errors import ConfigurationError
from durable_host.storage.contract import StorageOptions, StorageProvider, TaskHubStore

__all__ = [
    "GROUP",
    "REFUSED",
    "find_provider",
    "load_provider",
    "open_hub",
    "provider_for_url",
    "provider_names",
    "providers",
]

GROUP = "durable_host.providers"

REFUSED: Mapping[str, str] = {
    "mssql": "the mssql provider of Durable Task is not supported",
    "netherite": "the Netherite provider of Durable Functions is not supported",
}
"""Providers that Azure knows and that will not come, in lower case, with the reason."""


def providers() -> Mapping[str, StorageProvider]:
    """Every installed provider by name, imported."""
    return {name: load_provider(name) for name in provider_names()}


def provider_names() -> tuple[str, ...]:
    """Names of the installed providers, sorted; nothing is imported."""
    return tuple(sorted(_entry_points()))


def find_provider(name: str) -> StorageProvider | None:
    """The provider of that name, without case, or None if none is installed."""
    return load_provider(name) if any(each.lower() == name.lower() for each in _entry_points()) else None


def load_provider(name: str, *, where: str = "extensions.durableTask.storageProvider.type") -> StorageProvider:
    """Import the provider of that name, compared without case.

    Args:
        where: the setting that asked for it, for the error's text.

    Raises:
        ConfigurationError: there is none, or it cannot be imported; the text lists those that exist.
    """
    found = _entry_points()
    for each, entry in found.items():
        if each.lower() == name.lower():
            return _load(each, entry)
    known = ", ".join(sorted(found)) or "none; reinstall durable-host"
    reason = REFUSED.get(name.lower())
    if reason is not None:
        raise ConfigurationError(f"{where} is {name!r}: {reason}. Use one of: {known}.")
    raise ConfigurationError(f"{where} is {name!r}; known providers: {known}. Install an extra or fix the name.")


def provider_for_url(url: str) -> StorageProvider:
    """The provider whose `schemes` hold the URL's scheme.

    One that cannot be imported, since its driver is not installed, is in nobody's way who asks for another.

    Raises:
        ConfigurationError: none does; the text lists the known schemes, and what could not be imported.
    """
    scheme, separator, _ = url.partition(":")
    if not separator:
        raise ConfigurationError(f"--storage is {url!r}, which is neither a provider's name nor a URL.")
    schemes: list[str] = []
    broken: list[str] = []
    for name, entry in sorted(_entry_points().items()):
        try:
            provider = _load(name, entry)
        except ConfigurationError as error:
            broken.append(str(error))
            continue
        if scheme.lower() in (each.lower() for each in provider.schemes):
            return provider
        schemes += provider.schemes
    known = f"no provider knows the scheme {scheme!r}; known schemes: {', '.join(sorted(schemes))}."
    raise ConfigurationError(" ".join([f"--storage names a store that cannot be used: {known}", *broken]))


def open_hub(storage: str, hub: str = "TestHubName", *, environment: Environment | None = None) -> TaskHubStore:
    """The store of a task hub, for library use: hand it to a TaskHubWorker or a TaskHubClient.

    Args:
        storage: a provider's name (`memory`, `sqlite`) or a URL (`sqlite:///orders.db`); paths are relative to the
            working directory.

    Returns:
        The store, neither created nor entered; a TaskHubWorker does both.

    Raises:
        ConfigurationError: no such provider, or its settings are wrong.
    """
    is_url = ":" in storage
    provider = provider_for_url(storage) if is_url else load_provider(storage, where="storage")
    options = StorageOptions(hub=hub, settings={}, folder=Path.cwd(), url=storage if is_url else None)
    problems = provider.problems(options)
    if problems:
        raise ConfigurationError(problems)
    return provider.open(options, environment or system_environment()).hub


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    return {each.name: each for each in importlib.metadata.entry_points(group=GROUP)}


def _load(name: str, entry: importlib.metadata.EntryPoint) -> StorageProvider:
    try:
        found = entry.load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"The storage provider {name!r} ({entry.value}) cannot be loaded: {error}. Is its extra installed?"
        ) from error
    if isinstance(found, type) or not hasattr(found, "open"):
        found = cast("Callable[[], object]", found)()
    return cast("StorageProvider", found)
