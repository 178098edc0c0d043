"""What an author sees of a traceback: their own frames, not how we called them nor what we did with their call."""

from __future__ import annotations

import os
from types import TracebackType

from durable_host.engine.callsites import is_own_file

__all__ = ["user_traceback"]

_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep
_INSTALLED = ("site-packages" + os.sep, "dist-packages" + os.sep)


def user_traceback(found: TracebackType | None) -> TracebackType | None:
    """The frames from the user's first to their last one; None when there is none of theirs.

    Frames of installed libraries that the user called stay, also at the end. What is cut off the end begins with a
    frame of ours: an exception that a decorator or the client raised has happened where they called it.
    """
    frames: list[TracebackType] = []
    while found is not None:
        frames.append(found)
        found = found.tb_next
    kept = [not is_own_file(each.tb_frame.f_code.co_filename) for each in frames]
    if True not in kept:
        return None
    first = kept.index(True)
    end = len(frames)
    for at in range(first, len(frames)):
        if not kept[at] and not any(_is_users(each) for each in frames[at + 1 :]):
            end = at
            break
    last: TracebackType | None = None
    for each in reversed(frames[first:end]):
        last = TracebackType(last, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return last


def _is_users(each: TracebackType) -> bool:
    file = each.tb_frame.f_code.co_filename
    if is_own_file(file) or file.startswith("<frozen "):
        return False
    return any(part in file for part in _INSTALLED) or not file.startswith(_STANDARD_LIBRARY)
