"""Watches on one loop: futures that are told of changes of an instance."""

from __future__ import annotations

import asyncio

from durable_host.model.instance import InstanceState

__all__ = ["Watch", "new_watch", "settle"]

Watch = asyncio.Future[InstanceState | None]


def new_watch() -> Watch:
    """A watch of the running loop."""
    return asyncio.get_running_loop().create_future()


def settle(watch: Watch, state: InstanceState | None) -> None:
    """Tell a watch, unless it was told."""
    if not watch.done():
        watch.set_result(state)
