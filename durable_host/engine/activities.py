"""The dispatcher of activities: locked tasks in, results out.

A result goes straight into its instance's next episode when this worker holds the instance (folding); else the store
gets it, and as long as the store cannot take it this worker keeps the task and tries again: to run the activity once
more is the last resort. A task that no executor here knows goes back with growing delay: another version of the app
may know it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Callable, Generator
from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from durable_host.engine.committer import GroupCommit
from durable_host.engine.executor import ActivityExecutor, ActivityResult
from durable_host.engine.handing_back import GRACE, back_off, give_back
from durable_host.engine.leases import HeldLease, LeaseKeeper
from durable_host.engine.settings import EngineSettings
from durable_host.environment import Clock
from durable_host.errors import StoreError, StoreUnavailableError
from durable_host.model.failure import Failure, error_text
from durable_host.model.history import HistoryEvent, TaskCompleted, TaskFailed
from durable_host.model.ids import MessageId
from durable_host.model.messages import ActivityTask, Message
from durable_host.storage.contract import ActivityCompletion, ActivityWorkItem, TaskHubStore
from durable_host.telemetry.metrics import Metrics

__all__ = ["ActivityDispatcher", "FinishedActivity", "reply_of"]

logger = logging.getLogger(__name__)

_FIRST_PAUSE = 0.5
_LAST_PAUSE = 10.0


class FinishedActivity:
    """A result on its way into the instance's next episode or to the store, with the lease of its task."""

    __slots__ = ("held", "reply")

    def __init__(self, held: HeldLease, reply: Message) -> None:
        self.held = held
        self.reply = reply


class ActivityDispatcher:
    """Runs locked activities, several at once.

    Args:
        fold: offers a result to the instance; False: it is not held here.
        completions: writes results that are not folded.
        group: owner of the tasks.
    """

    def __init__(
        self,
        store: TaskHubStore,
        executor: ActivityExecutor,
        *,
        fold: Callable[[FinishedActivity], bool],
        completions: GroupCommit[ActivityCompletion],
        leases: LeaseKeeper,
        settings: EngineSettings,
        clock: Clock,
        metrics: Metrics,
        group: asyncio.TaskGroup,
    ) -> None:
        self._store = store
        self._executor = executor
        self._fold = fold
        self._completions = completions
        self._leases = leases
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._group = group
        self._context = contextvars.copy_context()
        self._running: dict[asyncio.Task[None], HeldLease] = {}
        self._sending: set[asyncio.Task[Any]] = set()
        self._draining = False
        self._stopped = False
        self._quiet = asyncio.Event()
        self._quiet.set()
        self.on_room: Callable[[], None] = lambda: None

    def room(self) -> int:
        """How many activities may be locked now.

        One whose result is on its way to the store runs no more, and another may take its place, as long as there are
        not twice as many: a slow store must not be given more and more results.
        """
        if self._draining:
            return 0
        most, taken = self._settings.max_concurrent_activities, len(self._running)
        return min(most - (taken - len(self._sending)), 2 * most - taken)

    def deliver(self, item: ActivityWorkItem) -> None:
        """Take a locked task."""
        held = self._leases.hold(item.lease)
        # What has handed it over, such as another activity, has a context of its own.
        self._keep(self._group.create_task(self._run(item, held), context=self._context.copy()), held)

    def _keep(self, task: asyncio.Task[None], held: HeldLease) -> None:
        self._running[task] = held
        self._quiet.clear()

    def _ended(self) -> None:
        """The current task, which was kept, has nothing more to do."""
        task = asyncio.current_task()
        assert task is not None
        self._running.pop(task, None)
        if not self._running:
            self._quiet.set()
        self.on_room()

    @property
    def busy(self) -> bool:
        """Whether an activity runs."""
        return bool(self._running)

    async def drain(self) -> None:
        """Take nothing new; returns when nothing runs."""
        self._draining = True
        await self._quiet.wait()

    def resume(self) -> None:
        """Take work again after a drain."""
        self._draining = False

    async def cancel_all(self) -> None:
        """Cancel what runs and give it back: another worker runs it again."""
        self._draining = self._stopped = True
        running = list(self._running.values())
        tasks = list(self._running)
        for task in tasks:
            if task not in self._sending:
                task.cancel()
        if self._sending:
            # What is being written should be written to its end: these activities need not run again.
            await asyncio.wait(self._sending, timeout=GRACE)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._running.clear()  # also what was cancelled before it began
        self._quiet.set()
        leases = [held.lease for held in running]
        for held in running:
            self._leases.release(held)
        await give_back(self._store, leases, delay=timedelta(0))

    async def _run(self, item: ActivityWorkItem, held: HeldLease) -> None:
        try:
            if not self._executor.handles(item.task.name):
                await self._give_back(item, held)
                return
            result = await self._result(item.task)
            self._metrics.count("activities", 1, outcome="failed" if result.failure is not None else "completed")
            finished = FinishedActivity(held, reply_of(item.task, result, self._clock))
            if not self._fold(finished):
                with self._on_its_way():
                    await self.complete(finished)
        finally:
            self._ended()

    async def _result(self, task: ActivityTask) -> ActivityResult:
        try:
            return await self._executor.execute(task)
        except Exception as error:  # ours: an executor turns users' errors into results
            logger.exception("activity %s failed in durable_host itself", task.name, extra={"event": "activity_broken"})
            return ActivityResult(failure=Failure(type=type(error).__name__, message=error_text(error)))

    @contextlib.contextmanager
    def _on_its_way(self) -> Generator[None, None, None]:
        task = asyncio.current_task()
        assert task is not None
        self._sending.add(task)
        self.on_room()
        try:
            yield
        finally:
            self._sending.discard(task)

    async def complete(self, finished: FinishedActivity) -> None:
        """Give a result to the store; never fails. What the store cannot take now is tried again on the side."""
        held = finished.held
        try:
            await self._put(finished)
        except StoreUnavailableError as error:
            self._metrics.count("store_errors")
            if not held.lost and self._try_later(finished):
                logger.warning(
                    "a result was not confirmed, and is sent again as long as its activity is held: %s",
                    error,
                    extra={"event": "completion_delayed", "activity": held.lease.key},
                )
                return
            self._give_up(held, error)
        except StoreError as error:
            self._metrics.count("store_errors")
            self._give_up(held, error)
        except BaseException:
            self._leases.release(held)
            raise
        else:
            self._leases.release(held)

    def _give_up(self, held: HeldLease, error: StoreError) -> None:
        # Its effect is unknown. If it had none the lease runs out and the activity runs again.
        logger.warning(
            "a result was not confirmed; unless it was stored its activity runs again: %s",
            error,
            extra={"event": "completion_failed", "activity": held.lease.key},
        )
        self._leases.release(held)

    def _try_later(self, finished: FinishedActivity) -> bool:
        """Keep the task, and send its result when the store can be reached; False: the worker stops."""
        if self._stopped:
            return False
        sending = self._try_again(finished)
        try:
            task = self._group.create_task(sending)
        except RuntimeError:  # it is going down
            sending.close()
            return False
        self._keep(task, finished.held)
        return True

    async def _try_again(self, finished: FinishedActivity) -> None:
        try:
            with self._on_its_way():
                await self._put_again(finished)
        finally:
            self._ended()

    async def _put_again(self, finished: FinishedActivity) -> None:
        held, pause = finished.held, _FIRST_PAUSE
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE)
            try:
                # Safe to repeat: where it had its effect the task is gone, and nothing is sent a second time.
                await self._put(finished)
            except StoreUnavailableError as error:
                self._metrics.count("store_errors")
                if held.lost:
                    self._give_up(held, error)
                    return
            except StoreError as error:
                self._give_up(held, error)
                return
            else:
                self._leases.release(held)
                return

    async def _put(self, finished: FinishedActivity) -> None:
        lease, reply = finished.held.lease, finished.reply
        try:
            await self._completions.put(ActivityCompletion(lease=lease, reply=reply))
        except StoreError:
            raise
        except Exception as error:  # ours: what cannot be stored must not run again and again
            logger.exception("a result could not be stored", extra={"event": "completion_broken"})
            try:
                await self._completions.put(ActivityCompletion(lease=lease, reply=_unstorable(reply, error)))
            except StoreError:
                raise
            except Exception:
                logger.exception("not even its failure could be stored", extra={"event": "completion_broken"})

    async def _give_back(self, item: ActivityWorkItem, held: HeldLease) -> None:
        self._metrics.count("activities_handed_back", 1, name=item.task.name)
        logger.warning(
            "an activity waits: this host does not have %r (asked for by instance %s)",
            item.task.name,
            item.task.instance_id,
            extra={"event": "activity_unknown", "activity": item.task.name, "instance": item.task.instance_id},
        )
        self._leases.release(held)
        await give_back(self._store, [held.lease], delay=back_off(max(item.deliveries, 1)))


def _unstorable(reply: Message, error: Exception) -> Message:
    event = reply.event
    assert isinstance(event, TaskCompleted | TaskFailed)
    reason = f"The result of an activity could not be stored: {type(error).__name__}: {error_text(error)}"
    failed = TaskFailed(
        timestamp=event.timestamp,
        task_id=event.task_id,
        reason=reason,
        failure=Failure(type="RuntimeError", message=reason),
        dispatch_id=event.dispatch_id,
    )
    return replace(reply, event=failed)


def reply_of(task: ActivityTask, result: ActivityResult, clock: Clock) -> Message:
    """The message that answers an activity request. Its id derives from the request: a second run sends a duplicate."""
    now = clock.now()
    event: HistoryEvent
    if result.failure is None:
        event = TaskCompleted(timestamp=now, task_id=task.task_id, result=result.result, dispatch_id=task.dispatch_id)
    else:
        failure = result.failure
        event = TaskFailed(
            timestamp=now,
            task_id=task.task_id,
            reason=f"Activity function '{task.name}' failed: {failure.short_type}: {failure.message}",
            details=failure.stack,
            failure=failure,
            dispatch_id=task.dispatch_id,
        )
    return Message(
        id=MessageId(f"{task.dispatch_id}:r"),
        target=task.instance_id,
        event=event,
        execution_id=task.execution_id,
        deliveries=0,
    )
