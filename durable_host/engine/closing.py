"""Let go of a generator or coroutine that stands in the middle of user code.

Python runs its `finally` blocks then, and raises GeneratorExit where it waits. User code may do anything with that:
raise something else, go on and wait again, never give up. None of it may reach the caller or, as a complaint about an
unraisable exception, standard error.
"""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["drop", "undead"]

logger = logging.getLogger(__name__)

_MOST_CLOSES = 100
undead: list[object] = []
"""What never gave up: collecting it would close it once more, and complain."""


def drop(code: Any) -> None:
    """Close it, again and again where it goes on to wait."""
    for _ in range(_MOST_CLOSES):
        if _close(code):
            return
    undead.append(code)


def _close(code: Any) -> bool:
    """Close a generator or coroutine once; False when it went on to wait for something."""
    try:
        code.close()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        logger.debug("orchestrator failed while it was closed: %r", error, extra={"event": "close_failed"})
    return getattr(code, "gi_frame", None) is None and getattr(code, "cr_frame", None) is None
