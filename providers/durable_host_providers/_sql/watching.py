"""Who waits for a change of which instance, and how a store with notifications lets them wait."""

from __future__ import annotations

import asyncio
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Generic, TypeVar

from durable_host.model.ids import InstanceId
from durable_host.model.instance import InstanceState
from durable_host.storage.contract import TaskHubStore, has_changed

__all__ = ["Watchers", "WatchingStore"]

WatchT = TypeVar("WatchT")


class Watchers(Generic[WatchT]):
    """Watches by instance; from any thread. `None` tells them to look for themselves.

    Args:
        make: makes a watch, on the loop of who waits. `settle` of the methods below tells it.
    """

    def __init__(self, make: Callable[[], WatchT]) -> None:
        self._make = make
        self._mutex = threading.Lock()
        self._by_id: dict[str, list[WatchT]] = {}
        self._until_end: dict[str, list[WatchT]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_id or self._until_end)

    def add(self, instance_id: str, *, until_end: bool = False) -> WatchT:
        """Watch an instance until it changes once (until it ends or is gone), or `remove`."""
        watch = self._make()
        with self._mutex:
            (self._until_end if until_end else self._by_id).setdefault(instance_id, []).append(watch)
        return watch

    def remove(self, instance_id: str, watch: WatchT) -> None:
        """Watch no longer."""
        with self._mutex:
            for watchers in (self._by_id, self._until_end):
                watching = watchers.get(instance_id)
                if watching is not None and watch in watching:
                    watching.remove(watch)
                    if not watching:
                        del watchers[instance_id]

    def tell(
        self, changed: Mapping[str, InstanceState | None], settle: Callable[[WatchT, InstanceState | None], object]
    ) -> None:
        """Tell who watches these instances."""
        for instance_id, state in changed.items():
            ends = state is None or state.status.is_terminal
            # Nobody who begins to watch now misses anything: he has not looked yet.
            if instance_id not in self._by_id and not (ends and instance_id in self._until_end):
                continue
            with self._mutex:
                for watch in self._by_id.pop(instance_id, ()):
                    settle(watch, state)
                if ends:
                    for watch in self._until_end.pop(instance_id, ()):
                        settle(watch, state)

    def tell_all(self, settle: Callable[[WatchT, InstanceState | None], object]) -> None:
        """Let everybody look for himself."""
        with self._mutex:
            for watchers in (self._by_id, self._until_end):
                for watching in watchers.values():
                    for watch in watching:
                        settle(watch, None)
                watchers.clear()


class WatchingStore(TaskHubStore, Generic[WatchT]):
    """The waiting of a store that tells its watchers of every change."""

    _watchers: Watchers[WatchT]

    @abstractmethod
    def _runs_here(self, instance_id: InstanceId) -> bool:
        """Whether the instance is locked by this store object and has not ended: watchers will be told when it does."""

    @abstractmethod
    async def _told(self, watch: WatchT, seconds: float) -> InstanceState | None:
        """What a watch is told within this time; None: look."""

    async def wait_for_change(
        self, instance_id: InstanceId, *, after: InstanceState | None, timeout: timedelta
    ) -> InstanceState | None:
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout.total_seconds()
        while True:
            # Watching begins before looking, so that nothing happens unseen in between.
            watch = self._watchers.add(instance_id)
            try:
                state = await self.get_instance(instance_id)
                left = end - loop.time()
                if has_changed(after, state) or left <= 0:
                    return state
                told = await self._told(watch, left)
                if told is not None and has_changed(after, told):
                    return told
            finally:
                self._watchers.remove(instance_id, watch)

    async def wait_for_end(self, instance_id: InstanceId, *, timeout: timedelta) -> InstanceState | None:
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout.total_seconds()
        seen = looked = False
        while True:
            watch = self._watchers.add(instance_id, until_end=True)
            try:
                if not looked and self._runs_here(instance_id) and loop.time() < end:
                    seen = True  # nothing to look for yet: its start was a moment ago, as a rule
                else:
                    state = await self.get_instance(instance_id)
                    if (seen if state is None else state.status.is_terminal) or loop.time() >= end:
                        return state
                    seen = state is not None
                looked = True
                told = await self._told(watch, end - loop.time())
                if told is not None and told.status.is_terminal:
                    return told
            finally:
                self._watchers.remove(instance_id, watch)
