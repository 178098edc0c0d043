"""Health for load balancers and orchestrators: `/health/live` and `/health/ready`.

*Live* says that the process answers at all. *Ready* proves that the store can be read and written, and says why not. A
check that is under way is shared by all who ask, so that probes cannot pile up on a store that is in trouble.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from durable_host.http.messages import NOT_FOUND, Answer, Request, json_answer

__all__ = ["Health", "alive", "unready"]

_NO_STORE = ("Cache-Control", "no-store")
_TIMEOUT = 5.0


class Health:
    """Answers both probes.

    Args:
        check: raises when the store cannot be used (`TaskHubStore.check`).
        unready: why the host cannot take work apart from its store, for example while it stops; None: it can.
    """

    def __init__(self, check: Callable[[], Awaitable[None]], unready: Callable[[], str | None] = lambda: None) -> None:
        self._check = check
        self._unready = unready
        self._running: asyncio.Future[str | None] | None = None

    async def handle(self, request: Request) -> Answer:
        """`GET` or `HEAD` of one of the two paths."""
        if request.method not in {"GET", "HEAD"}:
            return NOT_FOUND
        match request.path.rstrip("/").lower():
            case "/health/live":
                return alive()
            case "/health/ready":
                reason = self._unready()
                store = None if reason is not None else await self._store()
                if reason is None and store is None:
                    return json_answer(200, {"status": "ready", "checks": {"store": "ok"}}, _NO_STORE)
                if reason is not None:
                    return unready(reason)
                return json_answer(
                    503, {"status": "unready", "reason": store, "checks": {"store": "failed"}}, _NO_STORE
                )
            case _:
                return NOT_FOUND

    async def _store(self) -> str | None:
        while self._running is not None:
            # Somebody asks already. If their connection breaks, the check is ours to make.
            try:
                return await asyncio.shield(self._running)
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
        running = self._running = asyncio.get_running_loop().create_future()
        try:
            result = await self._judged()
        except BaseException:
            running.cancel()
            raise
        else:
            running.set_result(result)
            return result
        finally:
            self._running = None

    async def _judged(self) -> str | None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._check()
        except TimeoutError:
            return f"The store did not answer within {_TIMEOUT:.0f} seconds."
        except Exception as error:  # whatever it is, the probe has to say it
            return str(error) or type(error).__name__
        return None


def alive() -> Answer:
    """The answer to a liveness probe."""
    return json_answer(200, {"status": "alive"}, _NO_STORE)


def unready(reason: str) -> Answer:
    """The answer to a readiness probe while the host cannot take work."""
    return json_answer(503, {"status": "unready", "reason": reason, "checks": {}}, _NO_STORE)
