"""Everything in one hub, and the steps on it.

Who may run next is kept in three heaps and two ordered maps, so that no call looks at all instances:

* `ready`: instances with something fresh and no lease, by their oldest message; `waiting_tasks` likewise for
  activities. Entries are checked when they are popped; one that is out of date is dropped. `queued` keeps an instance
  from standing there twice.
* `timers`: messages, tasks and instances that come (back) at some instant.
* leases in the order in which they end. All are equally long and time does not run backwards, so a new or renewed
  lease goes to the end and the next to expire stands in front.

Lease time is `Clock.monotonic`, visibility is `Clock.now`: a wall clock that steps back makes timers late, and keeps no
lease alive.

Callers hold `lock` for the whole of a step. It is there for `renew`, which runs on a thread of its own; nothing sleeps
while it is held.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from durable_host.environment import Environment
from durable_host.model.ids import InstanceId, MessageId
from durable_host.model.instance import InstanceState
from durable_host.model.messages import ActivityTask, Message
from durable_host.model.status import RuntimeStatus
from durable_host_providers.memory.queries import InstanceOrder
from durable_host_providers.memory.records import InstanceRecord, MessageRecord, TaskRecord
from durable_host_providers.memory.waiting import Holder, Sleeper

__all__ = ["HubState"]


class HubState:
    """The content of a hub. Nothing here awaits, and nothing checks tokens: that is the store's part."""

    def __init__(self, environment: Environment, lease: timedelta) -> None:
        self.environment = environment
        self.lease = lease
        self.lock = threading.RLock()
        self.holders: list[Holder] = []
        self.created = False
        self._lease_seconds = lease.total_seconds()
        # Never reset: a token or a place in the order means one thing for the life of the process.
        self._tokens = itertools.count(1)
        self._orders = itertools.count(1)
        self.watchers: dict[str, list[Sleeper]] = {}
        self.awaited_ends: dict[str, list[Sleeper]] = {}
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        for watchers in (self.watchers, self.awaited_ends):
            for sleeper in [each for sleepers in watchers.values() for each in sleepers]:
                sleeper.wake()
        for holder in self.holders:
            holder.top_ups.clear()
        self.instances: dict[str, InstanceRecord] = {}
        self.tasks: dict[str, TaskRecord] = {}
        self.order = InstanceOrder()
        self.counts: dict[str, int] = {}
        self.quarantined: dict[InstanceRecord, None] = {}
        self.returned: dict[InstanceRecord | TaskRecord, None] = {}
        self.messages = 0
        self.delayed = 0
        self.instance_leases: OrderedDict[int, InstanceRecord] = OrderedDict()
        self.task_leases: OrderedDict[int, TaskRecord] = OrderedDict()
        self.ready: list[tuple[int, InstanceRecord]] = []
        self.waiting_tasks: list[tuple[int, TaskRecord]] = []
        self.timers: list[tuple[datetime, int, MessageRecord | InstanceRecord | TaskRecord]] = []
        self.watchers = {}
        self.awaited_ends = {}

    # Time.

    def sweep(self) -> datetime:
        """Let everything happen that is due, and return the time."""
        now = self.environment.clock.now()
        timers = self.timers
        while timers and timers[0][0] <= now:
            thing = heapq.heappop(timers)[2]
            if isinstance(thing, MessageRecord):
                self._appear(thing)
            elif isinstance(thing, InstanceRecord):
                if thing.postponed_until is not None and thing.postponed_until <= now:
                    thing.postponed_until = None
                    self.offer(thing)
            elif thing.delayed:
                thing.delayed = False
                self.offer_task(thing)
        if self.instance_leases or self.task_leases:
            self._end_leases()
        return now

    def _appear(self, record: MessageRecord) -> None:
        instance = record.instance
        message_id = record.message.id
        if instance.delayed.get(message_id) is not record:
            return  # consumed or purged before its time
        del instance.delayed[message_id]
        self.delayed -= 1
        self._arrive(record)
        self.offer(instance)

    def _end_leases(self) -> None:
        elapsed = self.environment.clock.monotonic()
        while self.instance_leases:
            token, instance = next(iter(self.instance_leases.items()))
            if instance.lease_end > elapsed:
                break
            del self.instance_leases[token]
            self._end_lease(instance)
        while self.task_leases:
            token, task = next(iter(self.task_leases.items()))
            if task.lease_end > elapsed:
                break
            del self.task_leases[token]
            self._end_task_lease(task)

    def next_due(self) -> datetime | None:
        """When the next timer is due."""
        return self.timers[0][0] if self.timers else None

    def seconds_to_lease_end(self) -> float:
        """How long until the next lease may end, those included that nobody has taken yet."""
        elapsed = self.environment.clock.monotonic()
        end = elapsed + self._lease_seconds
        if self.instance_leases:
            end = min(end, next(iter(self.instance_leases.values())).lease_end)
        if self.task_leases:
            end = min(end, next(iter(self.task_leases.values())).lease_end)
        seconds = end - elapsed
        return max(seconds, 0.0) + 0.001  # a moment past the end: a sum of floats may fall short of it for ever

    def _at(self, instant: datetime, thing: MessageRecord | InstanceRecord | TaskRecord) -> None:
        entry = (instant, next(self._orders), thing)
        heapq.heappush(self.timers, entry)
        if self.timers[0] is entry:
            for holder in self.holders:
                for waiter in itertools.chain(holder.orchestrations, holder.tasks):
                    if waiter.due is None or waiter.due > instant:
                        waiter.wake()

    # Messages.

    def require(self, instance_id: InstanceId) -> InstanceRecord:
        """The record of an id, made if there is none."""
        instance = self.instances.get(instance_id)
        if instance is None:
            instance = self.instances[instance_id] = InstanceRecord(instance_id)
        return instance

    def put(self, message: Message, now: datetime, by: Holder | None) -> None:
        """Store a message, unless one of its id waits there; an instance made eligible is handed over to `by`."""
        instance = self.require(message.target)
        if instance.knows(message.id):
            return
        self.messages += 1
        visible_at = message.visible_at
        if visible_at is not None and visible_at > now:
            self._delay(MessageRecord(message, instance, 0, visible_at))
            return
        self._arrive(MessageRecord(message, instance, 0, now))
        self.offer(instance, by)

    def _arrive(self, record: MessageRecord) -> None:
        record.order = next(self._orders)
        record.instance.fresh[record.message.id] = record
        record.instance.postponed_until = None

    def _delay(self, record: MessageRecord) -> None:
        record.instance.delayed[record.message.id] = record
        self.delayed += 1
        self._at(record.since, record)

    def consume(self, instance: InstanceRecord, message_id: MessageId) -> None:
        """Remove a message; one that is not there is no error."""
        if instance.given.pop(message_id, None) is None and instance.fresh.pop(message_id, None) is None:
            if instance.delayed.pop(message_id, None) is None:
                return
            self.delayed -= 1
        self.messages -= 1

    def defer(self, instance: InstanceRecord, message_id: MessageId, now: datetime) -> None:
        """Let a message come back later."""
        record = instance.given.pop(message_id, None) or instance.fresh.pop(message_id, None)
        if record is not None:
            record.token = 0  # a lease that is renewed after its end must not take it for given
            record.since = now + timedelta(seconds=min(2.0 ** min(record.deliveries, 10), 600.0))
            self._delay(record)

    # Leases of instances.

    def offer(self, instance: InstanceRecord, by: Holder | None = None) -> None:
        """See that somebody gets the instance if it is eligible, or its holder what arrived for it."""
        if not instance.fresh:
            return
        if instance.leased:
            if instance.hold and instance.holder is not None:
                instance.holder.top_ups[instance] = None
                for waiter in instance.holder.orchestrations:
                    waiter.wake()
            return
        if instance.quarantined is not None or instance.postponed_until is not None:
            return
        if by is not None:
            for waiter in by.orchestrations:
                if waiter.free > 0:
                    waiter.free -= 1
                    waiter.instances.append((instance, self.lease_to(instance, by)))
                    waiter.wake()
                    return
        if not instance.queued:
            instance.queued = True
            heapq.heappush(self.ready, (next(iter(instance.fresh.values())).order, instance))
        for holder in self.holders:
            for waiter in holder.orchestrations:
                waiter.wake()

    def next_ready(self) -> InstanceRecord | None:
        """Take the eligible instance that waits longest out of the heap."""
        while self.ready:
            instance = heapq.heappop(self.ready)[1]
            instance.queued = False
            if instance.is_eligible:
                return instance
        return None

    def oldest_ready(self) -> MessageRecord | None:
        """The message that waits longest for anybody to lock its instance."""
        while self.ready and not self.ready[0][1].is_eligible:
            heapq.heappop(self.ready)[1].queued = False
        return next(iter(self.ready[0][1].fresh.values())) if self.ready else None

    def lease_to(self, instance: InstanceRecord, holder: Holder) -> int:
        """Lock an eligible instance; the token of whoever had it before is no longer current."""
        instance.token = token = next(self._tokens)
        instance.leased = True
        instance.lease_end = self.environment.clock.monotonic() + self._lease_seconds
        instance.holder = holder
        instance.hold = False
        self.instance_leases[token] = instance
        return token

    def renew(self, instance: InstanceRecord) -> None:
        """Start the lease anew, also one that has ended if nobody has taken it since."""
        instance.lease_end = self.environment.clock.monotonic() + self._lease_seconds
        if instance.leased:
            self.instance_leases.move_to_end(instance.token)
            return
        instance.leased = True
        self.instance_leases[instance.token] = instance
        # The holder has these already; the end of the lease had put them back.
        given = [record for record in instance.fresh.values() if record.token == instance.token]
        for record in given:
            instance.given[record.message.id] = instance.fresh.pop(record.message.id)
        self.offer(instance)

    def _end_lease(self, instance: InstanceRecord) -> None:
        """The lease ran out; the token stays current until somebody takes the instance."""
        instance.leased = False
        instance.take_back()
        if any(record.deliveries >= 2 for record in instance.fresh.values()):
            self.returned[instance] = None
        self.offer(instance)

    def release(self, instance: InstanceRecord, by: Holder | None = None) -> None:
        """End the lease and its token; what was given and not taken is fresh again."""
        self.instance_leases.pop(instance.token, None)
        if instance.hold and instance.holder is not None:
            instance.holder.top_ups.pop(instance, None)
        instance.token = 0
        instance.leased = False
        instance.hold = False
        instance.holder = None
        if instance.given:
            instance.take_back()
        if instance.fresh:
            self.offer(instance, by)

    def give_back(self, instance: InstanceRecord, now: datetime, delay: timedelta) -> None:
        """End the lease unfinished. All of the inbox comes back together: after the delay, or with the next arrival."""
        given = bool(instance.given)
        if any(record.deliveries >= 2 for record in instance.given.values()):
            self.returned[instance] = None
        if given and delay > timedelta(0):
            instance.postponed_until = now + delay
            self._at(instance.postponed_until, instance)
        # Not handed over: what comes back is fetched and counted, or a poisonous inbox would go round for ever.
        self.release(instance)

    def quarantine(self, instance: InstanceRecord, reason: str) -> None:
        """Take an instance out of circulation."""
        instance.quarantined = reason
        self.quarantined[instance] = None
        self.set_state(instance, instance.state)

    def end_quarantine(self, instance: InstanceRecord, by: Holder) -> bool:
        """Put it back; False: it was not in quarantine."""
        if instance.quarantined is None:
            return False
        instance.quarantined = None
        del self.quarantined[instance]
        self.set_state(instance, instance.state)
        self.offer(instance, by)
        return True

    def forget_if_empty(self, instance: InstanceRecord) -> None:
        """Drop the record of an id under which nothing is kept."""
        if instance.is_empty and not instance.leased and self.instances.get(instance.id) is instance:
            del self.instances[instance.id]
            self.returned.pop(instance, None)

    # Activities.

    def add_task(self, task: ActivityTask, now: datetime, by: Holder | None) -> None:
        """Store a task, unless one of its id waits there."""
        if task.dispatch_id not in self.tasks:
            record = self.tasks[task.dispatch_id] = TaskRecord(task, next(self._orders), now)
            self.offer_task(record, by)

    def offer_task(self, task: TaskRecord, by: Holder | None = None) -> None:
        """See that somebody gets the task."""
        if not task.is_eligible:
            return
        if by is not None:
            for waiter in by.tasks:
                if waiter.free > 0:
                    waiter.free -= 1
                    waiter.tasks.append((task, self.lease_task_to(task, by)))
                    waiter.wake()
                    return
        heapq.heappush(self.waiting_tasks, (task.order, task))
        for holder in self.holders:
            for waiter in holder.tasks:
                waiter.wake()

    def next_task(self) -> TaskRecord | None:
        """Take the oldest task without a lease out of the heap."""
        while self.waiting_tasks:
            task = heapq.heappop(self.waiting_tasks)[1]
            if task.is_eligible:
                return task
        return None

    def oldest_task(self) -> TaskRecord | None:
        """The task that waits longest for anybody to lock it."""
        while self.waiting_tasks and not self.waiting_tasks[0][1].is_eligible:
            heapq.heappop(self.waiting_tasks)
        return self.waiting_tasks[0][1] if self.waiting_tasks else None

    def lease_task_to(self, task: TaskRecord, holder: Holder) -> int:
        """Lock a task."""
        task.token = token = next(self._tokens)
        task.leased = True
        task.lease_end = self.environment.clock.monotonic() + self._lease_seconds
        task.holder = holder
        self.task_leases[token] = task
        return token

    def renew_task(self, task: TaskRecord) -> None:
        """Start the lease anew, also one that has ended if nobody has taken it since."""
        task.lease_end = self.environment.clock.monotonic() + self._lease_seconds
        task.leased = True
        self.task_leases[task.token] = task
        self.task_leases.move_to_end(task.token)

    def _end_task_lease(self, task: TaskRecord) -> None:
        """The lease ran out; the token stays current until somebody takes the task."""
        task.leased = False
        if task.deliveries >= 2:
            self.returned[task] = None
        self.offer_task(task)

    def give_back_task(self, task: TaskRecord, now: datetime, delay: timedelta) -> None:
        """End the lease unfinished; the task comes back after the delay."""
        self.task_leases.pop(task.token, None)
        task.token = 0
        if delay > timedelta(0):
            task.delayed = True
            task.since = now + delay
            self._at(task.since, task)
        self._end_task_lease(task)

    def remove_task(self, task: TaskRecord) -> None:
        """The task is done, or its instance was purged."""
        del self.tasks[task.task.dispatch_id]
        self.task_leases.pop(task.token, None)
        task.gone = True
        if self.returned:
            self.returned.pop(task, None)

    # Projections.

    def set_state(self, instance: InstanceRecord, state: InstanceState | None) -> None:
        """Put a projection in place (None: the instance is gone), keep the counts and tell who watches."""
        if state is not None and not state.status.is_terminal and (state.output, state.completed_at) != (None, None):
            state = msgspec.structs.replace(state, output=None, completed_at=None)
        before = instance.shown
        instance.state = state
        if state is not None and instance.quarantined is not None:
            state = msgspec.structs.replace(state, status=RuntimeStatus.FAILED, quarantined=instance.quarantined)
        instance.shown = state
        if before is None and state is not None:
            self.order.add(instance.id)
        if before is not None:
            self._count(before.status, -1)
        if state is not None:
            self._count(state.status, 1)
        if self.watchers:
            for sleeper in self.watchers.get(instance.id, ()):
                sleeper.wake()
        if self.awaited_ends and (state is None or state.status.is_terminal):
            for sleeper in self.awaited_ends.get(instance.id, ()):
                sleeper.wake()

    def _count(self, status: RuntimeStatus, change: int) -> None:
        # Keyed by the name: hashing an Enum member is a call into Python.
        name: str = status._value_
        self.counts[name] = self.counts.get(name, 0) + change

    def watch(self, instance_id: InstanceId, sleeper: Sleeper, *, until_end: bool = False) -> None:
        """Wake the sleeper when the projection changes; with `until_end`, when the instance ends or is gone."""
        (self.awaited_ends if until_end else self.watchers).setdefault(instance_id, []).append(sleeper)

    def unwatch(self, instance_id: InstanceId, sleeper: Sleeper) -> None:
        """It is awake."""
        for watchers in (self.watchers, self.awaited_ends):
            sleepers = watchers.get(instance_id, [])
            if sleeper in sleepers:
                sleepers.remove(sleeper)
                if not sleepers:
                    del watchers[instance_id]

    def purge(self, purged: Iterable[InstanceRecord]) -> None:
        """Remove instances with their messages and tasks; a lease on one of them is lost."""
        ids: set[InstanceId] = set()
        for instance in purged:
            ids.add(instance.id)
            self.instance_leases.pop(instance.token, None)
            instance.token = 0
            instance.leased = instance.hold = False
            self.messages -= len(instance.fresh) + len(instance.given) + len(instance.delayed)
            self.delayed -= len(instance.delayed)
            instance.fresh, instance.given, instance.delayed = {}, {}, {}
            instance.history = []  # its timers keep the record until they are due
            self.quarantined.pop(instance, None)
            self.returned.pop(instance, None)
            instance.quarantined = None
            self.set_state(instance, None)
            del self.instances[instance.id]
        if ids and self.tasks:
            for task in [task for task in self.tasks.values() if task.task.instance_id in ids]:
                self.remove_task(task)
