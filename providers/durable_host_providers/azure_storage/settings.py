"""`storageProvider` of host.json for Azure Storage. Source: azure-storage-task-hub.md 7.2, same names and defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import unquote, urlsplit

import msgspec

from durable_host.storage.contract import StorageOptions
from durable_host_providers.azure_storage.layout import Layout
from durable_host_providers.azure_storage.partitions import ManagerKind
from durable_host_providers.azure_storage.wire.names import hub_name_problem

__all__ = ["AzureSettings", "Configured", "read_settings"]

_PREFIX = "extensions.durableTask.storageProvider"
_SPAN = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2}(?:\.\d+)?)")
_KNOWN = (
    "allowReplayingTerminalInstances",
    "connectionName",
    "connectionStringName",
    "controlQueueBatchSize",
    "controlQueueBufferThreshold",
    "controlQueueVisibilityTimeout",
    "fetchLargeMessagesAutomatically",
    "leaseInterval",
    "maxQueuePollingInterval",
    "partitionCount",
    "partitionTableOperationTimeout",
    "queueClientMessageEncoding",
    "trackingStoreConnectionName",
    "trackingStoreConnectionStringName",
    "trackingStoreNamePrefix",
    "useInstanceTableEtag",
    "useLegacyPartitionManagement",
    "useTablePartitionManagement",
    "workItemQueueVisibilityTimeout",
)
_TRACKING = "DurableTask"


class AzureSettings(msgspec.Struct, frozen=True):
    """How this host uses a hub.

    Attributes:
        batch_size: messages of one look into a control queue.
        buffer_threshold: no look into a control queue while so many instances wait in memory.
        control_visibility_s, work_item_visibility_s: how long what was fetched is nobody else's, unless renewed.
        hand_over_s: the same for what this process put for itself.
        max_polling: longest pause between two looks into a queue.
        base64: write queue texts in Base64, as older workers need it.
        known: of how many instances the last committed position is remembered.
    """

    layout: Layout
    batch_size: int = 32
    buffer_threshold: int = 256
    control_visibility_s: int = 300
    work_item_visibility_s: int = 300
    hand_over_s: int = 30
    max_polling: timedelta = timedelta(seconds=30)
    base64: bool = False
    known: int = 10_000


class Configured(msgspec.Struct, frozen=True):
    """Everything that host.json says about the provider.

    Attributes:
        connection: name of the setting that holds the account.
        tracking: the same for tables and blobs, where they have an account of their own.
        time_limit: of one look at the Partitions table.
    """

    settings: AzureSettings
    connection: str
    tracking: str | None
    manager: ManagerKind
    time_limit: timedelta


def read_settings(options: StorageOptions) -> tuple[Configured, list[str]]:
    """The settings, and everything that is wrong with them; with problems, the defaults stand in."""
    problems: list[str] = []
    reader = _Reader(options.settings, problems)
    tracking = reader.text("trackingStoreConnectionName") or reader.text("trackingStoreConnectionStringName")
    prefix = reader.text("trackingStoreNamePrefix") or _TRACKING
    for path, name in (("extensions.durableTask.hubName", options.hub), (f"{_PREFIX}.trackingStoreNamePrefix", prefix)):
        problem = hub_name_problem(name)
        if problem is not None:
            problems.append(f"{path} is {name!r}: {problem}.")
    layout = Layout(options.hub, reader.number("partitionCount", 4, 1, 16), prefix if tracking else None)
    settings = AzureSettings(
        layout,
        batch_size=reader.number("controlQueueBatchSize", 32, 1, 32),
        buffer_threshold=reader.number("controlQueueBufferThreshold", 256, 1, 1_000),
        control_visibility_s=reader.seconds("controlQueueVisibilityTimeout", 300, 60, 3_600),
        work_item_visibility_s=reader.seconds("workItemQueueVisibilityTimeout", 300, 60, 3_600),
        max_polling=reader.span("maxQueuePollingInterval", timedelta(seconds=30), timedelta(milliseconds=50)),
        base64=reader.choice("queueClientMessageEncoding", ("UTF8", "Base64")) == "Base64",
    )
    # Without effect, but a value that is none is told: an address in the place of an input could not be restarted from.
    reader.flag("fetchLargeMessagesAutomatically", True)
    connection = reader.text("connectionName") or reader.text("connectionStringName") or "AzureWebJobsStorage"
    if options.url is not None:
        connection = _of_url(options.url, problems) or connection
    manager = ManagerKind.chosen(
        use_table=reader.flag("useTablePartitionManagement", True),
        use_legacy=reader.flag("useLegacyPartitionManagement", False),
    )
    limit = reader.span("partitionTableOperationTimeout", timedelta(seconds=2), timedelta(milliseconds=100))
    return Configured(settings, connection, tracking, manager, limit), problems


def _of_url(url: str, problems: list[str]) -> str | None:
    parts = urlsplit(url)
    if parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        problems.append(
            f"--storage must be azureStorage:// and perhaps the name of the setting that holds the connection, not "
            f"the connection itself, for example {parts.scheme}://AzureWebJobsStorage."
        )
        return None
    return unquote(parts.netloc) or None


class _Reader:
    """Reads keys without regard to case, and collects what is wrong."""

    def __init__(self, settings: Mapping[str, object], problems: list[str]) -> None:
        self._problems = problems
        self._values = {name.lower(): value for name, value in settings.items()}
        known = {each.lower() for each in _KNOWN}
        for name in settings:
            if name.lower() not in known:
                text = f"is not a setting of azureStorage; its settings are: {', '.join(_KNOWN)}."
                problems.append(f"{_PREFIX}.{name} {text}")

    def _wrong(self, name: str, value: object, what: str) -> None:
        self._problems.append(f"{_PREFIX}.{name} is {value!r}; it must be {what}.")

    def text(self, name: str) -> str | None:
        value = self._values.get(name.lower())
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        if not isinstance(value, str):
            self._wrong(name, value, "a text")
            return None
        return value.strip()

    def flag(self, name: str, default: bool) -> bool:
        value = self._values.get(name.lower(), default)
        if isinstance(value, str) and value.lower() in {"true", "false"}:
            return value.lower() == "true"
        if not isinstance(value, bool):
            self._wrong(name, value, "true or false")
            return default
        return value

    def number(self, name: str, default: int, least: int, most: int) -> int:
        value = self._values.get(name.lower(), default)
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self._wrong(name, value, f"a whole number from {least} to {most}")
            return default
        return value

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        value = self._values.get(name.lower(), choices[0])
        for each in choices:
            if isinstance(value, str) and value.lower() == each.lower():
                return each
        self._wrong(name, value, f"one of: {', '.join(choices)}")
        return choices[0]

    def span(self, name: str, default: timedelta, least: timedelta, most: timedelta = timedelta(days=1)) -> timedelta:
        value = self._values.get(name.lower(), default)
        found: timedelta | None = None
        if isinstance(value, timedelta):
            found = value
        elif isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 86_400:
            found = timedelta(seconds=value)
        elif isinstance(value, str) and (match := _SPAN.fullmatch(value)):
            days, hours, minutes, seconds = match.groups()
            found = timedelta(days=int(days or 0), hours=int(hours), minutes=int(minutes), seconds=float(seconds))
        if found is None or not least <= found <= most:
            self._wrong(name, value, f"a time span such as '00:00:30', from {least} to {most}")
            return default
        return found

    def seconds(self, name: str, default: int, least: int, most: int) -> int:
        span = self.span(name, timedelta(seconds=default), timedelta(seconds=least), timedelta(seconds=most))
        return int(span.total_seconds())
