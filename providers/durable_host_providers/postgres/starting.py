"""Starts that are stored by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .answers import KIND, LEASE, MESSAGE, REF, Answer, Kind
from .grants import InstanceToken
from .items import Locked
from .starts import Starts

if TYPE_CHECKING:  # a cycle in types only: early starts belong to the work, and may have to be stored like this
    from .work import Work

__all__ = ["start_instances"]


async def start_instances(work: Work, starts: Starts) -> set[str]:
    """Store starts; returns the message ids of those that were taken."""
    lease, until = work.next_lease(), work.until()
    handed = 0 if work.instances_expected else work.instances.reserve(len(starts.calls))
    locked: list[Locked] = []
    try:
        answers: Sequence[Answer] = ()
        created: list[tuple[str, int | None, int | None]] = []
        if starts.is_alone:
            rows = await work.call("start_alone", lease, [bool(handed), *starts.values()])
            created = [(starts.calls[0].message.id, ref, given) for ref, given in rows]
        if not created:
            answers = await work.call("start", lease, [handed, *starts.columns()])
            created = [(each[MESSAGE], each[REF], each[LEASE]) for each in answers if each[KIND] == Kind.CREATED]
        waiting = False
        for message_id, ref, given in created:
            if ref is not None and given is not None:
                locked.append(starts.make(work.grants, message_id, InstanceToken(given, ref), until))
            elif ref is not None:
                waiting = True
        if waiting:
            work.instances_expected = True
        work.signals.tell(instances=waiting)
        locked += work.absorb(answers, until)
        return {message_id for message_id, _, _ in created}
    finally:
        work.instances.settle(handed, locked)
        work.consider()
