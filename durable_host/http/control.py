"""What the server asks of the host behind it: its functions, its state, and the few things an operator may do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["FunctionView", "HostControl"]


@dataclass(frozen=True, slots=True)
class FunctionView:
    """One function as `/admin/functions` shows it.

    Attributes:
        bindings: each as in function.json: `direction`, `type`, `name` and the type's own properties.
        route: of an HTTP function, the template with prefix (`api/start/{name}`); else None.
        errors: why it does not run; empty when it does.
    """

    name: str
    bindings: Sequence[Mapping[str, object]] = ()
    script_file: str = "function_app.py"
    entry_point: str = ""
    route: str | None = None
    disabled: bool = False
    errors: Sequence[str] = ()


class HostControl(Protocol):
    """The running host, for the admin endpoints."""

    @property
    def host_id(self) -> str:
        """The host id (functions-host.md 11.1)."""
        ...

    @property
    def instance_id(self) -> str:
        """Identity of this process."""
        ...

    @property
    def state(self) -> str:
        """`Starting`, `Running`, `Error`, `Stopping`, … (functions-host.md 9.7)."""
        ...

    @property
    def errors(self) -> Sequence[str]:
        """The last start error, when the state is `Error`."""
        ...

    @property
    def uptime(self) -> float:
        """Seconds since the process began."""
        ...

    @property
    def draining(self) -> bool:
        """Whether listeners were stopped by `drain`."""
        ...

    @property
    def outstanding(self) -> int:
        """Invocations that run now."""
        ...

    def functions(self) -> Sequence[FunctionView]:
        """All functions, those in error included, by name."""
        ...

    async def invoke(self, name: str, value: str) -> None:
        """Run a function by hand, with the text as its trigger's value; its failure is logged, not raised."""
        ...

    async def drain(self) -> None:
        """Stop all listeners, cancel nothing."""
        ...

    async def resume(self) -> bool:
        """Undo a drain; False when there is nothing to resume."""
        ...
