"""DurableOrchestrationContext: what an orchestrator is given.

Names, parameters and meaning are those of Azure's Python programming model (azure-functions-durable 1.7.0); what it
lacks stands beside them: calling by function with typed results, timedeltas, when_all, when_any, map, events to other
instances, detached starts.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from types import MappingProxyType, SimpleNamespace
from typing import Any, Final, NoReturn, TypeVar, overload
from uuid import NAMESPACE_OID, NAMESPACE_URL, UUID, uuid5

from durable_host.engine.calls import Calls
from durable_host.engine.execution import Continuation, Execution
from durable_host.engine.tasks import (
    EventTask,
)
from durable_host.engine.timers import TimerTask, due
from durable_host.engine.waits import TimedEventTask
from durable_host.errors import NotSupportedYetError, PayloadError
from durable_host.model.history import ExecutionStarted, HistoryEvent
from durable_host.model.ids import ExecutionId, InstanceId, check_characters
from durable_host.model.payloads import decode_payload, encode_payload

__all__ = ["DurableOrchestrationContext"]

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")

_STATUS_LIMIT = 16 * 1024
_SDK_NAMESPACE = uuid5(NAMESPACE_OID, "9e952958-5e33-4daf-827f-2fa12937b875")
_SDK_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_NO_TAGS: Mapping[str, str] = MappingProxyType({})
_UNSET: Final = object()


class _ReplaySafeLogger(logging.LoggerAdapter[logging.Logger]):
    """Silent while past events are replayed, so that every line appears once."""

    def __init__(self, logger: logging.Logger, execution: Execution) -> None:
        super().__init__(logger, {"instance_id": execution.instance_id})
        self._execution = execution

    def isEnabledFor(self, level: int) -> bool:
        return not self._execution.is_replaying and not self._execution.closed and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


class DurableOrchestrationContext(Calls):
    """The only way for an orchestrator to act and to learn about the world.

    Methods that return a task take effect when they are called; yield (generator) or await (`async def`) the task to
    wait for its result. Inputs and results are what JSON can carry, see `durable_host.model.payloads`.
    """

    __slots__ = ("_execution", "_histories", "_input_type", "_logger", "_start", "_uuids")

    def __init__(
        self, execution: Execution, start: ExecutionStarted, histories: Sequence[HistoryEvent] | None = None
    ) -> None:
        super().__init__(execution)
        self._start = start
        self._histories = histories
        self._logger: _ReplaySafeLogger | None = None
        self._uuids = 0
        self._input_type: Any = Any

    # Who and when.

    @property
    def instance_id(self) -> InstanceId:
        """Id of this instance."""
        return self._execution.instance_id

    @property
    def execution_id(self) -> ExecutionId:
        """Id of this execution; continue-as-new begins another."""
        return self._execution.execution_id

    @property
    def parent_instance_id(self) -> InstanceId | None:
        """Id of the instance that called this one, or None."""
        parent = self._start.parent
        return None if parent is None else parent.instance_id

    @property
    def name(self) -> str:
        """Name of this orchestrator, as the start spelled it."""
        return self._start.name

    @property
    def version(self) -> str | None:
        """Version that the start asked for, or None."""
        return self._start.version

    @property
    def tags(self) -> Mapping[str, str]:
        """Tags of the start."""
        tags = self._start.tags
        return _NO_TAGS if tags is None else MappingProxyType(tags)

    @property
    def is_replaying(self) -> bool:
        """Whether the code is being led back to where it stood."""
        return self._execution.is_replaying

    @property
    def current_utc_datetime(self) -> datetime:
        """The time of the current episode, aware, UTC; the same on replay. Never goes back."""
        return self._execution.now

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that is silent during replay; `durable_host.orchestrators.<name>`."""
        if self._logger is None:
            self._logger = _ReplaySafeLogger(_logger(self._start.name), self._execution)
        return self._logger

    @property
    def input(self) -> Any:
        """The input as plain values; `get_input` gives it a type."""
        return decode_payload(self._start.input)

    @overload
    def get_input(self) -> Any: ...
    @overload
    def get_input(self, expected_type: type[T]) -> T: ...
    @overload
    def get_input(self, expected_type: Any) -> Any: ...
    def get_input(self, expected_type: Any = None) -> Any:
        """The input, with a type decoded as that; None when there is none. Raises PayloadError if it does not fit."""
        return decode_payload(self._start.input, self._input_type if expected_type is None else expected_type)

    def expect_input(self, expected_type: Any) -> None:
        """Say what `get_input` without a type decodes the input as, for decorators such as `orchestration_trigger`."""
        self._input_type = expected_type

    @property
    def histories(self) -> list[HistoryEvent]:
        """Start, results, timers and external events so far, oldest first.

        Only an orchestrator whose own code names `histories` has them: they would keep every result alive.
        """
        if self._histories is None:
            raise NotSupportedYetError(
                "context.histories is kept only for orchestrators that use it in their own body, not in helpers only; "
                "mention context.histories in the orchestrator and pass the list on."
            )
        return list(self._histories)

    @property
    def function_context(self) -> SimpleNamespace:
        """Further attributes of the trigger; empty here."""
        return SimpleNamespace()

    def new_uuid(self) -> str:
        """A UUID, version 5, that replay finds again; the value Azure's SDK gives."""
        self._require_active()
        text = f"{self.instance_id}_{self.current_utc_datetime.strftime(_SDK_TIME)}_{self._uuids}"
        self._uuids += 1
        return str(uuid5(_SDK_NAMESPACE, text))

    def new_guid(self) -> UUID:
        """As `new_uuid`, as UUID and by the SDK's other recipe."""
        self._require_active()
        text = f"{self.instance_id}_{self.current_utc_datetime}_{self._uuids}"
        self._uuids += 1
        return uuid5(NAMESPACE_URL, text)

    # Time and events.

    def create_timer(self, fire_at: datetime | timedelta) -> TimerTask:
        """Wake up at an instant (naive means UTC) or after a duration, however far away."""
        self._require_active()
        return TimerTask(self._execution, due(self._execution.now, fire_at))

    @overload
    def wait_for_external_event(self, name: str, *, timeout: timedelta | None = None) -> EventTask[Any]: ...
    @overload
    def wait_for_external_event(self, name: str, *, timeout: timedelta, default: object) -> EventTask[Any]: ...
    @overload
    def wait_for_external_event(
        self, name: str, expected_type: type[T], *, timeout: timedelta | None = None
    ) -> EventTask[T]: ...
    @overload
    def wait_for_external_event(
        self, name: str, expected_type: type[T], *, timeout: timedelta, default: A
    ) -> EventTask[T | A]: ...
    @overload
    def wait_for_external_event(
        self, name: str, expected_type: Any, *, timeout: timedelta | None = None
    ) -> EventTask[Any]: ...
    @overload
    def wait_for_external_event(
        self, name: str, expected_type: Any, *, timeout: timedelta, default: object
    ) -> EventTask[Any]: ...
    def wait_for_external_event(
        self, name: str, expected_type: Any = None, *, timeout: timedelta | None = None, default: object = _UNSET
    ) -> EventTask[Any]:
        """Wait for an event that somebody raises; its data is the result.

        Names compare without case. An event goes to exactly one wait, the oldest; events that came before are kept.

        Args:
            expected_type: shape of the data.
            timeout: wait no longer than this; a timer of the same execution.
            default: result when the time is up; without one WaitTimeoutError is raised.
        """
        self._require_active()
        execution = self._execution
        if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"the name of an event is a text, not {name!r}")
        shape = Any if expected_type is None else expected_type
        if timeout is None:
            if default is not _UNSET:
                raise TypeError("wait_for_external_event: a default needs a timeout")
            task: EventTask[Any] = EventTask(execution, name, shape)
            execution.events.wait(name, task)
            return task
        if default is _UNSET:
            return TimedEventTask(execution, name, shape, timeout)
        return TimedEventTask(execution, name, shape, timeout, default=(default,))

    def send_event(self, instance_id: str, name: str, data: object = None) -> None:
        """Raise an event in another instance; nothing comes back."""
        self._require_active()
        if not instance_id or not name:
            raise ValueError("send_event needs the id of an instance and the name of an event")
        text = None if data is None else encode_payload(data)
        self._execution.send_event(check_characters(instance_id), name, text)

    # The end, and what the world sees.

    def continue_as_new(
        self, input_: object = None, *, preserve_unprocessed_events: bool = True, version: str | None = None
    ) -> None:
        """End this execution when the code returns, and begin the next with this input.

        What is still open is dropped; the code's return value is ignored; an exception raised afterwards wins.

        Args:
            preserve_unprocessed_events: hand over external events that nobody has waited for.
            version: of the next execution; None keeps the present one.
        """
        self._require_active()
        text = None if input_ is None else encode_payload(input_)
        self._execution.continuation = Continuation(text, preserve_unprocessed_events, version)

    @property
    def will_continue_as_new(self) -> bool:
        """Whether `continue_as_new` was called."""
        return self._execution.continuation is not None

    def set_custom_status(self, status: object) -> None:
        """Show a JSON value of at most 16 KB (UTF-16) in the instance's status; None clears it."""
        self._require_active()
        text = encode_payload(status)
        if len(text) > _STATUS_LIMIT // 4 and len(text.encode("utf-16-le")) > _STATUS_LIMIT:
            raise PayloadError(
                f"The custom status has {len(text.encode('utf-16-le'))} bytes of UTF-16, {_STATUS_LIMIT} are allowed. "
                "Keep large values in the output or in a store of your own."
            )
        self._execution.custom_status = text

    @property
    def custom_status(self) -> Any:
        """The status as it was last set, as plain values."""
        return decode_payload(self._execution.custom_status)

    # What later versions bring.

    def call_http(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not in this version."""
        _later("call_http", "Call an activity that makes the request.")

    def call_entity(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not in this version."""
        _later("call_entity (durable entities)", "Keep the state in an orchestration or a store of your own.")

    def signal_entity(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not in this version."""
        _later("signal_entity (durable entities)", "Send an event to an orchestration that keeps the state.")


def _later(what: str, instead: str) -> NoReturn:
    raise NotSupportedYetError(
        f"context.{what} is not in this version of durable_host; a later one brings it. {instead}"
    )


@lru_cache(maxsize=1024)
def _logger(name: str) -> logging.Logger:
    return logging.getLogger(f"durable_host.orchestrators.{name}")
