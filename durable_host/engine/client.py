"""TaskHubClient: start, raise, query, rewind … against any store, for library use and for everything above it."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, overload

import msgspec

from durable_host.environment import Environment, system_environment
from durable_host.errors import (
    InstanceExistsError,
    InstanceNotFoundError,
    InvalidStateError,
    PayloadError,
    StoreUnavailableError,
    WaitTimeoutError,
)
from durable_host.model.failure import storable
from durable_host.model.history import (
    EventRaised,
    ExecutionResumed,
    ExecutionRewound,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    HistoryEvent,
)
from durable_host.model.ids import ExecutionId, InstanceId, MessageId, check_instance_id
from durable_host.model.instance import InstancePage, InstanceQuery, InstanceState
from durable_host.model.messages import Message
from durable_host.model.names import function_name
from durable_host.model.payloads import decode_payload, encode_payload
from durable_host.model.status import TERMINAL, RuntimeStatus
from durable_host.storage.contract import TaskHubStore

__all__ = ["ANY_STATE", "NON_RUNNING_STATES", "TaskHubClient"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

NON_RUNNING_STATES: frozenset[RuntimeStatus] = TERMINAL
"""Default reuse policy: an instance that has ended gives way to a start under its id."""

ANY_STATE: frozenset[RuntimeStatus] = frozenset(RuntimeStatus)
"""Reuse policy: any instance gives way."""

_PURGE_PAGE = 500
_ATTEMPTS = 5
_EARLY = 0.001
"""Seconds before the end of a wait that cannot be an inaccuracy of the loop's timers."""


class TaskHubClient:
    """Everything that acts on instances from outside.

    Inputs, event data and outputs are values that JSON can carry (`durable_host.model.payloads`); the `…_json`
    parameters take JSON text that is stored as it stands. A call that meets a store that cannot be reached is repeated
    a few times with the same message id, so that the store keeps it once.
    """

    def __init__(self, store: TaskHubStore, environment: Environment | None = None) -> None:
        self.store = store
        self._environment = environment or system_environment()

    # Starting.

    async def start(
        self,
        orchestrator: str | Callable[..., Any],
        input: object = None,
        *,
        instance_id: str | None = None,
        start_at: datetime | timedelta | None = None,
        tags: Mapping[str, str] | None = None,
        version: str | None = None,
        replaceable: Collection[RuntimeStatus] = NON_RUNNING_STATES,
        input_json: str | None = None,
        traceparent: str | None = None,
        tracestate: str | None = None,
        restarted_from: InstanceId | None = None,
        connection: object | None = None,
    ) -> InstanceId:
        """Start an instance; it can be queried when this returns.

        Args:
            instance_id: 1 to 256 characters (`check_instance_id`); None: generated.
            start_at: not before; naive means UTC; a timedelta counts from now.
            replaceable: statuses in which an instance of the same id gives way.
            input_json: JSON text to use in place of `input`.
            connection: the caller's database connection with an open transaction, where the store takes one.

        Raises:
            InvalidInstanceIdError, PayloadError: nothing was started.
            InstanceExistsError: the id is in use by an instance whose status is not in `replaceable`.
        """
        now = self._environment.clock.now()
        name = function_name(orchestrator)
        _check_texts(name, version, *(text for pair in tags.items() for text in pair) if tags else ())
        allowed: frozenset[RuntimeStatus] = frozenset()
        if instance_id is None:
            target = InstanceId(self._environment.ids.new_id())
        else:
            target = check_instance_id(instance_id)
            allowed = frozenset(replaceable)
        scheduled = _moment(start_at, now)
        event = ExecutionStarted(
            timestamp=now,
            instance_id=target,
            execution_id=ExecutionId(self._environment.ids.new_id()),
            name=name,
            version=version,
            input=_text(input, input_json),
            tags=dict(tags) if tags else None,
            traceparent=traceparent,
            tracestate=tracestate,
            scheduled_at=scheduled,
            generation=0,
            replaceable=_in_order(allowed),
            restarted_from=restarted_from,
        )
        start = Message(
            id=MessageId(self._environment.ids.new_id()),
            target=target,
            event=event,
            execution_id=event.execution_id,
            visible_at=scheduled if scheduled is not None and scheduled > now else None,
            deliveries=0,
        )
        # A new id is the usual case, and a store that does all or nothing tells by itself whether it is one.
        may_be_new = instance_id is None or self.store.traits.atomic_commit
        if not (may_be_new and await self._create(start, frozenset(), connection)):
            await self._replace(start, event, allowed, connection)
        return target

    async def _create(self, start: Message, replaceable: frozenset[RuntimeStatus], connection: object | None) -> bool:
        return await self._retry(
            lambda: self.store.create_instance(start, replaceable=replaceable, transaction=connection),
            repeat=connection is None,
        )

    async def _replace(
        self, start: Message, event: ExecutionStarted, allowed: frozenset[RuntimeStatus], connection: object | None
    ) -> None:
        """Start where an instance may stand already, if that gives way."""
        target = start.target
        present = await self._retry(lambda: self.store.get_instance(target, with_payloads=False))
        if present is not None:
            if present.status not in allowed:
                raise InstanceExistsError(target, present.status.value)
            following = msgspec.structs.replace(event, generation=(present.starts or 0) + 1)
            start = msgspec.structs.replace(start, event=following)
        if not await self._create(start, allowed, connection):
            winner = await self.store.get_instance(target, with_payloads=False)
            raise InstanceExistsError(target, winner.status.value if winner else RuntimeStatus.PENDING.value)

    async def restart(
        self, instance_id: str, *, new_instance_id: str | None = None, same_id: bool = False, version: str | None = None
    ) -> InstanceId:
        """Start the same orchestrator with the stored input, under a new id or its own.

        Raises:
            InstanceNotFoundError: there is nothing to restart.
            InstanceExistsError: the id in effect belongs to an instance that has not ended.
        """
        old = await self.require(instance_id)
        target = old.instance_id if same_id else new_instance_id
        return await self.start(
            old.name,
            instance_id=target,
            input_json=old.input if old.input is not None else "null",
            tags=old.tags,
            version=version if version is not None else old.orchestrator_version,
            restarted_from=old.instance_id,
        )

    # Messages to instances.

    async def raise_event(
        self,
        instance_id: str,
        name: str,
        data: object = None,
        *,
        data_json: str | None = None,
        message_id: str | None = None,
        traceparent: str | None = None,
        connection: object | None = None,
    ) -> None:
        """Raise an external event. It is kept until the orchestrator waits for it.

        Args:
            data_json: JSON text to use in place of `data`.
            message_id: identity of this event; a caller that repeats a call passes the same one.
            connection: the caller's database connection with an open transaction, where the store takes one. An
                instance that is not there may be one that this transaction starts, so nobody is told of it then.

        Raises:
            InstanceNotFoundError: no such instance.
            InvalidStateError: it has ended.
        """
        _check_texts(name)
        state = await (self.require(instance_id) if connection is None else self.get(instance_id))
        if state is not None:
            self._refuse_ended(state, "raise an event in")
        target = check_instance_id(instance_id) if state is None else state.instance_id
        event = EventRaised(
            timestamp=self._environment.clock.now(), name=name, input=_text(data, data_json), traceparent=traceparent
        )
        await self._send(target, event, message_id, connection)

    async def terminate(self, instance_id: str, reason: str | None = None, *, recursive: bool = False) -> None:
        """Ask for the end of an instance; with `recursive`, of its open children as well. Errors as `raise_event`."""
        _check_texts(reason)
        state = await self.require(instance_id)
        self._refuse_ended(state, "terminate")
        now = self._environment.clock.now()
        await self._send(state.instance_id, ExecutionTerminated(timestamp=now, reason=reason, recursive=recursive))

    async def suspend(self, instance_id: str, reason: str | None = None) -> None:
        """Stop running the orchestrator's code until `resume`. Errors as `raise_event`."""
        _check_texts(reason)
        state = await self.require(instance_id)
        self._refuse_ended(state, "suspend")
        await self._send(state.instance_id, ExecutionSuspended(timestamp=self._environment.clock.now(), reason=reason))

    async def resume(self, instance_id: str, reason: str | None = None) -> None:
        """Go on after `suspend`. Errors as `raise_event`."""
        _check_texts(reason)
        state = await self.require(instance_id)
        self._refuse_ended(state, "resume")
        await self._send(state.instance_id, ExecutionResumed(timestamp=self._environment.clock.now(), reason=reason))

    async def rewind(self, instance_id: str, reason: str | None = None) -> None:
        """Run the failed calls of a failed instance again, those of its failed children included.

        Raises:
            InstanceNotFoundError: no such instance.
            InvalidStateError: its status is not Failed, or it is quarantined (release it instead).
        """
        _check_texts(reason)
        state = await self.require(instance_id)
        if state.status is not RuntimeStatus.FAILED or state.quarantined is not None:
            raise InvalidStateError(
                instance_id,
                state.status.value,
                "rewind",
                f"Instance {instance_id!r} is quarantined; release it instead of rewinding it."
                if state.quarantined is not None
                else f"This orchestration has status {state.status.value}, but only orchestrations in the "
                '"Failed" state can be rewound.',
            )
        await self._send(state.instance_id, ExecutionRewound(timestamp=self._environment.clock.now(), reason=reason))

    async def release_quarantined(self, instance_ids: Collection[str]) -> int:
        """Let quarantined instances try again; says how many there were."""
        ids = [InstanceId(each) for each in instance_ids if storable(each) == each]
        return await self._retry(lambda: self.store.release_quarantined(ids))

    # Asking.

    async def get(self, instance_id: str, *, with_payloads: bool = True) -> InstanceState | None:
        """The instance's state, or None."""
        if storable(instance_id) != instance_id:
            return None
        return await self._retry(lambda: self.store.get_instance(InstanceId(instance_id), with_payloads=with_payloads))

    async def require(self, instance_id: str, *, with_payloads: bool = True) -> InstanceState:
        """The instance's state; raises InstanceNotFoundError."""
        state = await self.get(instance_id, with_payloads=with_payloads)
        if state is None:
            raise InstanceNotFoundError(instance_id)
        return state

    async def query(self, query: InstanceQuery) -> InstancePage:
        """One page of instances."""
        return await self._retry(lambda: self.store.query_instances(query))

    async def instances(self, query: InstanceQuery | None = None) -> AsyncIterator[InstanceState]:
        """All instances that match, page by page."""
        current = query or InstanceQuery()
        while True:
            page = await self.query(current)
            for state in page.instances:
                yield state
            if page.cursor is None:
                return
            current = msgspec.structs.replace(current, cursor=page.cursor)

    async def history(self, instance_id: str) -> Sequence[HistoryEvent]:
        """Events of the present execution, oldest first; raises InstanceNotFoundError."""
        if storable(instance_id) != instance_id:
            raise InstanceNotFoundError(instance_id)
        events = await self._retry(lambda: self.store.get_history(InstanceId(instance_id)))
        if events is None:
            raise InstanceNotFoundError(instance_id)
        return events

    async def wait_for_start(self, instance_id: str, *, timeout: timedelta | None = None) -> InstanceState:
        """The state as soon as the instance exists and is not Pending. Raises WaitTimeoutError."""
        return await self._wait(
            instance_id, lambda state: state.status is not RuntimeStatus.PENDING, timeout, "start", self._next
        )

    async def wait_for_completion(self, instance_id: str, *, timeout: timedelta | None = None) -> InstanceState:
        """The state once the instance has ended. Raises WaitTimeoutError, or InstanceNotFoundError after a purge."""
        return await self._wait(
            instance_id, lambda state: state.status.is_terminal, timeout, "end", self._end, looks=True
        )

    @overload
    async def result(self, instance_id: str, *, timeout: timedelta | None = None) -> Any: ...
    @overload
    async def result(self, instance_id: str, type: type[T], *, timeout: timedelta | None = None) -> T: ...
    @overload
    async def result(self, instance_id: str, type: Any, *, timeout: timedelta | None = None) -> Any: ...
    async def result(self, instance_id: str, type: Any = Any, *, timeout: timedelta | None = None) -> Any:
        """Wait for the end and return the output, decoded as `type`.

        Raises:
            InvalidStateError: the instance failed or was terminated; the text is what was recorded.
        """
        state = await self.wait_for_completion(instance_id, timeout=timeout)
        if state.status is not RuntimeStatus.COMPLETED:
            raise InvalidStateError(
                instance_id,
                state.status.value,
                "result",
                f"Instance {instance_id!r} ended with status {state.status.value}: {state.output}",
            )
        return decode_payload(state.output, type)

    # Removing.

    async def purge(self, instance_id: str, *, force: bool = False) -> int:
        """Remove an ended instance; with `force`, any. Says how many were removed: 0 or 1.

        Raises:
            InstanceNotFoundError: no such instance.
            InvalidStateError: it has not ended.
        """
        state = await self.require(instance_id, with_payloads=False)
        if not force and not state.status.is_terminal:
            raise InvalidStateError(
                instance_id,
                state.status.value,
                "purge",
                "Only orchestrations in a terminal state can be purged, but the orchestration with instance ID "
                f"{instance_id} has status {state.status.value}",
            )
        return await self._retry(lambda: self.store.purge([state.instance_id], force=force))

    async def purge_by(self, query: InstanceQuery, *, force: bool = False) -> int:
        """Remove all instances that match; without `force` only those that have ended. Says how many."""
        statuses = query.statuses
        if not force:
            statuses = (statuses & TERMINAL) if statuses else TERMINAL
            if not statuses:
                return 0
        current = msgspec.structs.replace(query, statuses=statuses, with_payloads=False, limit=_PURGE_PAGE)
        removed = 0
        while True:
            page = await self.query(current)
            found = [state.instance_id for state in page.instances]
            if found:
                removed += await self._retry(lambda found=found: self.store.purge(found, force=force))  # type: ignore[misc]
            if page.cursor is None:
                return removed
            current = msgspec.structs.replace(current, cursor=page.cursor)

    # Inside.

    async def _send(
        self, target: InstanceId, event: HistoryEvent, message_id: str | None = None, connection: object | None = None
    ) -> None:
        message = Message(
            id=MessageId(message_id or self._environment.ids.new_id()), target=target, event=event, deliveries=0
        )
        await self._retry(lambda: self.store.send([message], transaction=connection), repeat=connection is None)

    async def _wait(
        self,
        instance_id: str,
        done: Callable[[InstanceState], bool],
        timeout: timedelta | None,
        what: str,
        wait: Callable[[InstanceId, InstanceState | None, timedelta], Awaitable[InstanceState | None]],
        *,
        looks: bool = False,
    ) -> InstanceState:
        # `looks`: the wait looks for itself before it waits, and returns None early only when the instance is gone.
        if storable(instance_id) != instance_id:
            raise InstanceNotFoundError(instance_id)
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout.total_seconds()
        state = None
        if not looks or (timeout is not None and timeout <= timedelta(0)):
            state = await self.get(instance_id)
        seen = state is not None
        while state is None or not done(state):
            if state is None and seen:
                raise InstanceNotFoundError(instance_id)
            left = 30.0 if end is None else min(30.0, end - loop.time())
            if left <= 0:
                raise WaitTimeoutError(
                    f"Instance {instance_id!r} did not {what} within {timeout}; "
                    + ("it does not exist." if state is None else f"its status is {state.status.value}.")
                )
            until = loop.time() + left
            state = await self._retry(functools.partial(wait, InstanceId(instance_id), state, timedelta(seconds=left)))
            seen = seen or state is not None or (looks and loop.time() < until - _EARLY)
        return state

    async def _next(self, instance_id: InstanceId, seen: InstanceState | None, left: timedelta) -> InstanceState | None:
        return await self.store.wait_for_change(instance_id, after=seen, timeout=left)

    async def _end(self, instance_id: InstanceId, seen: InstanceState | None, left: timedelta) -> InstanceState | None:
        return await self.store.wait_for_end(instance_id, timeout=left)

    def _refuse_ended(self, state: InstanceState, operation: str) -> None:
        if state.status.is_terminal:
            raise InvalidStateError(
                state.instance_id,
                state.status.value,
                operation,
                f"Cannot {operation} instance {state.instance_id!r}: it has ended with status {state.status.value}.",
            )

    async def _retry(self, call: Callable[[], Awaitable[T]], *, repeat: bool = True) -> T:
        # The same message goes out each time, so a call that had its effect before the connection broke is harmless.
        pause = 0.1
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await call()
            except StoreUnavailableError:
                if not repeat or attempt == _ATTEMPTS:
                    raise
                logger.debug("store call is repeated", extra={"event": "client_retry", "attempt": attempt})
                await asyncio.sleep(pause * (0.5 + self._environment.ids.uniform()))
                pause *= 2
        raise AssertionError("unreachable")


@functools.cache
def _in_order(statuses: frozenset[RuntimeStatus]) -> tuple[RuntimeStatus, ...]:
    return tuple(sorted(statuses, key=lambda status: status.value))


def _check_texts(*texts: str | None) -> None:
    for text in texts:
        if text is not None and storable(text) != text:
            raise PayloadError(f"{text!r} cannot be stored: it holds a lone surrogate, which is no character")


def _text(value: object, text: str | None) -> str | None:
    if text is not None:
        if value is not None:
            raise PayloadError("give a value or its JSON text, not both")
        return text
    return None if value is None else encode_payload(value)


def _moment(at: datetime | timedelta | None, now: datetime) -> datetime | None:
    if at is None:
        return None
    if isinstance(at, timedelta):
        return now + at
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
