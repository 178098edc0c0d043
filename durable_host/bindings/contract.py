"""The contract between the host and bindings: everything a third party implements to serve a new binding type.

A *binding provider* serves one or more binding types. When the app is loaded it makes, for each declared binding, a
`TriggerBinding`, `InputBinding` or `OutputBinding`, and is asked to refuse bad properties then. While the app runs the
traffic is:

    listener ── TriggerEvent ─▶ invoke ─▶ trigger.bind ─▶ inputs.read ─▶ function ─▶ outputs.write ─▶ InvocationResult
    listener ◀───────────────── response, delete or poison, next occurrence ────────────────────────────────────┘

`invoke` never raises for a failing function: the result says so. One trigger per function; a listener may start at most
one source of events and must give back what it holds when its context ends. Triggers without a source of their own
(orchestrations, activities) register their function with the engine instead and listen to nothing.

Providers are found through the entry-point group `durable_host.bindings`; each entry names an object that fits
`BindingProvider` or a function without parameters that makes one. The built-in types are made of the same contract.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from durable_host.bindings.routes import RouteTable
from durable_host.bindings.urls import ManagementUrls
from durable_host.engine.client import NON_RUNNING_STATES, TaskHubClient
from durable_host.environment import Environment
from durable_host.model.status import RuntimeStatus
from durable_host.storage.contract import HostStateStore

if TYPE_CHECKING:  # the executor pulls in the whole replay machinery, which a binding does not need
    from durable_host.executors.native import FunctionRegistry

__all__ = [
    "RETURN",
    "BindingDescriptor",
    "BindingError",
    "BindingProvider",
    "BoundTrigger",
    "Direction",
    "FunctionInfo",
    "HostServices",
    "InputBinding",
    "InvocationResult",
    "Invoke",
    "Listener",
    "OutputBinding",
    "OutputError",
    "TriggerBinding",
    "TriggerEvent",
    "TriggerTraits",
]

Direction = Literal["in", "out"]

RETURN = "$return"
"""Name of the output binding that takes the function's return value."""


class BindingError(ValueError):
    """A declared binding cannot be served: raised by a provider while the app is loaded; the text says why."""


class OutputError(TypeError, ValueError):
    """A function returned or set a value that its output cannot take; the text says what it takes.

    Raised by `write`. The log shows it without a traceback, in which the function would not appear.
    """


@dataclass(frozen=True, slots=True)
class FunctionInfo:
    """The function that a binding belongs to.

    Attributes:
        name: its registered name.
        target: the user's function.
        file, line: where it is defined.
        disabled: no listener is started; providers that show a disabled function (HTTP) may use this.
        input_type: what an orchestrator's `get_input()` decodes its input as; None: plain values.
    """

    name: str
    target: Callable[..., Any]
    file: str = ""
    line: int = 0
    disabled: bool = False
    input_type: object = None


@dataclass(frozen=True, slots=True)
class BindingDescriptor:
    """One declared binding.

    Attributes:
        name: of the function's parameter, or `$return`.
        type: as declared; types compare without case.
        properties: as declared, names in camelCase, `%SETTING%` already resolved in texts. Booleans and
            numbers may be texts.
        annotation: of the parameter (of the return value for `$return`), resolved where possible; None: there is none.
    """

    name: str
    type: str
    direction: Direction
    function: FunctionInfo
    properties: Mapping[str, object] = field(default_factory=dict[str, object])
    annotation: object = None

    @property
    def is_trigger(self) -> bool:
        """Whether this binding makes the function run."""
        return self.type.lower().endswith("trigger")

    def text(self, name: str, default: str | None = None) -> str | None:
        """A property as text; the default when it is absent or null."""
        value = self.properties.get(name)
        return default if value is None else str(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """A property as boolean; `"true"` counts.

        Raises:
            BindingError: it is neither.
        """
        value = self.properties.get(name)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        if str(value).strip().lower() in ("true", "false"):
            return str(value).strip().lower() == "true"
        raise BindingError(f"Invalid value specified for binding property '{name}' of type bool: {value!r}.")


@dataclass(frozen=True, slots=True)
class TriggerEvent:
    """Something happened that a function waits for.

    Attributes:
        value: what the trigger binding understands; its own type.
        reason: why the function runs, for the log.
        details: facts for the log; no payloads.
        traceparent, tracestate: W3C trace context of the caller.
        deliveries: how often the source has offered this event, this time included.
    """

    value: object = None
    reason: str = ""
    details: Mapping[str, str] = field(default_factory=dict[str, str])
    traceparent: str | None = None
    tracestate: str | None = None
    deliveries: int = 1


@dataclass(frozen=True, slots=True)
class BoundTrigger:
    """What a trigger makes of an event.

    Attributes:
        value: the argument of the function's parameter.
        data: binding data for expressions such as `{queueTrigger}` in other bindings of the function.
    """

    value: object
    data: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True)
class InvocationResult:
    """How an invocation ended; `error` is None when it succeeded, `value` what the function returned."""

    invocation_id: str
    value: object = None
    error: BaseException | None = None

    @property
    def succeeded(self) -> bool:
        """Whether function and bindings all succeeded."""
        return self.error is None


Invoke = Callable[[TriggerEvent], Awaitable[InvocationResult]]
"""Run the function once (with its retry policy, where the trigger declares support). Never raises for user code;
cancelling the call cancels an `async def` function."""


class Listener(Protocol):
    """Watches one source and invokes the function."""

    def listen(self) -> AbstractAsyncContextManager[None]:
        """Enter = started, without waiting for a first event; exit = stopped, running invocations finished."""
        ...


@dataclass(frozen=True, slots=True)
class TriggerTraits:
    """What a trigger is like.

    Attributes:
        implicit_return: the function's return value is taken although there is no `$return` binding.
        retries: the function's retry policy is applied.
    """

    implicit_return: bool = True
    retries: bool = False


class TriggerBinding(Protocol):
    """The one binding that makes a function run."""

    @property
    def traits(self) -> TriggerTraits:
        """What this trigger is like; constant."""
        ...

    def listener(self, invoke: Invoke) -> Listener | None:
        """The source of events, called once when the function is activated; None: events come from elsewhere."""
        ...

    def bind(self, event: TriggerEvent) -> BoundTrigger:
        """Turn an event into the argument and binding data. What it raises fails the invocation."""
        ...


class InputBinding(Protocol):
    """A declared input beside the trigger."""

    async def read(self, data: Mapping[str, object]) -> object:
        """The argument for one invocation. What it raises fails the invocation; the function is not called."""
        ...


class OutputBinding(Protocol):
    """A declared output."""

    async def write(self, value: object, data: Mapping[str, object]) -> None:
        """Make a value the function produced take effect, after the function succeeded.

        An output may have the attribute `step`: lower steps are complete before higher ones begin (0 when absent;
        1 for outputs that others react to, such as queues). What it raises fails the invocation.
        """
        ...


class BindingProvider(Protocol):
    """Serves binding types."""

    @property
    def types(self) -> Collection[str]:
        """Type names, for example `{"queueTrigger", "queue"}`."""
        ...

    def trigger(self, descriptor: BindingDescriptor, host: HostServices) -> TriggerBinding:
        """Make a trigger. Raises BindingError for bad properties."""
        ...

    def input(self, descriptor: BindingDescriptor, host: HostServices) -> InputBinding:
        """Make an input. Raises BindingError for bad properties, or when the type is no input."""
        ...

    def output(self, descriptor: BindingDescriptor, host: HostServices) -> OutputBinding:
        """Make an output. Raises BindingError for bad properties, or when the type is no output."""
        ...


def _no_setting(name: str) -> str | None:
    return None


def _no_hub(hub: str | None, connection: str | None) -> TaskHubClient | None:
    return None


@dataclass
class HostServices:
    """What the host offers to bindings. Members may be replaced until the first listener starts, not later.

    Attributes:
        routes: HTTP routes of the host.
        registry: where orchestrators and activities are registered.
        client: of the app's own task hub.
        urls: addresses of the management API for that hub.
        setting: looks up an app setting or environment variable.
        host_state: named leases and small documents; None: the store keeps none.
        hub_client: a client for another hub or connection; None: this host cannot reach it.
        script_root: the app folder.
        replaceable: statuses in which a start replaces an instance of the same id.
        make_client: what a `durableClient` parameter receives; set by the functions layer, which owns that class.
    """

    environment: Environment
    routes: RouteTable
    registry: FunctionRegistry
    client: TaskHubClient
    urls: ManagementUrls
    setting: Callable[[str], str | None] = _no_setting
    host_state: HostStateStore | None = None
    route_prefix: str = "api"
    hub_client: Callable[[str | None, str | None], TaskHubClient | None] = _no_hub
    script_root: Path = Path()
    replaceable: Collection[RuntimeStatus] = NON_RUNNING_STATES
    make_client: Callable[[TaskHubClient, ManagementUrls], object] | None = None
