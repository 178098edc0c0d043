"""Proof of life: every store that processes work holds a locked file, and a lock that is free tells that it is gone.

The operating system lets go of a lock when its process ends, however it ends; so the leases of a killed process are
taken over at once instead of when they end. One file per owner, locked as a whole with `flock` (on Windows
`msvcrt.locking`): unlike POSIX record locks it belongs to this opening of the file, not to the process, so that two
stores in one process see each other, and no other part of the process can drop it by closing some file.

A process forked without exec keeps the lock alive with it; its parent's leases then end in their time.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from pathlib import Path

__all__ = ["OwnerFile", "Turn", "is_alive", "remove_folder", "remove_orphans"]

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


_SUFFIX = ".lock"
_TURN = "turn"


class OwnerFile:
    """A lock file that is held until `close`."""

    def __init__(self, folder: Path, name: str) -> None:
        """Make and lock the file `name`; the folder is made if it is not there."""
        folder.mkdir(exist_ok=True)
        self.name = name + _SUFFIX
        self._path = folder / self.name
        while True:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                # Between the two calls somebody may have taken the file for an orphan and removed it.
                if _try_lock(self._descriptor) and self._is_ours():
                    return
            except BaseException:
                os.close(self._descriptor)
                raise
            os.close(self._descriptor)

    def _is_ours(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except OSError:
            return False

    def stands(self) -> bool:
        """Whether others still find the file; without it they take this owner for dead."""
        return self._is_ours()

    def close(self) -> None:
        """Remove the file and let go of the lock."""
        _remove(self._path)
        os.close(self._descriptor)


class Turn:
    """The right to be the next who writes.

    SQLite lets in whoever asks in the right moment, and that is nearly always the process that has just let go: of two
    busy processes one would wait for half a second. Who holds the turn asks first; who has written queues up again.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder / _TURN, os.O_RDWR | os.O_CREAT, 0o666)
        self._close = weakref.finalize(self, os.close, self._descriptor)

    def take(self) -> bool:
        """Take the turn if nobody has it."""
        return _try_lock(self._descriptor)

    def give(self) -> None:
        """Let the next one have it."""
        _unlock(self._descriptor)

    def close(self) -> None:
        """Forget about it."""
        self._close()


def remove_folder(folder: Path) -> None:
    """Remove the folder of a hub that is deleted, unless somebody lives there."""
    remove_orphans(folder)
    _remove(folder / _TURN)
    with contextlib.suppress(OSError):
        folder.rmdir()


def is_alive(folder: Path, name: str) -> bool:
    """Whether somebody holds the file; a file that nobody holds is removed."""
    path = folder / name
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # another user's file, say: its leases end in their time
    try:
        if not _try_lock(descriptor):
            return True
        _remove(path)
        return False
    except OSError:
        return True  # a file system without locks: leases end in their time
    finally:
        os.close(descriptor)


def remove_orphans(folder: Path) -> None:
    """Remove the files of owners that are gone."""
    with contextlib.suppress(OSError):
        for entry in os.listdir(folder):
            if entry.endswith(_SUFFIX):
                is_alive(folder, entry)


def _remove(path: Path) -> None:
    # Windows does not remove an open file; it is removed by whoever looks next.
    with contextlib.suppress(OSError):
        os.unlink(path)
