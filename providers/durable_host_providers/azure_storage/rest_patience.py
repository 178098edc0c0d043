"""Asking again: after an answer that wants patience, and after none at all where that is harmless.

While a service asks for patience nobody sends it anything: requests wait at its gate instead of failing, and so the
whole process slows down. What got no answer is asked again only if it never left, or if doing it twice is as good as
once; the effect of anything else is unknown, and the caller decides.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from durable_host.environment import Environment
from durable_host.errors import StoreUnavailableError

from .ports import REQUEST_KINDS, ThrottledError
from .rest_answers import BeingDeletedError

__all__ = ["SAFE", "NotSentError", "Patience"]

T = TypeVar("T")
logger = logging.getLogger(__name__)

SAFE = frozenset(REQUEST_KINDS) - {
    *("queue.put", "queue.update", "queue.remove", "table.write", "table.transact", "blob.write", "blob.remove"),
    *("blob.change_lease", "blob.release_lease"),
}
"""Kinds that may be sent again when it is not known whether the first one arrived.

A message that is taken twice is two messages that stay invisible for a while, which the caller of a failed `get` must
expect anyway. Conditional writes are not safe: the second would meet the first.
"""

_UNSENT_TRIES = 4
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 8.0
_THROTTLED_S = 30.0
_BEING_DELETED_S = 90.0


class NotSentError(StoreUnavailableError):
    """The connection could not be opened, so nothing was done."""


class Patience:
    """The gates of an account's services, and how many requests were made."""

    def __init__(self, environment: Environment) -> None:
        self._ids = environment.ids
        self._open_at: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()  # leases are renewed on a thread of their own

    @property
    def requests(self) -> Mapping[str, int]:
        """How many requests were made so far by kind, repetitions included."""
        with self._lock:
            return dict(self._counts)

    async def run(self, kind: str, call: Callable[[], Awaitable[T]], *, safe: bool | None = None) -> T:
        """Make a request until it is answered, refused, or patience is used up.

        Args:
            kind: see `REQUEST_KINDS`; the part before the dot names the gate.
            call: one attempt; raises the port's errors.
            safe: whether it may be sent again after no answer; None: by its kind.
        """
        service = kind.partition(".")[0]
        again = kind in SAFE if safe is None else safe
        tries, waited = 0, 0.0
        while True:
            if service in self._open_at:
                await self._pass_gate(service)
            with self._lock:
                self._counts[kind] = self._counts.get(kind, 0) + 1
            try:
                return await call()
            except ThrottledError as error:
                wait = max(self._backoff(tries), error.retry_after or 0.0)
                being_deleted = isinstance(error, BeingDeletedError)
                if waited + wait > (_BEING_DELETED_S if being_deleted else _THROTTLED_S):
                    raise
                if not being_deleted:
                    self._close_gate(service, wait, error)
            except StoreUnavailableError as error:
                wait = self._backoff(tries)
                if tries + 1 >= _UNSENT_TRIES or not (again or isinstance(error, NotSentError)):
                    raise
            tries, waited = tries + 1, waited + wait
            await asyncio.sleep(wait)

    def _backoff(self, tries: int) -> float:
        return float(min(_FIRST_WAIT_S * 2**tries, _LONGEST_WAIT_S) * (0.5 + self._ids.uniform() / 2))

    def _close_gate(self, service: str, wait: float, error: ThrottledError) -> None:
        open_at = asyncio.get_running_loop().time() + wait
        if self._open_at.get(service, 0.0) < open_at:
            self._open_at[service] = open_at
            logger.warning(
                "Azure Storage asks for patience; requests to it wait",
                extra={"event": "storage_throttled", "service": service, "seconds": wait, "answer": str(error)},
            )

    async def _pass_gate(self, service: str) -> None:
        """Wait until the gate opens, and a bit longer, so that not everybody starts at once."""
        wait = self._open_at[service] - asyncio.get_running_loop().time()
        if wait > 0:
            await asyncio.sleep(wait * (1 + self._ids.uniform() / 2))
        else:
            self._open_at.pop(service, None)
