"""The settings of this provider: which database, which schema, how many connections."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from durable_host.storage.contract import StorageOptions

__all__ = ["Settings", "read_settings"]

_KNOWN = ("connectionName", "leaseInterval", "maxConnections", "pollInterval", "schema")
_SCHEMES = ("postgres", "postgresql")
_SPAN = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2}(?:\.\d+)?)")
_PREFIX = "extensions.durableTask.storageProvider"
_EXAMPLE = "postgresql://user:password@host:5432/database"
_DEFAULT_CONNECTION = "POSTGRES_CONNECTION_STRING"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a hub is opened with.

    Attributes:
        dsn: the connection string, with its password: neither logged nor shown.
        location: where the hub is, without user and password.
        poll: how often a waiting store looks even if nobody told it to.
        connections: most connections for work and questions; one more listens.
    """

    hub: str
    dsn: str
    location: str
    lease: timedelta
    schema: str = "durable_host"
    app: str = ""
    worker: bool = True
    poll: timedelta = timedelta(seconds=5)
    connections: int = 6

    def __repr__(self) -> str:  # the password must not get into a log by way of a traceback
        return f"Settings(hub={self.hub!r}, location={self.location!r})"


def read_settings(options: StorageOptions) -> tuple[Settings, list[str]]:
    """The settings, and everything that is wrong with them; with problems, the defaults stand in."""
    problems: list[str] = []
    values = _lower(options.settings, problems)
    dsn = _connection(options, values, problems)
    parts, in_url = _without_ours(dsn)
    schema = in_url.get("schema", values.get("schema", "durable_host"))
    if not isinstance(schema, str) or not 0 < len(schema.encode("utf-8", "replace")) <= 63 or "\0" in schema:
        problems.append(f"{_PREFIX}.schema is {schema!r}; it must be a name of 1 to 63 bytes.")
        schema = "durable_host"
    connections = values.get("maxconnections", 6)
    if not isinstance(connections, int) or isinstance(connections, bool) or not 2 <= connections <= 1000:
        problems.append(f"{_PREFIX}.maxConnections is {connections!r}; it must be a whole number from 2 to 1000.")
        connections = 6
    settings = Settings(
        hub=options.hub,
        dsn=parts,
        location=_location(parts, schema, options.hub),
        lease=options.lease,
        schema=schema,
        app=options.app,
        worker=options.worker,
        poll=_duration(values, "pollInterval", timedelta(seconds=5), problems),
        connections=connections,
    )
    return settings, problems


def _lower(settings: Mapping[str, object], problems: list[str]) -> dict[str, object]:
    known = {each.lower() for each in _KNOWN}
    for name in settings:
        if name.lower() not in known:
            problems.append(f"{_PREFIX}.{name} is not a setting of postgres; its settings are: {', '.join(_KNOWN)}.")
    return {name.lower(): value for name, value in settings.items()}


def _connection(options: StorageOptions, values: Mapping[str, object], problems: list[str]) -> str:
    """The connection string; problems name where it comes from and never tell what it is."""
    name = values.get("connectionname", _DEFAULT_CONNECTION)
    if options.url is not None and ":" in options.url and len(options.url.partition(":")[2]) > 0:
        dsn, where = options.url, "--storage"
    elif not isinstance(name, str) or not name.strip():
        problems.append(
            f"{_PREFIX}.connectionName is {name!r}; it must be the name of a setting that holds a connection string."
        )
        return ""
    else:
        found = options.setting(name)
        where = f"The setting {name!r}"
        if found is None or not found.strip():
            problems.append(
                f"{where}, which {_PREFIX}.connectionName names, is not set; set it to a connection string such as "
                f"{_EXAMPLE}, or start with --storage {_EXAMPLE}."
            )
            return ""
        dsn = found.strip()
    if "#" in dsn:
        problems.append(f"{where} holds a '#'; in a user name or password write it as %23.")
        return ""
    try:
        parts = urlsplit(dsn)
        for place in parts.netloc.rpartition("@")[2].split(","):  # one server, or several to be tried in turn
            _ = urlsplit(f"//{place}").port
    except ValueError:
        parts = None
    if parts is None or parts.scheme.lower() not in _SCHEMES or "\0" in dsn:
        problems.append(f"{where} is not a connection string of PostgreSQL; it must look like {_EXAMPLE}.")
        return ""
    return dsn


def _without_ours(dsn: str) -> tuple[str, dict[str, str]]:
    """The connection string for the driver, and what it says to us."""
    if not dsn:
        return "", {}
    parts = urlsplit(dsn)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    ours = {name: value for name, value in pairs if name == "schema"}
    if not ours:
        return dsn, {}
    rest = urlencode([pair for pair in pairs if pair[0] not in ours], quote_via=quote)
    return urlunsplit(parts._replace(query=rest)), ours


def _location(dsn: str, schema: str, hub: str) -> str:
    if not dsn:
        return "postgresql:"
    parts = urlsplit(dsn)
    places = parts.netloc.rpartition("@")[2]
    if not places:
        places = dict(parse_qsl(parts.query)).get("host", "")
    database = unquote(parts.path.lstrip("/"))
    return f"postgresql://{places}/{database}, schema {schema}, hub {hub}"


def _duration(values: Mapping[str, object], name: str, default: timedelta, problems: list[str]) -> timedelta:
    value = values.get(name.lower(), default)
    found: timedelta | None = None
    if isinstance(value, timedelta):
        found = value
    elif isinstance(value, int | float) and not isinstance(value, bool) and value <= 86_400:
        found = timedelta(seconds=value)
    elif isinstance(value, str) and (match := _SPAN.fullmatch(value)):
        days, hours, minutes, seconds = match.groups()
        found = timedelta(days=int(days or 0), hours=int(hours), minutes=int(minutes), seconds=float(seconds))
    if found is None or not timedelta(milliseconds=10) <= found <= timedelta(days=1):
        problems.append(f"{_PREFIX}.{name} is {value!r}; it must be a time span such as '00:00:05', or seconds.")
        return default
    return found
