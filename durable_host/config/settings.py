"""App settings: the process environment over `local.settings.json`, `%NAME%`, and connections.

Names are compared without case, and `__` in a name means `:`, as in Azure. `local.settings.json` is the command line's:
its values are exported to the environment unless they are defined there already, so that the app's own `os.environ`
sees them.

Source: functions-host.md 1.10 to 1.13.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path

from durable_host.config.jsonc import Json, JsonFileError, read_json_file
from durable_host.config.tree import OVERRIDE_PREFIX

__all__ = ["Connection", "LocalSettings", "Settings", "export", "load_local_settings", "resolve_percent"]

_FILE = "local.settings.json"


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """What a `local.settings.json` says.

    Attributes:
        values: to be exported, as texts; connection strings under `ConnectionStrings__<name>`.
        port, address: of `Host`, defaults for the command line.
        warnings: what was left out and why.
    """

    path: Path | None = None
    values: Mapping[str, str] = field(default_factory=dict[str, str])
    port: int | None = None
    address: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection of the settings: a connection string, or the parts of an identity-based one.

    Attributes:
        name: the section it was found under, for example `AzureWebJobsStorage`.
        text: the connection string; None where the section has parts only.
        parts: sub-keys in lower case, for example `accountname`.
    """

    name: str
    text: str | None
    parts: Mapping[str, str]


class Settings:
    """Looks up app settings, without case. Reads the mapping at each call, so a changed environment is seen."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def get(self, name: str) -> str | None:
        """The value of a setting, or None."""
        found = self._environ.get(name)
        if found is not None:
            return found
        wanted = _key(name)
        return next((value for key, value in self._environ.items() if _key(key) == wanted), None)

    def resolve(self, text: str) -> str:
        """The text with each `%NAME%` replaced. Raises ValueError as `resolve_percent`."""
        return resolve_percent(text, self.get)

    def connection(self, name: str) -> Connection | None:
        """The connection of that name, empty meaning `Storage`; None: nothing is configured.

        Candidates, first that exists: `ConnectionStrings:AzureWebJobsX`, `AzureWebJobsX`, `ConnectionStrings:X`, `X`.
        """
        name = name.strip() or "Storage"
        prefixed = name if name.lower().startswith("azurewebjobs") else f"AzureWebJobs{name}"
        folded = {_key(key): value for key, value in self._environ.items()}
        candidates = dict.fromkeys((f"ConnectionStrings:{prefixed}", prefixed, f"ConnectionStrings:{name}", name))
        for section in candidates:
            key = _key(section)
            parts = {each[len(key) + 1 :]: value for each, value in folded.items() if each.startswith(f"{key}:")}
            text = folded.get(key) or None
            if text is not None or parts:
                return Connection(section, text, {} if text is not None else parts)
        return None


def resolve_percent(text: str, setting: Callable[[str], str | None]) -> str:
    """Replace each `%NAME%` in a text by that setting.

    Raises:
        ValueError: a `%` is not closed, or a setting does not exist; the text is Azure's.
    """
    parts: list[str] = []
    at = 0
    while True:
        start = text.find("%", at)
        if start < 0:
            parts.append(text[at:])
            return "".join(parts)
        end = text.find("%", start + 1)
        if end < 0:
            raise ValueError(f"The '%' at position {start} does not have a closing '%'")
        name = text[start + 1 : end]
        value = setting(name)
        if value is None:
            raise ValueError(f"'%{name}%' does not resolve to a value.")
        parts += (text[at:start], value)
        at = end + 1


def load_local_settings(*folders: Path) -> LocalSettings:
    """Read the `local.settings.json` of the first folder that has one.

    A file that cannot be read is a warning and no settings, as in Azure.
    """
    for folder in folders:
        path = folder / _FILE
        if path.is_file():
            break
    else:
        return LocalSettings()
    try:
        document = read_json_file(path)
    except (JsonFileError, OSError) as error:
        return LocalSettings(path, warnings=(_unreadable(path, str(error)),))
    if not isinstance(document, dict):
        return LocalSettings(path, warnings=(_unreadable(path, "it does not hold an object"),))
    sections = {key.lower(): value for key, value in document.items()}
    warnings: list[str] = []
    if sections.get("isencrypted") is True:
        warnings.append(
            f"'{path}' is encrypted, which cannot be read here; its values are not used. "
            "Run `func settings decrypt` in that folder."
        )
        return LocalSettings(path, warnings=tuple(warnings))
    values = _values(sections.get("values"), warnings)
    values.update(_connection_strings(sections.get("connectionstrings"), warnings))
    host = {key.lower(): value for key, value in _object(sections.get("host")).items()}
    port = host.get("localhttpport")
    if isinstance(port, str) and port.strip().isdigit():
        port = int(port)
    if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535):
        warnings.append(f"'{path}': Host.LocalHttpPort is {port!r}, which is no port; it is not used.")
        port = None
    address = host.get("localhttpaddress")
    return LocalSettings(
        path=path,
        values=values,
        port=port,
        address=address if isinstance(address, str) and address.strip() else None,
        warnings=tuple(warnings),
    )


def export(local: LocalSettings, environ: MutableMapping[str, str]) -> list[str]:
    """Put the values into the environment unless they are defined there; returns what was skipped, as sentences."""
    present = {_key(each) for each in environ}
    skipped: list[str] = []
    for name, value in local.values.items():
        if _key(name) in present:
            if not name.lower().startswith(f"{OVERRIDE_PREFIX}__".lower()) or environ.get(name) != value:
                skipped.append(
                    f"Skipping '{name}' from local settings as it's already defined in current environment variables."
                )
        else:
            environ[name] = value
    return skipped


def _values(section: Json, warnings: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in _object(section).items():
        if not name:
            warnings.append("Skipping local setting with empty key.")
        elif value is None:
            warnings.append(f"Skipping '{name}' because value is null")
        elif isinstance(value, (dict, list)):
            warnings.append(f"Skipping '{name}' because its value is no text.")
        elif "=" in name or "\0" in name or "\0" in str(value):
            warnings.append(f"Skipping '{name}' because it cannot be an environment variable.")
        elif isinstance(value, str) and value.strip().lower().startswith("@microsoft.keyvault("):
            warnings.append(f"Skipping '{name}' because Key Vault references are not resolved here.")
        else:
            values[name] = ("true" if value else "false") if isinstance(value, bool) else str(value)
    return values


def _connection_strings(section: Json, warnings: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, entry in _object(section).items():
        folded = {key.lower(): each for key, each in entry.items()} if isinstance(entry, dict) else {}
        value = folded.get("connectionstring") if folded else entry
        if isinstance(value, str) and name and "=" not in name:
            values[f"ConnectionStrings__{name}"] = value
        else:
            warnings.append(f"Skipping connection string '{name}' because it has no text.")
    return values


def _object(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _unreadable(path: Path, why: str) -> str:
    return f"Failed to read app settings file at '{path}'. Ensure it is a valid JSON file. ({why})"


def _key(name: str) -> str:
    return name.replace("__", ":").lower()
