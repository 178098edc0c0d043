"""What the client returns: statuses and purge results, in the shapes of azure-functions-durable."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum

from durable_host.functions.status_payload import history_payload, plain, visible_output
from durable_host.model.failure import Failure
from durable_host.model.history import HistoryEvent
from durable_host.model.instance import InstanceState
from durable_host.model.status import RuntimeStatus

__all__ = ["DurableOrchestrationStatus", "OrchestrationRuntimeStatus", "PurgeHistoryResult"]


class OrchestrationRuntimeStatus(Enum):
    """Where an instance stands."""

    Running = "Running"
    Completed = "Completed"
    ContinuedAsNew = "ContinuedAsNew"
    Failed = "Failed"
    Canceled = "Canceled"
    Terminated = "Terminated"
    Pending = "Pending"
    Suspended = "Suspended"

    @property
    def model(self) -> RuntimeStatus:
        """The same status as the engine calls it."""
        return RuntimeStatus(self.value)


class DurableOrchestrationStatus:
    """The status of an instance. False when there is no such instance; then every member is None.

    Payloads are decoded JSON values; what is no JSON (the text of a failure) is text.
    """

    def __init__(
        self,
        state: InstanceState | None = None,
        *,
        show_input: bool = True,
        history: Sequence[HistoryEvent] | None = None,
        show_history_output: bool = False,
    ) -> None:
        self._state = state
        self._show_input = show_input
        self._history = (
            None
            if history is None
            else history_payload(history, show_input=show_input, show_history_output=show_history_output, embed=plain)
        )

    def __bool__(self) -> bool:
        return self._state is not None

    def __repr__(self) -> str:
        if self._state is None:
            return "<DurableOrchestrationStatus: no such instance>"
        return f"<DurableOrchestrationStatus {self._state.instance_id!r} {self._state.name} {self._state.status.value}>"

    @property
    def name(self) -> str | None:
        """The orchestrator's name."""
        return None if self._state is None else self._state.name

    @property
    def instance_id(self) -> str | None:
        """The instance's id."""
        return None if self._state is None else self._state.instance_id

    @property
    def created_time(self) -> datetime | None:
        """When the present execution was created; aware, UTC."""
        return None if self._state is None else self._state.created_at

    @property
    def last_updated_time(self) -> datetime | None:
        """When something last happened; aware, UTC."""
        return None if self._state is None else self._state.updated_at

    @property
    def input_(self) -> object:
        """The input, when it was asked for."""
        return plain(self._state.input) if self._state is not None and self._show_input else None

    @property
    def output(self) -> object:
        """The output; of a failed instance the failure's text, of a terminated or suspended one the reason."""
        return None if self._state is None else plain(visible_output(self._state))

    @property
    def runtime_status(self) -> OrchestrationRuntimeStatus | None:
        """Where it stands."""
        return None if self._state is None else OrchestrationRuntimeStatus(self._state.status.value)

    @property
    def custom_status(self) -> object:
        """What the orchestrator set with `set_custom_status`."""
        return None if self._state is None else plain(self._state.custom_status)

    @property
    def history(self) -> list[dict[str, object]] | None:
        """The history when it was asked for, in the shape of the HTTP API (http-api.md 5.1)."""
        return self._history

    @property
    def historyEvents(self) -> list[dict[str, object]] | None:
        """The same as `history`, under the name where Azure's client leaves it."""
        return self._history

    # Beyond Azure's.

    @property
    def failure(self) -> Failure | None:
        """Type, message, stack and causes of a failed instance's failure."""
        return None if self._state is None else self._state.failure

    @property
    def tags(self) -> dict[str, str]:
        """The tags it was started with."""
        return {} if self._state is None else dict(self._state.tags or {})

    @property
    def version(self) -> str | None:
        """The version it was started with."""
        return None if self._state is None else self._state.orchestrator_version

    @property
    def parent_instance_id(self) -> str | None:
        """The instance that started it as a sub-orchestration."""
        if self._state is None or self._state.parent is None:
            return None
        return self._state.parent.instance_id

    def to_json(self) -> dict[str, object]:
        """The status as a JSON object, with the members and dates that Azure's client writes (http-api.md 15.5)."""
        status = self.runtime_status
        payload: dict[str, object] = {
            "name": self.name,
            "instanceId": self.instance_id,
            "createdTime": _date(self.created_time),
            "lastUpdatedTime": _date(self.last_updated_time),
            "output": self.output,
            "input": self.input_,
        }
        if status is not None:
            payload["runtimeStatus"] = status.value
        return payload | {"customStatus": self.custom_status, "history": self.history}


class PurgeHistoryResult:
    """How many instances a purge removed."""

    def __init__(self, instancesDeleted: int) -> None:
        self._instances_deleted = instancesDeleted

    @property
    def instances_deleted(self) -> int:
        """How many instances were removed."""
        return self._instances_deleted

    def __repr__(self) -> str:
        return f"<PurgeHistoryResult {self._instances_deleted}>"


def _date(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
