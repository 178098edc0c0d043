"""What the functions of the schema tell, row by row; see `migrations/0002_functions.sql`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "AT",
    "DELIVERIES",
    "EVENT",
    "EXECUTION",
    "GENERATION",
    "INSTANCE",
    "KIND",
    "LEASE",
    "LENGTH",
    "MESSAGE",
    "MESSAGE_EXECUTION",
    "REF",
    "SEQ",
    "STATUS",
    "VISIBLE_AT",
    "Answer",
    "Kind",
]

Answer = Sequence[Any]


class Kind:
    """The first column."""

    LOST = 1
    CHANGED = 2
    KNOWN = 3
    ARRIVED = 4
    WOKEN = 5
    ITEM = 6
    LATER = 7
    CREATED = 8
    RESTORED = 9
    TASK = 10
    CURRENT = 11
    WAITING = 12


(
    KIND,
    REF,
    LEASE,
    AT,
    INSTANCE,
    GENERATION,
    LENGTH,
    STATUS,
    EXECUTION,
    SEQ,
    MESSAGE,
    MESSAGE_EXECUTION,
    EVENT,
    VISIBLE_AT,
    DELIVERIES,
) = range(15)
