"""What a worker remembers of instances between episodes, within bounds.

A cached instance saves loading its history and replaying it. It is valid for exactly one history version; the store
asks `holds` before it loads a history. Nothing of an ended instance is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from durable_host.engine.executor import ExecutorSession
from durable_host.engine.index import HistoryIndex
from durable_host.model.ids import InstanceId
from durable_host.model.instance import HistoryVersion, InstanceState

__all__ = ["CachedInstance", "SessionCache", "size_of"]

_BASE_SIZE = 2_000


@dataclass(slots=True)
class CachedInstance:
    """Position of one instance: what `admit`, `decide` and `project` need, and the executor's session."""

    version: HistoryVersion
    index: HistoryIndex
    state: InstanceState
    session: ExecutorSession

    def size(self) -> int:
        """About how many bytes it keeps alive."""
        return size_of(self.index, self.state, self.session)

    def close(self) -> None:
        """Let go of the user's code."""
        self.session.close()


def size_of(index: HistoryIndex, state: InstanceState, session: ExecutorSession) -> int:
    """About how many bytes an instance's position keeps alive."""
    payloads = len(state.input or "") + len(state.custom_status or "")
    known = 200 * (len(index.open) + len(index.messages))
    return _BASE_SIZE + 2 * payloads + known + session.size()


class SessionCache:
    """Least recently used instances go first; implements the store's HistoryCache."""

    def __init__(self, *, instances: int, size: int) -> None:
        self._limit = instances
        self._size_limit = size
        self._entries: OrderedDict[InstanceId, tuple[CachedInstance, int]] = OrderedDict()
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes accounted for."""
        return self._size

    def __len__(self) -> int:
        return len(self._entries)

    def holds(self, instance_id: InstanceId, version: HistoryVersion) -> bool:
        """Called by the store, from any thread: one dictionary look-up."""
        entry = self._entries.get(instance_id)
        return entry is not None and entry[0].version == version

    def take(self, instance_id: InstanceId) -> CachedInstance | None:
        """Remove and return what is known of an instance."""
        entry = self._entries.pop(instance_id, None)
        if entry is None:
            return None
        self._size -= entry[1]
        return entry[0]

    def put(self, instance_id: InstanceId, cached: CachedInstance) -> None:
        """Keep an instance; what exceeds the bounds is closed, the longest unused first."""
        self.drop(instance_id)
        size = cached.size()
        if size > self._size_limit or self._limit < 1:
            cached.close()
            return
        self._entries[instance_id] = (cached, size)
        self._size += size
        while len(self._entries) > self._limit or self._size > self._size_limit:
            _, (oldest, freed) = self._entries.popitem(last=False)
            self._size -= freed
            oldest.close()

    def drop(self, instance_id: InstanceId) -> None:
        """Forget an instance."""
        cached = self.take(instance_id)
        if cached is not None:
            cached.close()

    def clear(self) -> None:
        """Forget everything."""
        while self._entries:
            _, (cached, _) = self._entries.popitem()
            cached.close()
        self._size = 0
