"""Work that a worker does not finish goes back to the store: when, and how late it may come again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

from durable_host.errors import StoreError
from durable_host.storage.contract import Lease, TaskHubStore

__all__ = ["GRACE", "back_off", "give_back"]

logger = logging.getLogger(__name__)

GRACE = 2.0
"""Seconds that what is being written has when the worker stops."""

_LONGEST = 600


def back_off(deliveries: int) -> timedelta:
    """How long work that failed so many times stays away: twice as long each time, up to ten minutes."""
    return timedelta(seconds=min(2 ** min(deliveries, 30), _LONGEST))


async def give_back(store: TaskHubStore, leases: Sequence[Lease], *, delay: timedelta) -> None:
    """Abandon leases; never fails, since one that cannot be given back runs out by itself."""
    if not leases:
        return
    try:
        await store.abandon(leases, delay=delay)
    except StoreError as error:
        logger.debug("%d leases could not be given back and will run out: %s", len(leases), error)
    except Exception:
        logger.exception("giving back leases failed", extra={"event": "abandon_failed", "leases": len(leases)})
