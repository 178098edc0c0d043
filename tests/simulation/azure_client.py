"""The client's calls of the model store."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta

from durable_host.errors import UnsupportedError
from durable_host.model.history import HistoryEvent
from durable_host.model.ids import InstanceId
from durable_host.model.instance import (
    InstancePage,
    InstanceQuery,
    InstanceState,
    pending_state,
)
from durable_host.model.messages import Message
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import (
    HubStatistics,
    has_changed,
)
from tests.simulation.azure_account import ConflictError
from tests.simulation.azure_process import AzureProcess, delay_until, shown

__all__ = ["AzureClient"]


class AzureClient(AzureProcess):
    """A store object that answers clients."""

    async def create_instance(
        self, start: Message, *, replaceable: Collection[RuntimeStatus], transaction: object | None = None
    ) -> bool:
        _refuse(transaction)
        if start.id in self.account.created:
            return True
        row = await self.ports.read_row(start.target)
        if row is not None and row.state.execution_id != start.execution_id and row.state.status not in replaceable:
            return False
        await self.ports.put_control(start, delay_until(start.visible_at, self._environment.clock.now()))
        while row is None or row.state.execution_id != start.execution_id:
            if row is not None and row.state.status not in replaceable:
                return False  # another creator's; the message that is out finds itself disowned
            try:
                await self.ports.write_row(pending_state(start), row.etag if row is not None else None)
            except ConflictError:
                row = await self.ports.read_row(start.target)
                # The message that is out may have met the instance alive, and been dropped.
                await self.ports.put_control(start, delay_until(start.visible_at, self._environment.clock.now()))
                continue
            finally:
                # A hidden column remembers who created the row, for a caller that asks again after a cut connection.
                present = self.account.instances.get(start.target)
                if present is not None and present.state.execution_id == start.execution_id:
                    self.account.created.add(start.id)
            return True
        return True

    async def send(self, messages: Sequence[Message], *, transaction: object | None = None) -> None:
        _refuse(transaction)
        for message in messages:
            await self.ports.put_control(message, delay_until(message.visible_at, self._environment.clock.now()))

    async def release_quarantined(self, instance_ids: Collection[InstanceId]) -> int:
        raise UnsupportedError("the model has no way back from quarantine; no scenario needs it")

    async def get_instance(self, instance_id: InstanceId, *, with_payloads: bool = True) -> InstanceState | None:
        row = await self.ports.read_row(instance_id)
        return None if row is None else shown(row.state)

    async def query_instances(self, query: InstanceQuery) -> InstancePage:
        found = [
            shown(self.account.instances[id].state)
            for id in sorted(self.account.instances)
            if id.startswith(query.prefix)
        ]
        wanted = [state for state in found if not query.statuses or state.status in query.statuses]
        return InstancePage(tuple(wanted))

    async def get_history(self, instance_id: InstanceId) -> Sequence[HistoryEvent] | None:
        table = self.account.history.get(instance_id)
        row = self.account.instances.get(instance_id)
        if table is None or (row is not None and row.state.version is None):
            return None if row is None else ()
        return table.events()

    async def purge(self, instance_ids: Collection[InstanceId], *, force: bool = False) -> int:
        count = 0
        for instance_id in instance_ids:
            row = self.account.instances.get(instance_id)
            if row is not None and (force or row.state.status.is_terminal):
                del self.account.instances[instance_id]
                self.account.history.pop(instance_id, None)
                count += 1
        return count

    async def statistics(self) -> HubStatistics:
        return HubStatistics(
            {}, inbox_waiting=sum(map(len, self.account.control)), activities_waiting=len(self.account.work)
        )

    async def wait_for_change(
        self, instance_id: InstanceId, *, after: InstanceState | None, timeout: timedelta
    ) -> InstanceState | None:
        end = self.account.now() + timeout.total_seconds()
        while True:
            row = self.account.instances.get(instance_id)
            state = None if row is None else shown(row.state)
            left = end - self.account.now()
            if has_changed(after, state) or left <= 0:
                return state
            await self.account.changed(left)


def _refuse(transaction: object | None) -> None:
    if transaction is not None:
        raise UnsupportedError("this store takes no caller's transaction")
