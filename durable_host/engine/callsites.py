"""Where in the user's code something happened. Calls are noted cheaply, and only while replaying.

A code object and an instruction's offset are two references; the line is worked out when a report needs it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import CodeType

__all__ = ["CallSite", "caller_site", "is_own_file", "spell_site", "user_traceback"]

CallSite = tuple[CodeType, int]
"""A code object and the offset of the instruction that was running."""

_PACKAGE = str(Path(__file__).parent.parent) + os.sep
_DRIVER = str(Path(__file__).parent / "replay.py")


def is_own_file(filename: str) -> bool:
    """Whether a source file belongs to this package."""
    return filename.startswith(_PACKAGE)


def caller_site() -> CallSite | None:
    """The innermost frame of the user that led here; None if the driver did, applying an event."""
    frame = sys._getframe(2)  # pyright: ignore[reportPrivateUsage] - inspect.stack() reads source files
    while True:
        code = frame.f_code
        filename = code.co_filename
        if filename == _DRIVER:
            return None
        if not filename.startswith(_PACKAGE):
            return code, frame.f_lasti
        if frame.f_back is None:
            return None
        frame = frame.f_back


def spell_site(site: CallSite | None) -> str:
    """`file:line in function`, or an empty text."""
    if site is None:
        return ""
    code, offset = site
    line: int | None = None
    for at, (start, *_) in enumerate(code.co_positions()):
        if at * 2 > offset:
            break
        line = start if start is not None else line
    return f"{code.co_filename}:{line or code.co_firstlineno} in {code.co_qualname}"


def user_traceback(error: BaseException) -> None:
    """Cut the frames of this package off the beginning of the exception's traceback."""
    frame = error.__traceback__
    while frame is not None and is_own_file(frame.tb_frame.f_code.co_filename):
        frame = frame.tb_next
    if frame is not None:
        error.__traceback__ = frame
