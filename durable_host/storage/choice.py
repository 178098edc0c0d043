"""Which provider holds the hub, and why.

The command line decides, else host.json, else what the settings suggest: Azure Storage when a connection is configured
and its provider is installed, else a SQLite file in the app folder. The reason is printed, since people must be able to
tell where their instances are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from durable_host.config.known import AZURE_STORAGE_KEYS
from durable_host.errors import ConfigurationError
from durable_host.storage.contract import StorageProvider
from durable_host.storage.registry import find_provider, load_provider, provider_for_url

__all__ = ["StorageChoice", "choose_storage"]

_AZURE = "azureStorage"
_FILE = "host.json"
_TYPE = "extensions.durableTask.storageProvider.type"
_DEFAULT_CONNECTION = "AzureWebJobsStorage"
_CONNECTION = "connectionname"
_WITHOUT_CONNECTION = frozenset({"memory", "sqlite"})


@dataclass(frozen=True, slots=True)
class StorageChoice:
    """The chosen provider.

    Attributes:
        settings: keys of `storageProvider` that are meant for it.
        url: what the command line gave, if it was a URL.
        reason: why this one, as the rest of a sentence.
        ignored: keys of `storageProvider` that only Azure Storage has; they stay behind when an app moves elsewhere.
        automatic: nobody asked for it; another configuration would give another one.
    """

    provider: StorageProvider
    settings: Mapping[str, object]
    reason: str
    url: str | None = None
    automatic: bool = False
    ignored: tuple[str, ...] = ()


def choose_storage(
    *,
    override: str | None,
    storage_type: str | None,
    settings: Mapping[str, object],
    has_connection: Callable[[str], bool],
    named_by: str = _FILE,
) -> StorageChoice:
    """Choose the provider.

    Args:
        override: `--storage`: a provider's name or a URL.
        storage_type: `storageProvider.type` of host.json.
        settings: the other keys of `storageProvider`.
        has_connection: whether a connection of that name is configured.
        named_by: where `storage_type` comes from: `host.json`, or an environment variable.

    Raises:
        ConfigurationError: the name or the URL is not known; the text lists what is.
    """
    choice = _choose(override, storage_type, settings, has_connection, named_by)
    if choice.provider.name.lower() == _AZURE.lower():
        return choice
    foreign = AZURE_STORAGE_KEYS
    if storage_type is not None and choice.provider.name.lower() not in _WITHOUT_CONNECTION:
        # A type beside it says whose connection it is; otherwise the app comes from Azure.
        foreign -= {_CONNECTION}
    ignored = tuple(key for key in choice.settings if key.lower() in foreign)
    kept = {key: value for key, value in choice.settings.items() if key not in ignored}
    return replace(choice, settings=kept, ignored=ignored)


def _choose(
    override: str | None,
    storage_type: str | None,
    settings: Mapping[str, object],
    has_connection: Callable[[str], bool],
    named_by: str,
) -> StorageChoice:
    if override is not None:
        if ":" in override:
            provider = provider_for_url(override)
            url: str | None = override
        else:
            provider = load_provider(override, where="--storage")
            url = None
        same = storage_type is None or storage_type.lower() == provider.name.lower()
        return StorageChoice(provider, settings if same else {}, "--storage says so", url)
    if storage_type is not None:
        where = _TYPE if named_by == _FILE else f"{named_by} ({_TYPE})"
        return StorageChoice(load_provider(storage_type, where=where), settings, f"{named_by} says so")
    names = {key.lower(): value for key, value in settings.items()}
    connection = names.get("connectionname") or names.get("connectionstringname") or _DEFAULT_CONNECTION
    if isinstance(connection, str) and has_connection(connection):
        try:
            azure = find_provider(_AZURE)
        except ConfigurationError:  # its extra is not installed
            azure = None
        if azure is not None:
            return StorageChoice(azure, settings, f"{connection} is set", automatic=True)
        reason = f"host.json names none; {connection} is set, but no provider for Azure Storage is installed"
    else:
        reason = f"host.json names none and {connection} is not set"
    return StorageChoice(load_provider("sqlite"), settings, reason, automatic=True)
