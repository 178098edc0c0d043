"""The calls that write: checkpoints, completions, messages."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping, Sequence

from durable_host.errors import StoreError
from durable_host.model.instance import InstanceState
from durable_host.model.messages import ActivityTask
from durable_host.storage.contract import ActivityCompletion, ActivityWorkItem, Checkpoint, CommitOutcome

from .answers import KIND, MESSAGE, REF, Kind
from .checkpoints import Batch, Run, message_columns, run_of_rows
from .connection import NotAsRememberedError
from .early import EarlyStart
from .grants import ActivityToken, InstanceToken, carriers
from .items import Locked
from .steps import LastStep, Steps, is_last_step, is_step
from .watching import settle
from .work import Work

__all__ = ["Writing"]


class Writing:
    """Each call is one statement, and locks what it makes as far as somebody waits for it."""

    def __init__(self, work: Work) -> None:
        self._work = work

    async def commit(self, checkpoints: Sequence[Checkpoint]) -> list[CommitOutcome]:
        """Apply each checkpoint or nothing of it."""
        outcomes = [CommitOutcome.LEASE_LOST] * len(checkpoints)
        early = self._work.early
        if len(checkpoints) == 1 and not early and is_step(checkpoints[0], self._work.grants):
            await self._commit_steps(checkpoints, (0,), outcomes)
            return outcomes
        steps: dict[object, int] = {}
        others: list[int] = []
        ways: list[Coroutine[None, None, None]] = []
        first: int | None = None
        if early:
            for at, each in enumerate(checkpoints):
                if first is None and (start := early.followed(each)) is not None:
                    first = at
                    ways.append(self._commit_start(checkpoints, start, at, outcomes))
            if first is None:
                await early.settled([each.lease.token for each in checkpoints])
        for at, each in enumerate(checkpoints):
            if at != first and isinstance(each.lease.token, InstanceToken):
                if each.lease.token not in steps and is_step(each, self._work.grants):
                    steps[each.lease.token] = at
                else:
                    others.append(at)
        if steps:
            ways.append(self._commit_steps(checkpoints, list(steps.values()), outcomes))
        if others:
            ways.append(self._commit_others(checkpoints, others, outcomes))
        if len(ways) == 1:
            await ways[0]
        elif ways:
            await asyncio.gather(*ways)
        return outcomes

    async def _commit_start(
        self, checkpoints: Sequence[Checkpoint], early: EarlyStart, at: int, outcomes: list[CommitOutcome]
    ) -> None:
        """Store a start that was handed over, together with its first step."""
        work = self._work
        if early.begun:  # its time has run out since, before this task had its turn
            await work.early.settled([early.token])
            await self._commit_steps(checkpoints, (at,), outcomes)
            return
        steps = Steps(work.grants, [checkpoints[at]])
        work.early.begin(early)
        lease = work.next_lease()
        handed = self._hand_over(len(steps.tasks))
        tasks: list[ActivityWorkItem] = []
        try:
            if not await work.call("start_step", lease, early.arguments_with(steps, locked=handed)):
                work.early.decide(early, perhaps=False)
                return
            states = steps.applied(carried=bool(handed))
            tasks = self._handed_over(steps.tasks[:handed], lease, carrier=early.token.ref)
            work.watchers.tell(states, settle)
            self._left_over(len(steps.tasks) - handed, states)
            work.early.taken(early)
        except StoreError as error:
            work.early.failed(early, error)
            raise
        except BaseException:
            # A value of the checkpoint, as a rule, which is not the caller's fault who starts.
            work.early.decide(early, perhaps=True)
            raise
        finally:
            work.activities.settle(handed, tasks)
            work.consider()
        outcomes[at] = CommitOutcome.COMMITTED

    async def _commit_steps(
        self, checkpoints: Sequence[Checkpoint], which: Sequence[int], outcomes: list[CommitOutcome]
    ) -> None:
        steps = Steps(self._work.grants, [checkpoints[at] for at in which])
        lease = self._work.next_lease()
        handed = self._hand_over(len(steps.tasks))
        tasks: list[ActivityWorkItem] = []
        try:
            if steps.is_alone:
                name, arguments = steps.alone(handed=bool(handed))
                if not await self._work.call(name, lease, arguments):
                    raise NotAsRememberedError
                states = steps.applied(carried=bool(handed))
                tasks = self._handed_over(steps.tasks[:handed], lease, carrier=steps.refs[0])
            else:
                answers = await self._work.call("step", lease, steps.arguments(locked=handed))
                states = steps.applied(carried=False)
                tasks = self._handed_over(steps.tasks[:handed], lease, {row[0] for row in answers})
            self._work.watchers.tell(states, settle)
            self._left_over(len(steps.tasks) - handed, states)
        except NotAsRememberedError:
            self._work.activities.settle(handed, ())
            handed = 0
            await self._commit_others(checkpoints, which, outcomes)
            return
        except BaseException:
            for ref in steps.refs:
                self._work.grants.drop(ref)
            raise
        finally:
            self._work.activities.settle(handed, tasks)
            self._work.consider()
        for at in which:
            outcomes[at] = CommitOutcome.COMMITTED

    async def _commit_others(
        self, checkpoints: Sequence[Checkpoint], which: Sequence[int], outcomes: list[CommitOutcome]
    ) -> None:
        if (
            len(which) == 1
            and is_last_step(checkpoints[which[0]], self._work.grants)
            and await self._commit_last_step(checkpoints[which[0]])
        ):
            outcomes[which[0]] = CommitOutcome.COMMITTED
            return
        left = list(which)
        bring: set[int] = set()
        while left:
            batch = Batch(self._work.grants, bring)
            chosen: dict[int, int] = {}
            later: list[int] = []
            for at in left:
                token = checkpoints[at].lease.token
                assert isinstance(token, InstanceToken)
                if token.ref in chosen:
                    later.append(at)  # a second checkpoint from the same base finds another one
                else:
                    chosen[token.ref] = at
                    batch.add(checkpoints[at], token)
            lost, changed = await self._commit(batch)
            if not lost and not changed:
                for at in chosen.values():
                    outcomes[at] = CommitOutcome.COMMITTED
                left = later
                continue
            bring |= changed
            for ref in lost:
                self._work.grants.drop(ref)
                chosen.pop(ref, None)
            left = sorted([*chosen.values(), *later])

    async def _commit_last_step(self, checkpoint: Checkpoint) -> bool:
        """Apply it, or learn that its row is not as remembered."""
        last = LastStep(self._work.grants, checkpoint)
        try:
            answers = await self._work.call("last_step", self._work.next_lease(), last.arguments())
            if any(answer[KIND] == Kind.LOST for answer in answers):
                return False
            states = last.applied()
            self._work.watchers.tell(states, settle)
            self._work.absorb(answers, 0.0)
            self._left_over(0, states)
        except BaseException:
            self._work.grants.drop(last.ref)
            raise
        finally:
            self._work.consider()
        return True

    def _hand_over(self, count: int) -> int:
        """How many activities to lock for those who wait, or will soon.

        If others wait already a lock call fetches them, and has reserved its room when it came.
        """
        return self._work.activities.reserve(count, surplus=True) if count else 0

    def _handed_over(
        self, tasks: Sequence[ActivityTask], lease: int, known: Collection[str] = (), carrier: int | None = None
    ) -> list[ActivityWorkItem]:
        return [
            ActivityWorkItem(
                task, self._work.lease_of(task.dispatch_id, ActivityToken(lease, task.dispatch_id, carrier)), 0
            )
            for task in tasks
            if task.dispatch_id not in known
        ]

    def _left_over(self, tasks: int, changed: Mapping[str, InstanceState]) -> None:
        """Tell what was committed and not handed over."""
        if tasks:
            self._work.activities_expected = True
        if not self._work.signals.is_heard:
            return
        # Many wait for an end, hardly anybody for a step.
        later = not any(state.status.is_terminal for state in changed.values())
        self._work.signals.tell(activities=tasks > 0, changed=changed, later=later)

    async def _commit(self, batch: Batch) -> tuple[set[int], set[int]]:
        """Apply a batch, or learn why not: which leases are lost, and which projections must be brought whole."""
        if (amendments := batch.amendments()) and (lost := await self._read_runs(batch, amendments)):
            return lost, set()
        lease, until = self._work.next_lease(), self._work.until()
        handed = self._hand_over(len(batch.tasks))
        room = 0
        if batch.messages or batch.releases:
            room = self._work.instances.reserve(len(batch.messages) + len(batch.refs))
        locked: list[Locked] = []
        tasks: list[ActivityWorkItem] = []
        try:
            answers = await self._work.call("commit", lease, batch.arguments(locked=handed, room=room))
            lost = {answer[REF] for answer in answers if answer[KIND] == Kind.LOST}
            changed = {answer[REF] for answer in answers if answer[KIND] == Kind.CHANGED}
            if lost or changed:
                return lost, changed
            restored = {answer[REF] for answer in answers if answer[KIND] == Kind.RESTORED}
            known = {answer[MESSAGE] for answer in answers if answer[KIND] == Kind.KNOWN}
            states = batch.applied(restored, lambda token: self._work.is_ours(token.lease))
            tasks = self._handed_over(batch.tasks[:handed], lease, known)
            self._work.watchers.tell(states, settle)
            locked = self._work.absorb(answers, until)
            self._left_over(len(batch.tasks) - handed, states)
            return set(), set()
        except BaseException:
            for ref in batch.refs:
                self._work.grants.drop(ref)
            raise
        finally:
            self._work.activities.settle(handed, tasks)
            self._work.instances.settle(room, locked)
            self._work.consider()

    async def _read_runs(self, batch: Batch, wanted: Sequence[tuple[int, int]]) -> set[int]:
        """Amend what is stored; returns whose lease is lost, where there is nothing to amend."""
        # Nobody but the holder of the lease, which the commit will compare, writes this history.
        found: dict[tuple[int, int], Run] = {}
        runs: dict[tuple[int, int], Run] = {}
        lost: set[int] = set()
        leases = {ref: each.lease.token for ref, each in zip(batch.refs, batch.checkpoints, strict=True)}
        for ref, index in wanted:
            for first, events in await self._work.pool.fetch(self._work.sql["run_with_event"], ref, index):
                run = runs.setdefault((ref, first), run_of_rows(ref, first, events))
                if index < first + len(run.events):
                    found[ref, index] = run
            if (ref, index) not in found:
                token = leases[ref]
                assert isinstance(token, InstanceToken)
                if not await self._work.pool.fetch(self._work.sql["is_current"], ref, token.lease):
                    lost.add(ref)
        if not lost:
            batch.amend(lambda ref, index: found.get((ref, index)))
        return lost

    async def complete(self, completions: Sequence[ActivityCompletion]) -> list[CommitOutcome]:
        """Send the reply of each activity whose lease is current, and remove the task."""
        outcomes = [CommitOutcome.LEASE_LOST] * len(completions)
        left: dict[str, int] = {}
        for at, each in enumerate(completions):
            token = each.lease.token
            if isinstance(token, ActivityToken):
                left.setdefault(token.dispatch_id, at)  # a second completion of the same lease finds nothing
        while left:
            chosen = [completions[at] for at in left.values()]
            lost = await self._complete(chosen)
            if not lost:
                for at in left.values():
                    outcomes[at] = CommitOutcome.COMMITTED
                break
            for dispatch_id in lost:
                left.pop(dispatch_id, None)
        return outcomes

    async def _complete(self, completions: Sequence[ActivityCompletion]) -> set[str]:
        lease, until = self._work.next_lease(), self._work.until()
        room = self._work.instances.reserve(len(completions))
        tokens = [each.lease.token for each in completions]
        locked: list[Locked] = []
        try:
            arguments = [
                [token.dispatch_id for token in tokens if isinstance(token, ActivityToken)],
                [token.lease for token in tokens if isinstance(token, ActivityToken)],
                carriers(tokens),
                *message_columns([each.reply for each in completions]),
                room,
            ]
            answers = await self._work.call("complete", lease, arguments)
            locked = self._work.absorb(answers, until)
            return {answer[MESSAGE] for answer in answers if answer[KIND] == Kind.LOST}
        finally:
            self._work.instances.settle(room, locked)
            self._work.consider()

    async def send(self, columns: Sequence[object], count: int) -> None:
        """Put messages, as columns, into inboxes."""
        lease, until = self._work.next_lease(), self._work.until()
        room = self._work.instances.reserve(count)
        locked: list[Locked] = []
        try:
            locked = self._work.absorb(await self._work.call("send", lease, [*columns, room]), until)
        finally:
            self._work.instances.settle(room, locked)
            self._work.consider()
