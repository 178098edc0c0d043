"""Renewal of every lease that the worker holds, on a thread of its own, and the watchdog.

The main loop may be blocked by a spinning orchestrator or by an `async` activity that calls something blocking. Work
that is held must not be lost to that, so leases are renewed from another thread with its own event loop. The same
thread notices when the main loop no longer answers and names the function that keeps it.

While nothing is held the thread sleeps without ticking: an idle worker costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from types import FrameType

from durable_host.environment import Clock
from durable_host.errors import StoreError
from durable_host.storage.contract import Lease
from durable_host.telemetry.metrics import Metrics

__all__ = ["HeldLease", "LeaseKeeper"]

logger = logging.getLogger(__name__)

_TICK = 0.25
_IDLE_TICKS = 20


class HeldLease:
    """A lease in the keeper's care; `lease` is always the newest grant, since renewing may change the token.

    Two grants of one key (the first ran out unnoticed) are two of these, so neither can speak for the other.
    """

    __slots__ = ("lease", "lost", "on_lost", "since")

    def __init__(self, lease: Lease, since: float, on_lost: Callable[[], None] | None) -> None:
        self.lease = lease
        self.since = since
        self.on_lost = on_lost
        self.lost = False


class LeaseKeeper:
    """Knows the leases that are held and keeps them alive.

    Args:
        renew: the store's `renew`.
        watchdog: the main loop blocked for longer is reported.
        thread: renew on a thread of its own; False runs on the main loop (simulation).
    """

    def __init__(
        self,
        renew: Callable[[Sequence[Lease]], Awaitable[Sequence[Lease | None]]],
        *,
        clock: Clock,
        watchdog: timedelta,
        metrics: Metrics,
        thread: bool = True,
    ) -> None:
        self._renew = renew
        self._clock = clock
        self._watchdog = watchdog.total_seconds()
        self._metrics = metrics
        self._own_thread = thread
        self._held: dict[HeldLease, None] = {}
        self._idle = True
        self._stopping = False
        self._main: asyncio.AbstractEventLoop | None = None
        self._main_thread = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._beat_sent: float | None = None
        self._reported = False

    def start(self) -> None:
        """Begin; called on the main loop."""
        self._main = asyncio.get_running_loop()
        self._main_thread = threading.get_ident()
        if not self._own_thread:
            self._loop = self._main
            self._wake = asyncio.Event()
            self._task = self._main.create_task(self._run(), name="durable-host-leases")
            return
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run_thread, args=(ready,), name="durable-host-leases", daemon=True)
        self._thread.start()
        ready.wait()

    async def stop(self) -> None:
        """End; leases still held run out unless they are abandoned."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        elif self._thread is not None and self._loop is not None and self._wake is not None:
            self._loop.call_soon_threadsafe(self._wake.set)
            thread = self._thread
            # The thread may be in a renewal that waits for the store; it is a daemon and does not keep the process.
            await asyncio.get_running_loop().run_in_executor(None, thread.join, 5.0)

    def hold(self, lease: Lease, on_lost: Callable[[], None] | None = None) -> HeldLease:
        """Keep a lease alive until `release`; `on_lost` is called on the main loop if it is gone before."""
        held = HeldLease(lease, self._clock.monotonic(), on_lost)
        self._held[held] = None
        if self._idle and self._loop is not None and self._wake is not None:
            self._idle = False
            if self._own_thread:
                self._loop.call_soon_threadsafe(self._wake.set)
            else:
                self._wake.set()
        return held

    def release(self, held: HeldLease) -> None:
        """Stop caring for a lease."""
        self._held.pop(held, None)

    def _run_thread(self, ready: threading.Event) -> None:
        loop = asyncio.new_event_loop()
        self._loop = loop
        self._wake = asyncio.Event()
        ready.set()
        try:
            loop.run_until_complete(self._run())
        finally:
            loop.close()

    async def _run(self) -> None:
        assert self._wake is not None
        quiet = 0
        while not self._stopping:
            if not self._held:
                quiet += 1
                if quiet > _IDLE_TICKS:
                    self._beat_sent = None
                    self._wake.clear()
                    self._idle = True
                    if not self._held:  # something may have been held between the check and the flag
                        await self._wake.wait()
                    self._idle = False
                    quiet = 0
                    continue
            else:
                quiet = 0
                await self._renew_due()
                if self._own_thread:
                    self._watch()
            await self._pause()

    async def _pause(self) -> None:
        """Wait for a tick, or for the end."""
        assert self._wake is not None
        self._wake.clear()
        if not self._stopping:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await self._wake.wait()

    async def _renew_due(self) -> None:
        now = self._clock.monotonic()
        due = [held for held in list(self._held) if now - held.since >= held.lease.remaining.total_seconds() / 3]
        if not due:
            return
        try:
            renewed = await self._renew([held.lease for held in due])
        except Exception as error:
            # Safe to go on, whatever it is: the next tick tries again, and a lease that runs out fails its checkpoint,
            # no more. Without this loop every lease would run out.
            logger.warning(
                "leases could not be renewed: %s",
                error,
                exc_info=None if isinstance(error, StoreError) else error,
                extra={"event": "renewal_failed", "leases": len(due)},
            )
            self._metrics.count("lease_renewal_errors")
            return
        self._metrics.count("leases_renewed", len(due))
        for held, lease in zip(due, renewed, strict=True):
            if held not in self._held:
                continue
            if lease is not None:
                held.lease, held.since = lease, now
                continue
            self._held.pop(held, None)
            held.lost = True
            self._metrics.count("leases_lost")
            key = held.lease.key
            logger.warning("the lease of %s was lost", key, extra={"event": "lease_lost", "key": key})
            if held.on_lost is not None and self._main is not None and not self._main.is_closed():
                self._main.call_soon_threadsafe(held.on_lost)

    def _watch(self) -> None:
        assert self._main is not None
        now = self._clock.monotonic()
        if self._beat_sent is None:
            self._beat_sent = now
            self._reported = False
            try:
                self._main.call_soon_threadsafe(self._answer)
            except RuntimeError:  # the main loop has been closed
                self._stopping = True
            return
        blocked = now - self._beat_sent
        if blocked >= self._watchdog and not self._reported:
            self._reported = True
            self._metrics.count("main_loop_blocked")
            frame = sys._current_frames().get(self._main_thread)  # pyright: ignore[reportPrivateUsage]
            logger.error(
                "the event loop has been blocked for %.1f s by %s. Orchestrators must not wait or compute for long; "
                "async activities must not call blocking functions: declare them with `def`, or use "
                "`asyncio.to_thread`.",
                blocked,
                _name_of(frame),
                extra={"event": "main_loop_blocked", "seconds": round(blocked, 1)},
            )

    def _answer(self) -> None:
        self._beat_sent = None


def _name_of(frame: FrameType | None) -> str:
    """The innermost function that is neither ours nor of an installed library, with file and line."""
    if frame is None:
        return "an unknown function"
    stack = traceback.extract_stack(frame)
    ours = f"{__name__.split('.', maxsplit=1)[0]}/"
    for entry in reversed(stack):
        path = entry.filename.replace("\\", "/")
        if f"/{ours}" in path or "/lib/python" in path or "site-packages" in path or path.startswith("<frozen"):
            continue
        return f"{entry.name} ({entry.filename}:{entry.lineno})"
    last = stack[-1]
    return f"{last.name} ({last.filename}:{last.lineno})"
