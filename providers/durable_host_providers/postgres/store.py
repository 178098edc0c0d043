"""The storage contract on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from durable_host.environment import Environment
from durable_host.errors import StoreUnavailableError
from durable_host.model.history import HistoryEvent
from durable_host.model.ids import InstanceId
from durable_host.model.instance import InstancePage, InstanceQuery, InstanceState
from durable_host.model.messages import Message
from durable_host.model.status import RuntimeStatus
from durable_host.storage.checks import check_checkpoint
from durable_host.storage.contract import (
    ActivityCompletion,
    ActivityWorkItem,
    Checkpoint,
    CommitOutcome,
    HistoryCache,
    HubStatistics,
    Lease,
    OrchestrationWorkItem,
    StoreTraits,
)
from durable_host_providers._sql.watching import Watchers, WatchingStore

from .checkpoints import message_columns
from .connection import Pool, connect, translate
from .gathering import Gathering
from .grants import InstanceToken
from .items import Locked
from .questions import Questions
from .schema import Hub, create_hub, delete_hub, find_hub
from .settings import Settings
from .starting import start_instances
from .starts import Start, Starts
from .statements import statements
from .transactions import ask_with
from .watching import Watch, new_watch, settle
from .work import Work
from .writing import Writing

__all__ = ["PostgresTaskHubStore"]

T = TypeVar("T")

_NO_TIME = timedelta(0)
_PURGE_BATCH = 500
_MANY = 100


class PostgresTaskHubStore(WatchingStore[Watch]):
    """One store object on a hub. Any number of them, in any number of processes, may be open on one hub.

    All calls belong to the loop that entered the store; `renew` may be called from any.
    """

    traits: ClassVar[StoreTraits] = StoreTraits(
        caller_transactions=True,
        commit_concurrency=2,
        # One after the other, as a rule: large batches spare the server that several hosts share.
        commit_patience=timedelta(milliseconds=10),
        max_lease=timedelta(hours=1),
    )

    def __init__(self, settings: Settings, environment: Environment) -> None:
        self._settings = settings
        self._environment = environment
        self._sql = statements(settings.schema)
        self._watchers: Watchers[Watch] = Watchers(new_watch)
        self._identity: str | None = None
        self._work: Work | None = None
        self._pools: tuple[Pool, Pool] | None = None
        self._questions: Questions | None = None
        self._starts: Gathering[Start, bool] = Gathering(self._start)
        self._sends: Gathering[Sequence[Message], None] = Gathering(self._send)

    # Life cycle.

    async def create(self) -> None:
        await create_hub(self._settings, self._environment)

    async def delete(self) -> None:
        await self._close()
        await delete_hub(self._settings)

    async def __aenter__(self) -> Self:
        settings = self._settings
        connection = await connect(settings)
        try:
            hub: Hub = await find_hub(connection, settings)
            owner: int = (await connection.fetch(self._sql["next_owner"]))[0][0]
        except Exception as error:
            raise translate(error, settings) from error
        finally:
            await connection.close(timeout=2)
        self._identity = hub.identity
        asking = max(1, settings.connections // 3)
        self._pools = (Pool(settings, settings.connections - asking), Pool(settings, asking, questions=True))
        self._work = Work(settings, self._environment, self._pools[0], self._watchers)
        self._questions = Questions(self._pools[1], self._sql)
        self._questions.hub = hub.number
        self._work.start(hub.number, owner)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        work, pools = self._work, self._pools
        if work is None or pools is None:
            return
        self._pools = None
        await self._starts.stop()
        await self._sends.stop()
        await work.early.stop()
        if self._questions is not None:
            await self._questions.stop()
        await work.stop()
        self._work = None
        self._questions = None
        for pool in pools:
            await pool.close()

    @property
    def work(self) -> Work:
        """The open store's inside.

        Raises:
            StoreUnavailableError: it is not open.
        """
        if self._work is None:
            raise StoreUnavailableError(f"{self._settings.location} is not open.")
        return self._work

    @property
    def _writing(self) -> Writing:
        return Writing(self.work)

    @property
    def owner(self) -> int:
        """The number of this store object."""
        return self.work.owner

    async def ask(self, name: str, *arguments: object) -> Sequence[Any]:
        """Run a named statement whose first parameter is the hub."""
        work = self.work
        return await work.pool.fetch(self._sql[name], work.hub, *arguments)

    def _reader(self) -> Questions:
        if self._questions is None:
            raise StoreUnavailableError(f"{self._settings.location} is not open.")
        return self._questions

    async def check(self) -> None:
        await self.ask("probe")

    # Worker.

    async def lock_orchestrations(
        self, limit: int, *, wait: timedelta, cache: HistoryCache
    ) -> Sequence[OrchestrationWorkItem]:
        return await self._lock_orchestrations(limit, wait, cache, None)

    async def receive_orchestrations(
        self,
        limit: int,
        *,
        wait: timedelta,
        cache: HistoryCache,
        deliver: Callable[[OrchestrationWorkItem], None],
    ) -> Sequence[OrchestrationWorkItem]:
        def at_once(locked: Locked) -> bool:
            if _lacks_history(locked, cache):
                return False
            deliver(self._item(locked))
            return True

        return await self._lock_orchestrations(limit, wait, cache, at_once)

    async def _lock_orchestrations(
        self, limit: int, wait: timedelta, cache: HistoryCache, deliver: Callable[[Locked], bool] | None
    ) -> Sequence[OrchestrationWorkItem]:
        limit = min(limit, self.traits.lock_batch)
        work = self.work
        if limit < 1:
            return ()
        locked: Sequence[Locked]
        if wait <= _NO_TIME:
            locked = await _kept(
                work.track(work.fetch_instances(limit, everything=True)), work.giving.put_back_instances
            )
        else:
            waiter = work.instances.wait(limit, deliver)
            work.awaited()
            locked = await work.waited(work.instances, waiter, wait)
        try:
            return await self._loaded(locked, cache)
        except asyncio.CancelledError:
            work.giving.put_back_instances(locked)
            raise
        except Exception:
            giving = work.giving.put_back_instances(locked)
            if giving is not None:
                await asyncio.shield(giving)
            raise

    async def _loaded(self, locked: Sequence[Locked], cache: HistoryCache) -> list[OrchestrationWorkItem]:
        """Work items, with the histories that the caller does not hold."""
        unknown = [
            (each.token, each.version) for each in locked if each.version is not None and _lacks_history(each, cache)
        ]
        histories = await self._reader().histories(unknown) if unknown else {}
        lost = {token for token, _ in unknown if token.ref not in histories}
        if lost:  # to others; a lease that is current all the same must not keep them waiting
            self.work.giving.put_back_instances([each for each in locked if each.token in lost])
        return [self._item(each, histories.get(each.token.ref)) for each in locked if each.token not in lost]

    def _item(self, locked: Locked, history: Sequence[HistoryEvent] | None = None) -> OrchestrationWorkItem:
        if locked.version is None and not locked.top_up:
            history = ()
        lease = self.work.lease_of(locked.instance_id, locked.token, locked.until)
        return OrchestrationWorkItem(locked.instance_id, locked.version, history, locked.inbox, lease)

    async def lock_activities(self, limit: int, *, wait: timedelta) -> Sequence[ActivityWorkItem]:
        return await self._lock_activities(limit, wait, None)

    async def receive_activities(
        self, limit: int, *, wait: timedelta, deliver: Callable[[ActivityWorkItem], None]
    ) -> Sequence[ActivityWorkItem]:
        def at_once(item: ActivityWorkItem) -> bool:
            deliver(item)
            return True

        return await self._lock_activities(limit, wait, at_once)

    async def _lock_activities(
        self, limit: int, wait: timedelta, deliver: Callable[[ActivityWorkItem], bool] | None
    ) -> Sequence[ActivityWorkItem]:
        limit = min(limit, self.traits.lock_batch)
        work = self.work
        if limit < 1:
            return ()
        if wait <= _NO_TIME:
            return await _kept(work.track(work.fetch_activities(limit)), work.giving.put_back_activities)
        waiter = work.activities.wait(limit, deliver)
        work.awaited()
        return await work.waited(work.activities, waiter, wait)

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> Sequence[CommitOutcome]:
        for checkpoint in checkpoints:
            check_checkpoint(checkpoint)
        # Neither a task of its own nor protected from being cancelled: this is the way of every step.
        work = self.work
        work.begin()
        try:
            return await Writing(work).commit(checkpoints)
        finally:
            work.end()

    async def complete_activities(self, completions: Sequence[ActivityCompletion]) -> Sequence[CommitOutcome]:
        return await asyncio.shield(self.work.track(self._writing.complete(completions)))

    async def renew(self, leases: Sequence[Lease]) -> Sequence[Lease | None]:
        work = self.work
        if work.loop is asyncio.get_running_loop():
            renewed = await work.giving.renew(leases)
            work.giving.renewed(leases, renewed)
            return renewed
        pool = Pool(self._settings, 1)  # connections belong to a loop, and this one may end at any time
        try:
            renewed = await work.giving.renew(leases, pool)
        finally:
            await pool.close()
        if work.loop is not None:
            work.loop.call_soon_threadsafe(work.giving.renewed, leases, renewed)
        return renewed

    async def abandon(self, leases: Sequence[Lease], *, delay: timedelta) -> None:
        await asyncio.shield(self.work.track(self.work.giving.abandon(leases, delay)))

    async def quarantine(self, lease: Lease, reason: str) -> CommitOutcome:
        token, work = lease.token, self.work
        if not isinstance(token, InstanceToken):
            return CommitOutcome.LEASE_LOST
        reason = reason.replace("\0", "\\0")
        await work.early.settled([token])
        if not await work.pool.fetch(self._sql["quarantine"], work.hub, token.ref, token.lease, reason):
            return CommitOutcome.LEASE_LOST
        work.grants.drop(token.ref)
        work.changed(lease.key)
        return CommitOutcome.COMMITTED

    # Client.

    async def create_instance(
        self, start: Message, *, replaceable: Collection[RuntimeStatus], transaction: object | None = None
    ) -> bool:
        self.work.require_open()
        if transaction is not None:
            columns = Starts([Start(start, replaceable)]).columns()
            return bool(await self._ask_with(transaction, "start_with", columns))
        call = Start(start, replaceable)
        if self._starts.is_idle and (early := self.work.early.offer(call)) is not None:
            return await asyncio.shield(early.outcome)
        return await self._starts.put(call)

    async def _start(self, calls: Sequence[Start]) -> Sequence[bool]:
        starts = Starts(calls)
        taken = await start_instances(self.work, starts)
        for call, state in zip(calls, starts.states, strict=True):
            if call.message.id in taken:
                self._watchers.tell({call.message.target: state}, settle)
        return [call.message.id in taken for call in calls]

    async def send(self, messages: Sequence[Message], *, transaction: object | None = None) -> None:
        self.work.require_open()
        if messages and transaction is not None:
            await self._ask_with(transaction, "send_with", message_columns(messages))
        elif messages:
            await self._sends.put(messages)

    async def _ask_with(self, transaction: object, name: str, arguments: Sequence[object]) -> Any:
        assert self._identity is not None
        return await ask_with(
            transaction,
            name,
            arguments,
            sql=self._sql,
            identity=self._identity,
            settings=self._settings,
            threads=self._environment.threads,
        )

    async def _send(self, calls: Sequence[Sequence[Message]]) -> Sequence[None]:
        messages = [message for call in calls for message in call]
        await self._writing.send(message_columns(messages), len(messages))
        return [None] * len(calls)

    async def release_quarantined(self, instance_ids: Collection[InstanceId]) -> int:
        asked = [each for each in dict.fromkeys(instance_ids) if "\0" not in each]
        released = [row[0] for row in await self.ask("release_quarantined", asked)]
        self.work.changed(*released)
        if released:
            self.work.made_eligible()
        return len(released)

    async def get_instance(self, instance_id: InstanceId, *, with_payloads: bool = True) -> InstanceState | None:
        return await self._reader().get(instance_id, with_payloads)

    async def query_instances(self, query: InstanceQuery) -> InstancePage:
        return await self._reader().page(query)

    async def get_history(self, instance_id: InstanceId) -> Sequence[HistoryEvent] | None:
        return await self._reader().history(instance_id)

    async def purge(self, instance_ids: Collection[InstanceId], *, force: bool = False) -> int:
        asked = [each for each in dict.fromkeys(instance_ids) if "\0" not in each]
        count = 0
        loop = asyncio.get_running_loop()
        for at in range(0, len(asked), _PURGE_BATCH):
            begun = loop.time()
            purged = await self.ask("purge", asked[at : at + _PURGE_BATCH], force)
            for instance_id, had_state in purged:
                count += had_state
                grant = self.work.grants.by_id.get(instance_id)
                if grant is not None:
                    self.work.grants.drop(grant.ref)
            self.work.changed(*(row[0] for row in purged))
            if len(purged) >= _MANY:
                await asyncio.sleep(loop.time() - begun)  # leave the server to those who work, half of the time
        return count

    async def statistics(self) -> HubStatistics:
        return await self._reader().statistics()

    def _runs_here(self, instance_id: InstanceId) -> bool:
        return self.work.grants.is_running(instance_id)

    async def _told(self, watch: Watch, seconds: float) -> InstanceState | None:
        self.work.listen()
        alarm = watch.get_loop().call_later(seconds, settle, watch, None)
        try:
            return await watch
        finally:
            alarm.cancel()


def _lacks_history(locked: Locked, cache: HistoryCache) -> bool:
    """Whether the caller needs the history, and does not hold it."""
    return not locked.top_up and locked.version is not None and not cache.holds(locked.instance_id, locked.version)


async def _kept(task: asyncio.Task[list[T]], put_back: Callable[[Sequence[T]], object]) -> list[T]:
    """The result of a call that locks; if the caller is cancelled, what it has locked is given back."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(
            lambda done: None if done.cancelled() or done.exception() is not None else put_back(done.result())
        )
        raise
