"""Who runs a server that refuses to run as root, and where its files can be so that it reaches them."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Account", "give", "is_reachable", "server_account", "server_folder"]

_CANDIDATES = ("postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """What `subprocess.Popen` takes to run a process as this account; all None for whoever runs the tests."""

    user: int | None = None
    group: int | None = None
    extra_groups: tuple[int, ...] | None = None


def server_account() -> Account:
    """Whoever runs the tests, or somebody without rights when that is root."""
    if os.geteuid() != 0:
        return Account()
    for name in _CANDIDATES:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(found.pw_uid, found.pw_gid, ())
    raise AssertionError(f"the tests run as root, and there is none of the accounts {', '.join(_CANDIDATES)}")


def server_folder(prefix: str, account: Account) -> Path:
    """A new temporary folder that belongs to the account; pytest's own are closed to others."""
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if account.user is None or is_reachable(Path(parent)):
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            give(folder, account)
            return folder
    raise AssertionError("no temporary folder can be reached by an account other than root")


def give(path: Path, account: Account) -> None:
    """Make the account the owner of a file or folder."""
    if account.user is not None:
        shutil.chown(path, account.user, account.group)


def is_reachable(path: Path) -> bool:
    """Whether everybody may enter the folder and read what is there."""
    return all(each.stat().st_mode & 0o001 for each in (path, *path.parents))
