"""Which files make a running app start again, and whether one of them has changed.

A look at the folder every few hundred milliseconds compares times and sizes. That needs nothing installed, works on
every file system, and costs well under a millisecond for the handful of files an app has: virtual environments, caches,
hidden folders and `node_modules` are left out.

Source: functions-host.md 11.5.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

__all__ = ["changes", "snapshot"]

_SKIPPED = frozenset({"__pycache__", "node_modules", "venv", "env", "site-packages"})
_FILES = frozenset({"host.json", "local.settings.json", "function.json"})

Snapshot = Mapping[str, tuple[int, int]]


def snapshot(
    folder: Path, *, host_json: Path | None, files: Collection[str] = (), directories: Collection[str] = ()
) -> Snapshot:
    """Time and size of every file that counts.

    Args:
        host_json: the file in effect, which may lie above the folder.
        files: more names of files, anywhere in the app.
        directories: names of folders of the app, every file of which counts.
    """
    names = _FILES | frozenset(files)
    whole = frozenset(directories)
    found: dict[str, tuple[int, int]] = {}
    pending = [(str(folder), True, False)]
    while pending:
        at, is_root, everything = pending.pop()
        try:
            with os.scandir(at) as entries:
                listed = list(entries)
        except OSError:
            continue  # it has just been removed, or may not be read
        if not is_root and any(each.name == "pyvenv.cfg" for each in listed):
            continue
        for each in listed:
            try:
                if each.is_dir(follow_symlinks=False):
                    if (everything or not _is_skipped(each.name)) or each.name in whole:
                        pending.append((each.path, False, everything or (is_root and each.name in whole)))
                elif everything or each.name.endswith(".py") or each.name in names:
                    status = each.stat()
                    found[each.path] = (status.st_mtime_ns, status.st_size)
            except OSError:
                continue
    if host_json is not None:
        try:
            status = host_json.stat()
            found[str(host_json)] = (status.st_mtime_ns, status.st_size)
        except OSError:
            pass
    return found


def changes(before: Snapshot, now: Snapshot) -> list[tuple[str, str]]:
    """What happened, as (`Created` | `Changed` | `Deleted`, path), in the order of paths."""
    happened = [("Created", path) for path in now if path not in before]
    happened += [("Deleted", path) for path in before if path not in now]
    happened += [("Changed", path) for path in now if path in before and now[path] != before[path]]
    return sorted(happened, key=lambda each: each[1])


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name in _SKIPPED
