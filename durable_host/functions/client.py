"""DurableOrchestrationClient: Azure's names over TaskHubClient, in process.

Members, parameters and their meaning are those of azure-functions-durable 1.7.0. Its faults are not copied: a payload
is encoded once, lists follow paging to their end, the history is found under `history`, a restart returns the new id.
What Azure lacks stands beside it: `wait_for_completion`, `wait_for_start`, start times, tags, `timedelta`s, filters by
name and tag, recursive termination.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from durable_host.bindings.http_types import HttpRequest, HttpResponse
from durable_host.bindings.urls import ManagementUrls
from durable_host.engine.client import NON_RUNNING_STATES, TaskHubClient
from durable_host.errors import (
    InstanceNotFoundError,
    InvalidStateError,
    NotSupportedYetError,
    UnknownFunctionError,
    UnsupportedError,
    WaitTimeoutError,
)
from durable_host.functions.status import DurableOrchestrationStatus, OrchestrationRuntimeStatus, PurgeHistoryResult
from durable_host.functions.values import current_context
from durable_host.model.instance import InstanceQuery, InstanceState
from durable_host.model.names import function_name, unknown_function
from durable_host.model.status import TERMINAL, RuntimeStatus

__all__ = ["DurableOrchestrationClient"]

_Statuses = Collection[OrchestrationRuntimeStatus | RuntimeStatus]


class DurableOrchestrationClient:
    """Starts, queries and controls instances; what a `durable_client_input` parameter receives.

    Args:
        client: of the task hub.
        urls: addresses of the management API for that hub.
        known: names of the orchestrators that this host runs; None: the hub is another's, any name may be started.
        open_hub: a client for another hub or connection, or None where it cannot be reached.
        replaceable: statuses in which a start may replace an instance of the same id.
    """

    def __init__(
        self,
        client: TaskHubClient,
        urls: ManagementUrls,
        *,
        known: Callable[[], Sequence[str]] | None = None,
        open_hub: Callable[[str | None, str | None], TaskHubClient | None] | None = None,
        replaceable: Collection[RuntimeStatus] = NON_RUNNING_STATES,
    ) -> None:
        self._client = client
        self._urls = urls
        self._known = known
        self._open_hub = open_hub
        self._replaceable = replaceable

    @property
    def task_hub_name(self) -> str:
        """The hub's name."""
        return self._urls.hub

    @property
    def hub(self) -> TaskHubClient:
        """The typed client of the same hub, for everything that Azure's names do not cover."""
        return self._client

    # Starting.

    async def start_new(
        self,
        orchestration_function_name: str | Callable[..., Any],
        instance_id: str | None = None,
        client_input: Any = None,
        version: str | None = None,
        *,
        start_at: datetime | timedelta | None = None,
        tags: Mapping[str, str] | None = None,
        connection: object | None = None,
    ) -> str:
        """Start an instance; it can be queried when this returns, or when the caller's transaction has committed.

        An instance of the same id that has ended is replaced.

        Args:
            orchestration_function_name: its name, or the orchestrator itself.
            instance_id: 1 to 256 characters; generated if None.
            client_input: any JSON value, dataclass, datetime, …
            version: recorded for the instance.
            start_at: not before; a timedelta counts from now.
            tags: found again by queries.
            connection: your own connection to the hub's database with an open transaction: the instance is started if
                that commits. On PostgreSQL, of asyncpg or psycopg.

        Returns:
            The instance's id.

        Raises:
            UnknownFunctionError: the app has no such orchestrator; nothing was started.
            InvalidInstanceIdError, PayloadError: nothing was started.
            InstanceExistsError: an instance of this id has not ended.
            UnsupportedError: the store takes no such connection.
        """
        name = function_name(orchestration_function_name)
        if self._known is not None:
            known = self._known()
            if name.lower() not in {each.lower() for each in known}:
                raise UnknownFunctionError(name, unknown_function(name, "orchestrator", known))
        context = current_context.get()
        return await self._client.start(
            name,
            client_input,
            # Azure takes an empty id for "none".
            instance_id=instance_id or None,
            start_at=start_at,
            tags=tags,
            version=version,
            replaceable=self._replaceable,
            connection=connection,
            traceparent=None if context is None else context.trace_context.trace_parent or None,
            tracestate=None if context is None else context.trace_context.trace_state or None,
        )

    async def restart(self, instance_id: str, restart_with_new_instance_id: bool = True) -> str:
        """Start the same orchestrator with the stored input, under a new id or the old one.

        Returns:
            The id of the instance that was started.

        Raises:
            InstanceNotFoundError: there is nothing to restart.
            InstanceExistsError: the old id is to be used and its instance has not ended.
        """
        return await self._client.restart(instance_id, same_id=not restart_with_new_instance_id)

    # Asking.

    async def get_status(
        self,
        instance_id: str,
        show_history: bool = False,
        show_history_output: bool = False,
        show_input: bool = False,
    ) -> DurableOrchestrationStatus:
        """The status of an instance; one that is false when there is no such instance.

        Args:
            show_history: fill `history`.
            show_history_output: with `show_history`, results as well.
            show_input: fill `input_`, and inputs in the history.
        """
        state = await self._client.get(instance_id)
        if state is None:
            return DurableOrchestrationStatus()
        history = None
        if show_history and state.status is not RuntimeStatus.PENDING:
            try:
                history = await self._client.history(instance_id)
            except InstanceNotFoundError:  # purged between the two reads
                return DurableOrchestrationStatus()
        return DurableOrchestrationStatus(
            state, show_input=show_input, history=history, show_history_output=show_history_output
        )

    async def get_status_all(self) -> list[DurableOrchestrationStatus]:
        """The statuses of all instances, ordered by id."""
        return await self._statuses(InstanceQuery())

    async def get_status_by(
        self,
        created_time_from: datetime | None = None,
        created_time_to: datetime | None = None,
        runtime_status: _Statuses | None = None,
        instance_id_prefix: str | None = None,
        *,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> list[DurableOrchestrationStatus]:
        """The statuses of all instances that match every condition, ordered by id.

        Args:
            created_time_from, created_time_to: both inclusive; naive datetimes are UTC.
            runtime_status: any of these.
            name: of the orchestrator.
            tags: all of these.
        """
        query = _query(created_time_from, created_time_to, runtime_status, instance_id_prefix, name, tags)
        return await self._statuses(query)

    async def wait_for_start(self, instance_id: str, timeout: timedelta | None = None) -> DurableOrchestrationStatus:
        """The status as soon as the instance runs. Raises WaitTimeoutError."""
        return DurableOrchestrationStatus(await self._client.wait_for_start(instance_id, timeout=timeout))

    async def wait_for_completion(
        self, instance_id: str, timeout: timedelta | None = None
    ) -> DurableOrchestrationStatus:
        """The status as soon as the instance has ended. Raises WaitTimeoutError; InstanceNotFoundError if purged."""
        return DurableOrchestrationStatus(await self._client.wait_for_completion(instance_id, timeout=timeout))

    # Messages to instances.

    async def raise_event(
        self,
        instance_id: str,
        event_name: str,
        event_data: Any = None,
        task_hub_name: str | None = None,
        connection_name: str | None = None,
        *,
        connection: object | None = None,
    ) -> None:
        """Raise an external event. It is kept until the orchestrator waits for it.

        Args:
            connection: your own connection to the hub's database with an open transaction: the event is raised if that
                commits. An instance that is not there may be one that it starts, so nobody is told of it then.

        Raises:
            ValueError: the name is empty.
            InstanceNotFoundError: no such instance.
            InvalidStateError: it has ended.
            UnsupportedError: the store takes no such connection.
        """
        if event_name == "":
            raise ValueError("event_name must be a non-empty string.")
        client = self._of(task_hub_name, connection_name)
        await client.raise_event(instance_id, event_name, event_data, connection=connection)

    async def terminate(self, instance_id: str, reason: str | None = None, *, recursive: bool = False) -> None:
        """End an instance; with `recursive`, its open children as well. One that has ended stays as it is.

        Raises:
            InstanceNotFoundError: no such instance.
        """
        await self._ignoring_ended(self._client.terminate(instance_id, reason, recursive=recursive))

    async def suspend(self, instance_id: str, reason: str | None = None) -> None:
        """Stop running the orchestrator's code until `resume`. One that has ended stays as it is.

        Raises:
            InstanceNotFoundError: no such instance.
        """
        await self._ignoring_ended(self._client.suspend(instance_id, reason))

    async def resume(self, instance_id: str, reason: str | None = None) -> None:
        """Go on after `suspend`. One that has ended stays as it is.

        Raises:
            InstanceNotFoundError: no such instance.
        """
        await self._ignoring_ended(self._client.resume(instance_id, reason))

    async def rewind(
        self,
        instance_id: str,
        reason: str | None = None,
        task_hub_name: str | None = None,
        connection_name: str | None = None,
    ) -> None:
        """Run the failed calls of a failed instance again, those of its failed children included.

        Raises:
            InstanceNotFoundError: no such instance.
            InvalidStateError: its status is not Failed.
        """
        await self._of(task_hub_name, connection_name).rewind(instance_id, reason)

    # Removing.

    async def purge_instance_history(self, instance_id: str) -> PurgeHistoryResult:
        """Remove an instance that has ended.

        Raises:
            InvalidStateError: it has not ended.
        """
        try:
            return PurgeHistoryResult(await self._client.purge(instance_id))
        except InstanceNotFoundError:
            return PurgeHistoryResult(0)

    async def purge_instance_history_by(
        self,
        created_time_from: datetime | None = None,
        created_time_to: datetime | None = None,
        runtime_status: _Statuses | None = None,
        *,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> PurgeHistoryResult:
        """Remove all instances that have ended and match every condition; parameters as `get_status_by`.

        Raises:
            ValueError: `created_time_from` is missing, or a status is not one of an instance that has ended.
        """
        if created_time_from is None:
            raise ValueError("created_time_from is required when purging instance history")
        query = _query(created_time_from, created_time_to, runtime_status, None, name, tags)
        open_ones = sorted(status.value for status in query.statuses - TERMINAL)
        if open_ones:
            raise ValueError(f"only instances that have ended can be purged, not those {', '.join(open_ones)}")
        return PurgeHistoryResult(await self._client.purge_by(query))

    # Answers of starter functions.

    def create_http_management_payload(self, instance_id: str) -> dict[str, str]:
        """The addresses under which the instance is queried and controlled."""
        return self.get_client_response_links(None, instance_id)

    def get_client_response_links(self, request: HttpRequest | None, instance_id: str) -> dict[str, str]:
        """The same addresses, under the scheme and authority that the caller of `request` used."""
        urls = self._urls
        if request is not None and request.url:
            parts = urlsplit(request.url)
            if parts.scheme and parts.netloc:
                urls = urls.with_origin(f"{parts.scheme}://{parts.netloc}")
        return urls.management(instance_id)

    def create_check_status_response(self, request: HttpRequest, instance_id: str) -> HttpResponse:
        """A 202 with the management addresses, `Location` and `Retry-After`: what a starter answers at once."""
        payload = self.get_client_response_links(request, instance_id)
        return HttpResponse(
            json.dumps(payload),
            status_code=202,
            headers={
                "Content-Type": "application/json",
                "Location": payload["statusQueryGetUri"],
                "Retry-After": "10",
            },
        )

    async def wait_for_completion_or_create_check_status_response(
        self,
        request: HttpRequest,
        instance_id: str,
        timeout_in_milliseconds: int = 10000,
        retry_interval_in_milliseconds: int = 1000,
    ) -> HttpResponse:
        """The output if the instance ends in time, else the check-status response.

        Completed: 200 with the output; Terminated or Canceled: 200 with the status; Failed: 500 with the status.

        Args:
            retry_interval_in_milliseconds: must not exceed the timeout; the end is noticed at once all the same.

        Raises:
            ValueError: the interval exceeds the timeout.
        """
        if retry_interval_in_milliseconds > timeout_in_milliseconds:
            raise ValueError(
                f"Total timeout {timeout_in_milliseconds} (ms) should be bigger than "
                f"retry timeout {retry_interval_in_milliseconds} (ms)"
            )
        try:
            state = await self._client.wait_for_completion(
                instance_id, timeout=timedelta(milliseconds=timeout_in_milliseconds)
            )
        except (WaitTimeoutError, InstanceNotFoundError):
            return self.create_check_status_response(request, instance_id)
        return _ended_response(state)

    # Entities.

    async def read_entity_state(
        self, entityId: object, task_hub_name: str | None = None, connection_name: str | None = None
    ) -> Any:
        """Not there yet: entities come in a later version."""
        raise NotSupportedYetError("read_entity_state: entities come in a later version of durable_host.")

    async def signal_entity(
        self,
        entityId: object,
        operation_name: str,
        operation_input: Any = None,
        task_hub_name: str | None = None,
        connection_name: str | None = None,
    ) -> None:
        """Not there yet: entities come in a later version."""
        raise NotSupportedYetError("signal_entity: entities come in a later version of durable_host.")

    # Inside.

    async def _statuses(self, query: InstanceQuery) -> list[DurableOrchestrationStatus]:
        return [DurableOrchestrationStatus(state) async for state in self._client.instances(query)]

    async def _ignoring_ended(self, call: Any) -> None:
        try:
            await call
        except InvalidStateError:
            # As with Azure's client: whoever asks for the end of an instance gets what they want.
            return

    def _of(self, hub: str | None, connection: str | None) -> TaskHubClient:
        own = (self._urls.hub.lower(), self._urls.connection.lower())
        if ((hub or own[0]).lower(), (connection or own[1]).lower()) == own:
            return self._client
        found = None if self._open_hub is None else self._open_hub(hub, connection)
        if found is None:
            raise UnsupportedError(
                f"The task hub {hub or self._urls.hub!r} on connection {connection or self._urls.connection!r} cannot "
                f"be reached from here: this client serves {self._urls.hub!r}."
            )
        return found


def _query(
    created_from: datetime | None,
    created_to: datetime | None,
    statuses: _Statuses | None,
    prefix: str | None,
    name: str | None,
    tags: Mapping[str, str] | None,
) -> InstanceQuery:
    return InstanceQuery(
        statuses=frozenset(RuntimeStatus(each.value) for each in statuses or ()),
        names=frozenset() if name is None else frozenset((name,)),
        prefix=prefix or "",
        tags=tuple(sorted((tags or {}).items())),
        created_from=_utc(created_from),
        created_to=_utc(created_to),
    )


def _utc(at: datetime | None) -> datetime | None:
    if at is None:
        return None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _ended_response(state: InstanceState) -> HttpResponse:
    status = DurableOrchestrationStatus(state)
    completed = state.status is RuntimeStatus.COMPLETED
    body = status.output if completed else status.to_json()
    return HttpResponse(
        body if isinstance(body, str) else json.dumps(body),
        status_code=500 if state.status is RuntimeStatus.FAILED else 200,
        mimetype="application/json",
        headers={"Content-Type": "application/json"},
    )
