"""Who waits for a change of which instance. All on one loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from durable_host.model.instance import InstanceState

__all__ = ["Watch", "Watchers"]

Watch = asyncio.Future[InstanceState | None]


class Watchers:
    """Watches by instance. `None` tells them to look for themselves."""

    def __init__(self) -> None:
        self._by_id: dict[str, list[Watch]] = {}
        self._until_end: dict[str, list[Watch]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_id or self._until_end)

    def add(self, instance_id: str, *, until_end: bool = False) -> Watch:
        """Watch an instance until it changes once (until it ends or is gone), or `remove`."""
        watch: Watch = asyncio.get_running_loop().create_future()
        (self._until_end if until_end else self._by_id).setdefault(instance_id, []).append(watch)
        return watch

    def remove(self, instance_id: str, watch: Watch) -> None:
        """Watch no longer."""
        watch.cancel()
        for watchers in (self._by_id, self._until_end):
            watching = watchers.get(instance_id)
            if watching is not None and watch in watching:
                watching.remove(watch)
                if not watching:
                    del watchers[instance_id]

    def tell(self, changed: Mapping[str, InstanceState | None]) -> None:
        """Tell who watches these instances."""
        if not self:
            return
        for instance_id, state in changed.items():
            for watch in self._by_id.pop(instance_id, ()):
                _settle(watch, state)
            if state is None or state.status.is_terminal:
                for watch in self._until_end.pop(instance_id, ()):
                    _settle(watch, state)

    def tell_all(self) -> None:
        """Let everybody look for himself."""
        for watchers in (self._by_id, self._until_end):
            for watching in watchers.values():
                for watch in watching:
                    _settle(watch, None)
            watchers.clear()

    def tell_to_look(self, instance_ids: Iterable[str]) -> None:
        """Another process has changed these instances."""
        if self:
            self.tell(dict.fromkeys(instance_ids))


def _settle(watch: Watch, state: InstanceState | None) -> None:
    if not watch.done():
        watch.set_result(state)
