"""Leases given back: by their holders, by calls that nobody waits for any more, by calls whose answers got lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from durable_host.errors import StoreError, StoreUnavailableError
from durable_host.storage.contract import ActivityWorkItem, Lease

from .answers import LEASE, MESSAGE, REF
from .connection import Pool
from .grants import ActivityToken, InstanceToken, carriers
from .items import Locked, Spoilt

if TYPE_CHECKING:  # a cycle in types only: what is fetched may have to be given back
    from .work import Work

__all__ = ["GivingBack"]

logger = logging.getLogger(__name__)

_SPOILT_TASK = 600_000_000
"""Microseconds until a task that cannot be decoded is looked at again."""


class GivingBack:
    """What is to be unlocked."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._owed: dict[int, None] = {}
        self._owed_tokens: dict[InstanceToken | ActivityToken, None] = {}
        self._paying = False

    def owe(self, lease: int) -> None:
        """A call under this lease number failed, and may have locked something."""
        self._owed[lease] = None
        self._work.listen()

    def pay(self) -> None:
        """Give back what is owed, if the database can be reached now."""
        if (self._owed or self._owed_tokens) and not self._paying:
            self._paying = True
            self._work.track(self._pay())

    async def _pay(self) -> None:
        """Give back what failed calls may have locked, and what could not be given back."""
        owed, tokens = list(self._owed), list(self._owed_tokens)
        try:
            if owed:
                await self._work.pool.fetch(
                    self._work.sql["disown"], self._work.hub, min(owed), max(owed), owed, repeatable=True
                )
            for lease in owed:
                self._owed.pop(lease, None)
            if tokens:
                await self._work.pool.fetch(
                    self._work.sql["abandon"], self._work.hub, 0, *_tokens(tokens, lambda _: False)
                )
            for token in tokens:
                self._owed_tokens.pop(token, None)
            self._work.instances_expected = self._work.activities_expected = True
            self._work.signals.tell(instances=True, activities=True)
        except StoreError:
            return  # later
        finally:
            self._paying = False
        self._work.consider()

    def put_back_instances(self, items: Sequence[Locked]) -> asyncio.Task[None] | None:
        """Nobody takes these; returns what is being done about it."""
        leases = [self._work.lease_of(item.instance_id, item.token) for item in items]
        return self.give_back(leases, top_ups=[item for item in items if item.top_up])

    def put_back_activities(self, items: Sequence[ActivityWorkItem]) -> asyncio.Task[None] | None:
        """Nobody takes these; returns what is being done about it."""
        return self.give_back([item.lease for item in items])

    def give_back(self, leases: Sequence[Lease], top_ups: Sequence[Locked] = ()) -> asyncio.Task[None] | None:
        """Unlock items that nobody took. Held instances stay held: what they were topped up with is given again."""
        held = {item.token for item in top_ups}
        for item in top_ups:
            grant = self._work.grants.find(item.token)
            if grant is not None:
                for message in item.inbox:
                    grant.given.pop(message.id, None)
                self._work.grants.arrived[grant.ref] = None
        left = [lease for lease in leases if lease.token not in held]
        if left and self._work.is_open:
            return self._work.track(self._abandon_quietly(left))
        self._work.consider()
        return None

    async def _abandon_quietly(self, leases: Sequence[Lease]) -> None:
        try:
            await self.abandon(leases, timedelta(0))
        except StoreError as error:
            logger.debug("%d leases could not be given back now: %s", len(leases), error)

    async def abandon(self, leases: Sequence[Lease], delay: timedelta) -> None:
        """Give work back; lost leases are passed over."""
        if self._work.early:
            await self._work.early.settled([lease.token for lease in leases])
        tokens = [lease.token for lease in leases if isinstance(lease.token, InstanceToken | ActivityToken)]
        grants = {token: self._work.grants.find(token) for token in tokens if isinstance(token, InstanceToken)}

        def waits(token: InstanceToken) -> bool:
            grant = grants[token]
            return grant is None or bool(grant.given)

        arguments = _tokens(tokens, waits)
        for token, grant in grants.items():
            if grant is not None:
                self._work.grants.drop(token.ref)
        micros = max(0, delay // timedelta(microseconds=1))
        try:
            answers = await self._work.pool.fetch(
                self._work.sql["abandon"], self._work.hub, micros, *arguments, repeatable=True
            )
        except StoreUnavailableError:
            self._owed_tokens.update(dict.fromkeys(token for token in tokens if self._work.is_ours(token.lease)))
            self._work.listen()
            raise
        self._work.woken(answers)

    async def renew(self, leases: Sequence[Lease], pool: Pool | None = None) -> list[Lease | None]:
        """Extend those that are current."""
        tokens = [lease.token for lease in leases if isinstance(lease.token, InstanceToken | ActivityToken)]
        refs, numbers, _, ids, their_numbers, carrying = _tokens(tokens, lambda _: False)
        answers = await (pool or self._work.pool).fetch(
            self._work.sql["renew"],
            self._work.hub,
            self._work.length,
            refs,
            numbers,
            ids,
            their_numbers,
            carrying,
            repeatable=True,
        )
        # A lease with what it is of: the dispatch id or the row.
        current = {(answer[LEASE], answer[MESSAGE] if answer[REF] is None else answer[REF]) for answer in answers}

        def is_current(token: object) -> bool:
            if isinstance(token, ActivityToken):
                return (token.lease, token.dispatch_id) in current
            return isinstance(token, InstanceToken) and (token.lease, token.ref) in current

        return [
            Lease(each.key, each.token, self._work.settings.lease) if is_current(each.token) else None
            for each in leases
        ]

    def renewed(self, asked: Sequence[Lease], leases: Sequence[Lease | None]) -> None:
        """What became of leases: if one had ended, what came meanwhile was not told to the holder."""
        grants = self._work.grants
        for before, after in zip(asked, leases, strict=True):
            if isinstance(before.token, ActivityToken) and before.token.carrier is not None:
                grants.unloaded(before.token.carrier)
            if not isinstance(before.token, InstanceToken):
                continue
            grant = grants.find(before.token)
            if grant is None:
                continue
            grant.carried = None
            if after is None:
                grants.drop(grant.ref)
            elif grant.held:
                grants.arrived[grant.ref] = None
        self._work.consider()

    async def set_aside(self, spoilt: Spoilt) -> None:
        """Take an instance out of circulation of which something cannot be decoded, until it is repaired."""
        reason = f"{spoilt.what} cannot be decoded: {spoilt.error}"
        instance_id = spoilt.instance_id
        try:
            if spoilt.task is not None:
                arguments = _tokens([spoilt.task], lambda _: False)
                await self._work.pool.fetch(self._work.sql["abandon"], self._work.hub, _SPOILT_TASK, *arguments)
            lease = None if spoilt.token is None else spoilt.token.lease
            rows = await self._work.pool.fetch(self._work.sql["quarantine"], self._work.hub, spoilt.ref, lease, reason)
            instance_id = rows[0][0] if rows else instance_id
        except Exception as error:
            logger.warning("an unreadable row could not be set aside: %s", error, extra={"event": "set_aside_failed"})
            return
        self._work.grants.drop(spoilt.ref)
        self._work.changed(instance_id)
        logger.error(
            "instance %s is quarantined: %s cannot be decoded (%s). Repair or remove the row, then release the "
            "instance with `durable-host instances release`",
            instance_id,
            spoilt.what,
            spoilt.error,
            extra={"event": "quarantined", "instance": instance_id},
        )


def _tokens(
    tokens: Sequence[InstanceToken | ActivityToken], waits: Callable[[InstanceToken], bool]
) -> tuple[list[int], list[int], list[bool], list[str], list[int], list[int] | None]:
    """Leases of both kinds as columns, and the rows that may carry some of the activities."""
    instances = [token for token in tokens if isinstance(token, InstanceToken)]
    tasks = [token for token in tokens if isinstance(token, ActivityToken)]
    return (
        [token.ref for token in instances],
        [token.lease for token in instances],
        [waits(token) for token in instances],
        [token.dispatch_id for token in tasks],
        [token.lease for token in tasks],
        carriers(tasks),
    )
