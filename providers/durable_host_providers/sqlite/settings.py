"""The settings of this provider: where the file is, and how it is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from durable_host.storage.contract import StorageOptions

__all__ = ["MEMORY", "Settings", "read_settings"]

MEMORY = ":memory:"

_SYNCHRONOUS = ("extra", "full", "normal", "off")
_KNOWN = ("busyTimeout", "leaseInterval", "path", "pollInterval", "synchronous")
_SPAN = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2}(?:\.\d+)?)")
_PREFIX = "extensions.durableTask.storageProvider"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a hub is opened with.

    Attributes:
        path: the database file; None: in memory, for this store object alone.
        synchronous: SQLite's pragma for what must be durable.
        busy: how long to wait for another process's write transaction.
        poll: how often a waiting store looks for what other processes wrote; zero: never.
    """

    hub: str
    path: Path | None
    location: str
    lease: timedelta
    app: str = ""
    worker: bool = True
    synchronous: str = "full"
    busy: timedelta = timedelta(seconds=5)
    poll: timedelta = timedelta(milliseconds=100)


def read_settings(options: StorageOptions) -> tuple[Settings, list[str]]:
    """The settings, and everything that is wrong with them; with problems, the defaults stand in."""
    problems: list[str] = []
    values = _lower(options.settings, problems)
    synchronous = values.get("synchronous", "full")
    if not isinstance(synchronous, str) or synchronous.lower() not in _SYNCHRONOUS:
        problems.append(f"{_PREFIX}.synchronous is {synchronous!r}; it must be one of: {', '.join(_SYNCHRONOUS)}.")
        synchronous = "full"
    path, location = _path(options, values.get("path"), problems)
    settings = Settings(
        hub=options.hub,
        path=path,
        location=location,
        lease=options.lease,
        app=options.app,
        worker=options.worker,
        synchronous=synchronous.lower(),
        busy=_duration(values, "busyTimeout", timedelta(seconds=5), problems),
        poll=_duration(values, "pollInterval", timedelta(milliseconds=100), problems),
    )
    return settings, problems


def _lower(settings: Mapping[str, object], problems: list[str]) -> dict[str, object]:
    known = {each.lower() for each in _KNOWN}
    for name in settings:
        if name.lower() not in known:
            problems.append(f"{_PREFIX}.{name} is not a setting of sqlite; its settings are: {', '.join(_KNOWN)}.")
    return {name.lower(): value for name, value in settings.items()}


def _duration(values: Mapping[str, object], name: str, default: timedelta, problems: list[str]) -> timedelta:
    value = values.get(name.lower(), default)
    if isinstance(value, timedelta):
        found = value
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 86_400:
        found = timedelta(seconds=value)
    elif isinstance(value, str) and (match := _SPAN.fullmatch(value)):
        days, hours, minutes, seconds = match.groups()
        found = timedelta(days=int(days or 0), hours=int(hours), minutes=int(minutes), seconds=float(seconds))
    else:
        problems.append(f"{_PREFIX}.{name} is {value!r}; it must be a time span such as '00:00:05', or seconds.")
        found = default
    return found


def _path(options: StorageOptions, setting: object, problems: list[str]) -> tuple[Path | None, str]:
    if options.url is not None:
        text, where = _of_url(options.url), "--storage"
        if text is None:
            problems.append(
                f"--storage is {options.url!r}; it must be sqlite:///file.db (in the app folder), "
                "sqlite:////folder/file.db or sqlite://:memory:."
            )
    elif setting is None:
        text, where = "", ""
    elif isinstance(setting, str) and setting.strip():
        text, where = setting, f"{_PREFIX}.path"
    else:
        text, where = "", ""
        problems.append(f"{_PREFIX}.path is {setting!r}; it must be a file name or {MEMORY!r}.")
    if text == MEMORY:
        return None, MEMORY
    if not text:
        if not options.hub or any(each in options.hub for each in '/\\:*?"<>|\0') or options.hub in {".", ".."}:
            problems.append(f"The hub name {options.hub!r} cannot be part of a file name; set {_PREFIX}.path.")
        text = f".durable/{options.hub}.db"
    if "\0" in text:
        problems.append(f"{where} is {text!r}; a file name holds no NUL character.")
        text = ".durable/invalid.db"
    path = options.folder / text
    if path.is_dir():
        problems.append(f"{where or 'The hub file'} is {text!r}, which is a folder; name a file.")
    return path, text


def _of_url(url: str) -> str | None:
    """The file that a URL names; None: it names none."""
    if url.lower() in {"sqlite", "sqlite:"}:
        return ""
    parts = urlsplit(url)
    if parts.scheme.lower() != "sqlite" or parts.query or parts.fragment:
        return None
    if parts.netloc:
        return MEMORY if parts.netloc == MEMORY and parts.path in {"", "/"} else None
    text = unquote(parts.path)
    return text[1:] or None if text.startswith("/") else text or None
