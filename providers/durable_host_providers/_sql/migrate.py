"""Versions of a hub's tables.

A migration is a script that brings the tables from one version to the next; they are numbered from 1 without gaps.
What applies them, and where the version is kept, is the store's: it takes a lock that keeps other processes out, asks
`pending` and runs the scripts in the same transaction, so that a hub is at one version or at the next, never between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from durable_host.errors import StoreMismatchError

__all__ = ["Migration", "load_migrations", "pending"]


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: the statements that lead to `version`, and the script they come from."""

    version: int
    statements: tuple[str, ...]
    script: str


def load_migrations(package: str) -> Sequence[Migration]:
    """Read `0001_….sql`, `0002_….sql`, … of a package, in order.

    Raises:
        ValueError: the numbers do not run from 1 without gaps.
    """
    names = sorted(each.name for each in files(package).iterdir() if each.name.endswith(".sql"))
    scripts = {name: files(package).joinpath(name).read_text("utf-8") for name in names}
    found = [Migration(int(name.split("_", 1)[0]), _statements(text), text) for name, text in scripts.items()]
    if [each.version for each in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"{package}: migrations are numbered {[each.version for each in found]}")
    return found


def pending(migrations: Sequence[Migration], version: int, where: str) -> Sequence[Migration]:
    """The steps that a hub at this version lacks.

    Raises:
        StoreMismatchError: the hub is newer than this code.
    """
    newest = migrations[-1].version
    if version > newest:
        raise StoreMismatchError(
            f"{where} has tables of version {version}, and this durable-host knows versions up to {newest}: it was "
            "written by a newer durable-host. Install that version, or use another hub."
        )
    return migrations[version:]


def _statements(script: str) -> tuple[str, ...]:
    # Scripts are ours: a semicolon at the end of a line ends a statement.
    lines = [line for line in script.splitlines() if line.strip() and not line.lstrip().startswith("--")]
    return tuple(part.strip() for part in "\n".join(lines).split(";\n") if part.strip().rstrip(";"))
