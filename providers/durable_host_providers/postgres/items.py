"""Work items from the rows of the answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import MsgspecError

from durable_host.model.codec import decode_task
from durable_host.model.ids import InstanceId
from durable_host.model.instance import HistoryVersion
from durable_host.model.messages import Message
from durable_host.storage.contract import ActivityWorkItem, Lease
from durable_host_providers._sql.rows import message_of

from .answers import (
    DELIVERIES,
    EVENT,
    EXECUTION,
    GENERATION,
    INSTANCE,
    KIND,
    LEASE,
    LENGTH,
    MESSAGE,
    MESSAGE_EXECUTION,
    REF,
    SEQ,
    STATUS,
    VISIBLE_AT,
    Answer,
    Kind,
)
from .grants import ActivityToken, Grant, Grants, InstanceToken

__all__ = ["Locked", "Spoilt", "locked_instances", "locked_tasks"]

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Locked:
    """A locked instance whose history is still to be read, if the caller does not hold it.

    Attributes:
        top_up: it was held already, and has received messages.
    """

    instance_id: InstanceId
    version: HistoryVersion | None
    inbox: Sequence[Message]
    token: InstanceToken
    top_up: bool
    until: float


@dataclass(slots=True)
class Spoilt:
    """A row that cannot be decoded: what it is, and the lease under which its instance is put aside."""

    instance_id: str
    what: str
    error: MsgspecError
    token: InstanceToken | None = None
    task: ActivityToken | None = None
    ref: int = 0


def locked_instances(
    answers: Sequence[Answer], grants: Grants, until: float, lease: int | None = None
) -> tuple[list[Locked], list[Spoilt], list[InstanceToken]]:
    """What a call has locked.

    Args:
        grants: where it is remembered.
        until: when the leases end, by the loop's time.
        lease: that of the call; what came under another one was held when the call was made, and got something new.
            None: the call asked for nothing of that kind.

    Returns:
        The instances, those that cannot be read, and those that were held, and are not any more: nobody knows how they
        stand by now.
    """
    found: list[Locked] = []
    spoilt: list[Spoilt] = []
    stale: list[InstanceToken] = []
    rows: dict[int, list[Answer]] = {}
    for answer in answers:
        if answer[KIND] == Kind.ITEM:
            rows.setdefault(answer[REF], []).append(answer)
    for ref, inbox in rows.items():
        first = inbox[0]
        token = InstanceToken(first[LEASE], ref)
        grant = grants.find(token)
        if grant is None and lease is not None and token.lease != lease:
            stale.append(token)
            continue
        top_up = grant is not None
        version = None if first[GENERATION] is None else HistoryVersion(first[GENERATION], first[LENGTH])
        if grant is None:
            grants.drop(ref)
            grant = Grant(ref, first[INSTANCE], token.lease, version, first[STATUS], first[EXECUTION])
        messages: list[Message] = []
        for row in inbox:
            if top_up and row[MESSAGE] in grant.given:
                continue
            try:
                messages.append(
                    message_of(
                        row[MESSAGE],
                        first[INSTANCE],
                        row[EVENT],
                        row[MESSAGE_EXECUTION],
                        row[VISIBLE_AT],
                        row[DELIVERIES],
                    )
                )
            except MsgspecError as error:
                spoilt.append(Spoilt(first[INSTANCE], f"message {row[MESSAGE]}", error, token, None, ref))
                messages.clear()
                break
            grant.given[row[MESSAGE]] = row[SEQ]
        if not messages:
            continue
        if not top_up:
            grants.add(grant)
        found.append(Locked(InstanceId(first[INSTANCE]), grant.version, messages, token, top_up, until))
    return found, spoilt, stale


def locked_tasks(answers: Sequence[Answer], lease: Lease) -> tuple[list[ActivityWorkItem], list[Spoilt]]:
    """The activities that a call has locked, and those that cannot be read; `lease` says how long."""
    found: list[ActivityWorkItem] = []
    spoilt: list[Spoilt] = []
    for answer in answers:
        if answer[KIND] != Kind.TASK:
            continue
        token = ActivityToken(answer[LEASE], answer[MESSAGE])
        try:
            task = decode_task(answer[EVENT])
        except MsgspecError as error:
            spoilt.append(Spoilt("", f"activity {answer[MESSAGE]}", error, None, token, answer[REF]))
            continue
        found.append(ActivityWorkItem(task, Lease(task.dispatch_id, token, lease.remaining), answer[DELIVERIES]))
    return found, spoilt
