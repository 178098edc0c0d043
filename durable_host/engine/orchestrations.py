"""The dispatcher of episodes: locked instances in, checkpoints out.

An instance that is locked is *held* until its lease ends. While activities that it has just asked for run on this
worker the lease outlives the checkpoint (`Checkpoint.hold`): their results come back through `fold`, join the next
episode and leave with its checkpoint, and messages that arrive meanwhile are delivered to the holder. An instance
that nothing happens to for `hold_idle` is let go.

What fails here is never the user's fault: an orchestrator that raises is an ordinary outcome. An episode that fails in
our own code is given back, later and later, and ends in quarantine; one whose checkpoint could not be written is
forgotten, since its effect is unknown, and redelivery sorts it out.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from durable_host.engine.activities import FinishedActivity
from durable_host.engine.committer import GroupCommit
from durable_host.engine.episode import Advance, Episodes, Position, UnknownOrchestrator
from durable_host.engine.executor import OrchestrationExecutor
from durable_host.engine.handing_back import GRACE, back_off, give_back
from durable_host.engine.holding import HeldInstance, Parking
from durable_host.engine.leases import LeaseKeeper
from durable_host.engine.sessions import CachedInstance, SessionCache
from durable_host.engine.settings import EngineSettings
from durable_host.errors import StoreError
from durable_host.model.history import HistoryEvent, TaskCompleted, TaskFailed
from durable_host.model.ids import InstanceId
from durable_host.model.instance import HistoryVersion
from durable_host.model.messages import Message
from durable_host.storage.contract import (
    Checkpoint,
    CommitOutcome,
    Lease,
    OrchestrationWorkItem,
    TaskHubStore,
)
from durable_host.telemetry.metrics import Metrics

__all__ = ["OrchestrationDispatcher"]

logger = logging.getLogger(__name__)

_RESULTS = (TaskCompleted, TaskFailed)


class OrchestrationDispatcher:
    """Processes locked instances, each one by one, several at once.

    Args:
        complete: how an activity's result gets home when it cannot be folded.
        group: owner of the tasks.
    """

    def __init__(
        self,
        store: TaskHubStore,
        executor: OrchestrationExecutor,
        episodes: Episodes,
        *,
        commits: GroupCommit[Checkpoint],
        complete: Callable[[FinishedActivity], Awaitable[None]],
        leases: LeaseKeeper,
        cache: SessionCache,
        settings: EngineSettings,
        metrics: Metrics,
        group: asyncio.TaskGroup,
    ) -> None:
        self._store = store
        self._executor = executor
        self._episodes = episodes
        self._commits = commits
        self._complete = complete
        self._leases = leases
        self._cache = cache
        self._settings = settings
        self._metrics = metrics
        self._group = group
        self._context = contextvars.copy_context()
        self._held: dict[InstanceId, HeldInstance] = {}
        self._ready: deque[HeldInstance] = deque()
        self._active = 0
        self._writing = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._parking = Parking(
            self._release,
            idle=settings.hold_idle,
            instances=settings.max_cached_sessions,
            size=settings.max_cached_bytes,
            group=group,
        )
        self._quiet = asyncio.Event()
        self._quiet.set()
        self.on_room: Callable[[], None] = lambda: None

    # What the pump and the activity dispatcher call.

    def room(self) -> int:
        """How many instances may be locked now."""
        return 0 if self._draining else self._slots() - len(self._ready)

    def _slots(self) -> int:
        """How many episodes may begin now.

        One whose checkpoint is on its way to the store runs no more, and another may take its place, as long as there
        are not twice as many: they leave together with the next write.
        """
        most = self._settings.max_concurrent_orchestrations
        return min(most - (self._active - self._writing), 2 * most - self._active)

    def deliver(self, item: OrchestrationWorkItem) -> None:
        """Take a locked instance, or further messages for one that is held."""
        held = self._held.get(item.instance_id)
        if held is not None and held.lease.lease.token == item.lease.token and not held.lost:
            held.messages += item.inbox
        else:
            if held is not None:  # a lease of ours ran out unnoticed; the store has the last word
                self._forget(held)
            held = HeldInstance(item, self._leases.hold(item.lease, lambda: self._lost(item.instance_id)))
            self._held[item.instance_id] = held
        self._wake(held)

    def fold(self, finished: FinishedActivity) -> bool:
        """Take an activity's result into the instance's next episode; False: the instance is not held here."""
        held = self._held.get(finished.reply.target)
        if held is None or held.lost:
            return False
        held.results.append(finished)
        self._wake(held)
        return True

    def _lost(self, instance_id: InstanceId) -> None:
        held = self._held.get(instance_id)
        if held is None or not held.lease.lost:
            return
        held.lost = True
        if not held.running:
            self._forget(held)

    @property
    def busy(self) -> bool:
        """Whether an instance is being processed or waits for a slot."""
        return bool(self._active or self._ready)

    @property
    def kept(self) -> tuple[int, int]:
        """How many positions are cached or held, and about how many bytes they keep alive."""
        return len(self._cache) + len(self._held), self._cache.size + self._parking.size

    # Draining.

    async def drain(self) -> None:
        """Take nothing new; returns when nothing runs and nothing is held."""
        self._draining = True
        await self._release(self._parking.all())
        while self._active or self._ready:
            self._quiet.clear()
            await self._quiet.wait()
            await self._release(self._parking.all())

    def resume(self) -> None:
        """Take work again after a drain."""
        self._draining = False

    async def stop(self) -> None:
        """Cancel what still runs and give back everything that is held, finished or not."""
        self._draining = True
        await self._parking.close()
        tasks = list(self._tasks)
        if tasks:
            # What is being written should be written to its end, so that nobody has to find out what became of it.
            await asyncio.wait(tasks, timeout=GRACE)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        held = list(self._held.values())
        # What is in a commit that is still on its way is told twice, and counts once.
        await self._send_home([result for each in held for result in each.results])
        await self._release(held)

    # Inside.

    def _wake(self, held: HeldInstance) -> None:
        self._parking.leave(held)
        if held.running:
            return
        held.running = True
        self._ready.append(held)
        self._begin_ready()

    def _begin_ready(self) -> None:
        while self._ready and self._slots() > 0:
            self._begin(self._ready.popleft())

    def _begin(self, held: HeldInstance) -> None:
        self._active += 1
        self._quiet.clear()
        # What has woken it, such as an activity or a client's call, has a context of its own.
        self._tasks.add(self._group.create_task(self._process(held), context=self._context.copy()))

    async def _process(self, held: HeldInstance) -> None:
        task = asyncio.current_task()
        assert task is not None
        again = False
        try:
            while (held.messages or held.results) and await self._step(held):
                if again := self._slots() < 0:
                    break  # others were let in while it was written
        except Exception:  # nothing may end the worker; the lease runs out and the work comes again
            logger.exception(
                "processing %s failed",
                held.instance_id,
                extra={"event": "process_failed", "instance": held.instance_id},
            )
            self._forget(held)
        finally:
            self._tasks.discard(task)
            self._active -= 1
            held.running = False
            if again:
                self._wake(held)
            self._begin_ready()
            if not self._active:
                self._quiet.set()
            self.on_room()

    async def _step(self, held: HeldInstance) -> bool:
        """One checkpoint. False: the instance is not held any more, or waits parked."""
        messages, results = held.messages, held.results
        held.messages, held.results = [], []
        inbox = [*messages, *(result.reply for result in results)]
        try:
            if held.lost:
                await self._send_home(results)
                self._forget(held)
                return False
            return await self._advance(held, inbox, results)
        except StoreError as error:
            await self._drop(held, results, error)
        except Exception as error:
            await self._failed(held, inbox, results, error)
        except asyncio.CancelledError:
            held.results[:0] = results  # for `stop`, which sends them home
            raise
        return False

    async def _advance(self, held: HeldInstance, inbox: Sequence[Message], results: Sequence[FinishedActivity]) -> bool:
        position = await self._position(held)
        if position is None:
            await self._lose(held, results)
            return False
        try:
            advance = await self._episodes.advance(position, inbox)
        except UnknownOrchestrator as unknown:
            await self._give_back_unknown(held, inbox, results, unknown.name)
            return False
        try:
            self._report(held, advance)
            checkpoint = self._checkpoint(held, position, advance, results)
            outcome = await self._write(checkpoint)
        except BaseException:
            _close(advance)
            raise
        if outcome is CommitOutcome.LEASE_LOST:
            _close(advance)
            await self._lose(held, results)
            return False
        late = self._not_folded(advance, results)
        for result in results:
            if result not in late:
                self._leases.release(result.held)
        if late:
            await self._send_home(late)
        if held.lost:
            # Forgotten while it was written, with its session: it was locked again before this answer came.
            _close(advance)
            self._forget(held)
            return False
        return await self._settle(held, advance.after(position), hold=checkpoint.hold)

    async def _write(self, checkpoint: Checkpoint) -> CommitOutcome:
        alone = self._active == 1 and not self._ready
        self._writing += 1
        self._begin_ready()
        self.on_room()
        try:
            return await self._commits.put(checkpoint, alone=alone)
        finally:
            self._writing -= 1

    async def _settle(self, held: HeldInstance, position: Position, *, hold: bool) -> bool:
        """After a commit: keep the instance, cache it, or forget it."""
        held.position = position
        if hold:
            if held.messages or held.results:
                return True
            self._parking.enter(held)
            return False
        if self._held.get(held.instance_id) is held:
            del self._held[held.instance_id]
        self._leases.release(held.lease)
        ended = position.index.completed is not None or position.index.started is None
        if ended or position.version is None or position.state is None or position.session is None:
            if position.session is not None:
                position.session.close()
        else:
            self._cache.put(
                held.instance_id, CachedInstance(position.version, position.index, position.state, position.session)
            )
        # Messages that came under the lease that has ended are still in the store and come again.
        await self._send_home(held.results)
        return False

    async def _position(self, held: HeldInstance) -> Position | None:
        """Where the instance stands; None: somebody else has gone on with it, so that its lease is lost."""
        position = held.position
        if position is None:
            item = held.item
            assert item is not None
            position = await self._load(item)
            held.item = None
            held.position = position
        elif position.needs_history:
            position.history = await self._history(held.instance_id, position.version)
            if position.history is None:
                return None
        return position

    async def _history(self, instance_id: InstanceId, version: HistoryVersion | None) -> Sequence[HistoryEvent] | None:
        """The history of this version, which a current lease keeps where it is; None: there is another one."""
        history = await self._store.get_history(instance_id) or ()
        return history if len(history) == (0 if version is None else version.length) else None

    async def _load(self, item: OrchestrationWorkItem) -> Position | None:
        history = item.history
        cached = self._cache.take(item.instance_id)
        if cached is not None:
            if cached.version == item.version and history is None:
                return Position(item.instance_id, cached.version, cached.index, cached.state, cached.session)
            cached.close()
        if history is None:
            # What the store was told we hold has been evicted since.
            history = await self._history(item.instance_id, item.version)
            if history is None:
                return None
        return await self._episodes.load(item.instance_id, item.version, history)

    def _checkpoint(
        self, held: HeldInstance, position: Position, advance: Advance, results: Sequence[FinishedActivity]
    ) -> Checkpoint:
        admission = advance.admission
        folded = {result.reply.id for result in results}
        answered = 0
        for event in advance.events:
            if isinstance(event, _RESULTS):
                answered += 1
        late = set(admission.deferred)
        ends = advance.state is not None and advance.state.status.is_terminal
        open_before = 0 if advance.replaced else position.index.open_activities
        waits = open_before - answered + len(advance.activities) > 0
        return Checkpoint(
            lease=held.lease.lease,
            base=position.version,
            state=advance.state,
            events=advance.events,
            amended=advance.amended,
            activities=advance.activities,
            messages=advance.messages,
            consumed=[id for id in admission.consumed if id not in folded] if folded else admission.consumed,
            deferred=[id for id in admission.deferred if id not in folded] if folded else admission.deferred,
            completed=[each.held.lease for each in results if each.reply.id not in late],
            hold=waits and not ends and not self._draining,
        )

    def _not_folded(self, advance: Advance, results: Sequence[FinishedActivity]) -> list[FinishedActivity]:
        late = set(advance.admission.deferred)
        return [result for result in results if result.reply.id in late] if late else []

    def _report(self, held: HeldInstance, advance: Advance) -> None:
        self._metrics.count("episodes", 1 if advance.ran else 0)
        for dropped in advance.admission.dropped:
            self._metrics.count("messages_dropped")
            logger.warning(
                "message %s to %s was dropped: %s",
                dropped.message.id,
                held.instance_id,
                dropped.why,
                extra={"event": "message_dropped", "instance": held.instance_id},
            )

    # When something goes wrong.

    async def _give_back_unknown(
        self, held: HeldInstance, inbox: Sequence[Message], results: Sequence[FinishedActivity], name: str
    ) -> None:
        deliveries = max((message.deliveries for message in inbox), default=1)
        self._metrics.count("orchestrations_handed_back")
        logger.warning(
            "instance %s waits: this host does not have the orchestrator %r",
            held.instance_id,
            name,
            extra={"event": "orchestrator_unknown", "instance": held.instance_id},
        )
        await self._send_home(results)
        await self._abandon(held, back_off(deliveries))

    async def _failed(
        self, held: HeldInstance, inbox: Sequence[Message], results: Sequence[FinishedActivity], error: Exception
    ) -> None:
        """An episode failed in our own code."""
        deliveries = max((message.deliveries for message in inbox), default=1)
        self._metrics.count("episodes_failed")
        logger.error(
            "an episode of %s failed in durable_host itself (delivery %d of %d): %s",
            held.instance_id,
            deliveries,
            self._settings.max_episode_failures,
            error,
            exc_info=error,
            extra={"event": "episode_failed", "instance": held.instance_id},
        )
        await self._send_home(results)
        if deliveries < self._settings.max_episode_failures:
            await self._abandon(held, back_off(deliveries))
            return
        reason = f"quarantined after {deliveries} deliveries: {type(error).__name__}: {error}"
        try:
            await self._store.quarantine(held.lease.lease, reason)
        except StoreError as failure:
            logger.warning("%s could not be quarantined: %s", held.instance_id, failure)
        else:
            self._metrics.count("instances_quarantined")
            logger.error(
                "instance %s is quarantined; its history and inbox are kept. Find the cause, then release it with "
                "`durable-host instances release %s`",
                held.instance_id,
                held.instance_id,
                extra={"event": "quarantined", "instance": held.instance_id},
            )
        self._forget(held)

    async def _drop(self, held: HeldInstance, results: Sequence[FinishedActivity], error: StoreError) -> None:
        """The store failed: what it did is unknown, so everything known about the instance is forgotten."""
        self._metrics.count("store_errors")
        logger.warning(
            "a checkpoint of %s was not confirmed: %s",
            held.instance_id,
            error,
            extra={"event": "commit_failed", "instance": held.instance_id},
        )
        await self._send_home(results)
        await self._abandon(held, timedelta(seconds=1))

    async def _lose(self, held: HeldInstance, results: Sequence[FinishedActivity]) -> None:
        """The lease is lost: somebody else goes on with the instance."""
        self._metrics.count("checkpoints_lost")
        self._forget(held)
        await self._send_home(results)

    async def _abandon(self, held: HeldInstance, delay: timedelta) -> None:
        self._forget(held)
        await give_back(self._store, [held.lease.lease], delay=delay)

    async def _send_home(self, results: Sequence[FinishedActivity]) -> None:
        for result in results:
            await self._complete(result)

    def _forget(self, held: HeldInstance) -> None:
        """Drop everything about the instance but its lease in the store."""
        held.lost = True
        if self._held.get(held.instance_id) is held:
            del self._held[held.instance_id]
        self._parking.leave(held)
        self._leases.release(held.lease)
        self._cache.drop(held.instance_id)
        position, held.position = held.position, None
        if position is not None and position.session is not None:
            position.session.close()
        orphans, held.results = held.results, []
        if orphans:
            sending = self._send_home(orphans)
            try:
                self._group.create_task(sending)
            except RuntimeError:
                sending.close()  # the worker is going down: their leases run out and the activities run again

    async def _release(self, idle: Sequence[HeldInstance]) -> None:
        if not idle:
            return
        leases: list[Lease] = []
        for held in idle:
            leases.append(held.lease.lease)
            self._leases.release(held.lease)
            self._parking.leave(held)
            if self._held.get(held.instance_id) is held:
                del self._held[held.instance_id]
            position, held.position = held.position, None
            if position is None or position.version is None or position.state is None or position.session is None:
                continue
            cached = CachedInstance(position.version, position.index, position.state, position.session)
            self._cache.put(held.instance_id, cached)
        await give_back(self._store, leases, delay=timedelta(0))


def _close(advance: Advance) -> None:
    if advance.session is not None:
        advance.session.close()
