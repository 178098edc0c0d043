"""Durable bindings: `orchestrationTrigger`, `activityTrigger` and `durableClient`.

Orchestrators and activities have no source of their own: activating their trigger registers the function with the
engine's registry, which calls it when the task hub has work for it. An orchestrator is called directly (it is driven
step by step and may take no other bindings); an activity is an invocation like any other, so its other bindings, its
time limit and its log lines work as everywhere.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from durable_host.bindings.contract import (
    BindingDescriptor,
    BindingError,
    BoundTrigger,
    HostServices,
    InputBinding,
    Invoke,
    Listener,
    OutputBinding,
    TriggerBinding,
    TriggerEvent,
    TriggerTraits,
)
from durable_host.engine.annotations import input_type
from durable_host.engine.client import TaskHubClient
from durable_host.engine.executor import current_activity

if TYPE_CHECKING:  # a binding hands it on and never makes one
    from durable_host.engine.context import DurableOrchestrationContext

__all__ = ["DurableBindings", "durable_key"]

_ORCHESTRATION = "orchestrationtrigger"
_ACTIVITY = "activitytrigger"
_CLIENT = "durableclient"
_KEYS = {_ORCHESTRATION: "orchestration", _ACTIVITY: "activity"}


def durable_key(descriptor: BindingDescriptor) -> str:
    """The name under which orchestrators and clients call a durable function (python-sdk-protocol.md 1.3)."""
    return descriptor.text(_KEYS[descriptor.type.lower()]) or descriptor.function.name


class DurableBindings:
    """Provider of the durable binding types."""

    @property
    def types(self) -> Collection[str]:
        return ("orchestrationTrigger", "activityTrigger", "durableClient")

    def trigger(self, descriptor: BindingDescriptor, host: HostServices) -> TriggerBinding:
        if descriptor.type.lower() == _ORCHESTRATION:
            return _OrchestrationTrigger(descriptor, host)
        return _ActivityTrigger(descriptor, host)

    def input(self, descriptor: BindingDescriptor, host: HostServices) -> InputBinding:
        if descriptor.type.lower() != _CLIENT:
            raise BindingError(f"The binding type '{descriptor.type}' is a trigger, not an input.")
        return _ClientInput(descriptor, host)

    def output(self, descriptor: BindingDescriptor, host: HostServices) -> OutputBinding:
        raise BindingError(f"The binding type '{descriptor.type}' cannot be used for output.")


class _OrchestrationTrigger:
    def __init__(self, descriptor: BindingDescriptor, host: HostServices) -> None:
        self._descriptor = descriptor
        self._host = host

    @property
    def traits(self) -> TriggerTraits:
        return TriggerTraits()

    def listener(self, invoke: Invoke) -> Listener | None:
        function = self._descriptor.function
        target = function.target if function.input_type is None else _expecting(function.target, function.input_type)
        self._host.registry.add_orchestrator(target, name=durable_key(self._descriptor))
        return None

    def bind(self, event: TriggerEvent) -> BoundTrigger:
        raise TypeError("An orchestrator is run by the engine; start an instance of it instead.")


def _expecting(target: Callable[..., Any], input_type: object) -> Callable[[Any], Any]:
    @functools.wraps(target)
    def orchestrator(context: DurableOrchestrationContext) -> Any:
        context.expect_input(input_type)
        return target(context)

    return orchestrator


class _ActivityTrigger:
    def __init__(self, descriptor: BindingDescriptor, host: HostServices) -> None:
        self._descriptor = descriptor
        self._host = host

    @property
    def traits(self) -> TriggerTraits:
        return TriggerTraits()

    def listener(self, invoke: Invoke) -> Listener | None:
        async def run(input: Any) -> Any:
            task = current_activity.get()
            result = await invoke(TriggerEvent(input, traceparent=None if task is None else task.traceparent))
            if result.error is not None:
                raise result.error
            return result.value

        function = self._descriptor.function
        run.__name__ = run.__qualname__ = name = durable_key(self._descriptor)
        kind = input_type(inspect.unwrap(function.target), self._descriptor.name)
        self._host.registry.add_activity(run, name=name, input_type=kind)
        return None

    def bind(self, event: TriggerEvent) -> BoundTrigger:
        task = current_activity.get()
        return BoundTrigger(
            event.value, {"instanceId": None if task is None else task.instance_id, "data": event.value}
        )


class _ClientInput:
    def __init__(self, descriptor: BindingDescriptor, host: HostServices) -> None:
        self._host = host
        self._hub = descriptor.text("taskHub")
        self._connection = descriptor.text("connectionName")

    async def read(self, data: Mapping[str, object]) -> object:
        host = self._host
        if host.make_client is None:
            raise BindingError("This host offers no durable client.")
        client: TaskHubClient | None = host.client
        urls = host.urls
        hub, connection = self._hub or urls.hub, self._connection or urls.connection
        if (hub.lower(), connection.lower()) != (urls.hub.lower(), urls.connection.lower()):
            client = host.hub_client(self._hub, self._connection)
            urls = urls.for_hub(hub, connection)
        if client is None:
            raise BindingError(
                f"The task hub {hub!r} on connection {connection!r} cannot be reached: this host serves "
                f"{host.urls.hub!r} only. Leave out task_hub and connection_name to use it."
            )
        return host.make_client(client, urls)
