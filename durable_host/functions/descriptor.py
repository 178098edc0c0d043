"""What is known about a function: collected by decorators in a `FunctionBuilder`, fixed in a `FunctionDescriptor`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from durable_host.bindings.contract import RETURN, BindingDescriptor, Direction, FunctionInfo
from durable_host.functions.retry_policy import RetryPolicy
from durable_host.model.names import NAME_ATTRIBUTE

__all__ = ["Declaration", "FunctionBuilder", "FunctionDescriptor", "source_of"]

_DURABLE_NAMES = {"orchestrationtrigger": "orchestration", "activitytrigger": "activity", "entitytrigger": "entityName"}


@dataclass(frozen=True, slots=True)
class Declaration:
    """One binding as a decorator declared it."""

    name: str
    type: str
    direction: Direction
    properties: Mapping[str, object] = field(default_factory=dict[str, object])

    @property
    def is_trigger(self) -> bool:
        """Whether this binding makes the function run."""
        return self.type.lower().endswith("trigger")


@dataclass
class FunctionBuilder:
    """A function while its decorators run; `target` may change when a wrapper around it is decorated as well."""

    target: Callable[..., Any]
    own_name: str | None = None
    bindings: list[Declaration] = field(default_factory=list[Declaration])
    retry: RetryPolicy | None = None
    input_type: type | None = None
    problems: list[str] = field(default_factory=list[str])

    @property
    def name(self) -> str:
        """The function's name in the app."""
        return self.own_name or str(getattr(self.target, "__name__", repr(self.target)))

    @property
    def durable_name(self) -> str:
        """The name under which orchestrators call it."""
        for binding in self.bindings:
            given = binding.properties.get(_DURABLE_NAMES.get(binding.type.lower(), ""))
            if given:
                return str(given)
        return self.name

    def mark(self) -> None:
        """Leave the registered name on the function, so that it can be called by object; see `function_name`."""
        if self.durable_name != getattr(self.target, "__name__", None):
            setattr(self.target, NAME_ATTRIBUTE, self.durable_name)


@dataclass(frozen=True, slots=True)
class FunctionDescriptor:
    """A function that passed all checks.

    Attributes:
        durable_name: what orchestrators and clients call it; the name for all other functions.
        bindings: trigger first.
        context_parameter: the function takes the invocation's `Context` as `context`.
    """

    info: FunctionInfo
    durable_name: str
    bindings: tuple[BindingDescriptor, ...]
    retry: RetryPolicy | None = None
    context_parameter: bool = False
    is_async: bool = False

    @property
    def name(self) -> str:
        """The function's name in the app."""
        return self.info.name

    @property
    def target(self) -> Callable[..., Any]:
        """The user's function."""
        return self.info.target

    @property
    def disabled(self) -> bool:
        """Whether an app setting switched it off."""
        return self.info.disabled

    @property
    def trigger(self) -> BindingDescriptor:
        """The trigger."""
        return self.bindings[0]

    @property
    def inputs(self) -> tuple[BindingDescriptor, ...]:
        """Inputs beside the trigger."""
        return tuple(each for each in self.bindings[1:] if each.direction == "in")

    @property
    def outputs(self) -> tuple[BindingDescriptor, ...]:
        """Outputs, `$return` included."""
        return tuple(each for each in self.bindings[1:] if each.direction == "out")

    @property
    def returns(self) -> BindingDescriptor | None:
        """The `$return` binding, if there is one."""
        return next((each for each in self.outputs if each.name == RETURN), None)

    def describe_bindings(self) -> list[dict[str, object]]:
        """The bindings as the admin API and tools show them (python-sdk-protocol.md 1.4)."""
        return [
            {"direction": each.direction.upper(), "type": each.type, "name": each.name, **each.properties}
            for each in self.bindings
        ]


def source_of(target: Callable[..., Any]) -> tuple[str, int]:
    """File and line of a function; ("", 0) when it has none."""
    code = getattr(inspect.unwrap(target), "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code is not None else ("", 0)
