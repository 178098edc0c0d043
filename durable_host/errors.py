"""Every exception that durable_host raises on purpose.

    DurableHostError
    ├── ConfigurationError            host.json, settings, command line: the operator's to fix
    ├── IndexingError                 function_app.py: the app author's to fix
    ├── PayloadError                  a value that JSON cannot carry, or that does not fit its annotation
    ├── InvalidInstanceIdError        an id that breaks the rules of 1-256 characters
    ├── UnknownFunctionError          a start of an orchestrator that this app does not have
    ├── InstanceNotFoundError
    ├── InstanceExistsError           a start under an id that is in use
    ├── InvalidStateError             an operation that the instance's status does not allow
    ├── StoreError
    │   ├── StoreUnavailableError     the store could not be reached or refused the write; safe to retry after a delay
    │   ├── StoreMismatchError        not our store, another app's, or newer than this code
    │   └── UnsupportedError          the provider cannot do what was asked (caller transactions, rewind, …)
    ├── NotSupportedYetError          a feature that a later version brings
    ├── OrchestratorError             raised in or because of orchestrator code
    │   ├── NonDeterminismError       replay asked for something else than history holds
    │   └── ForeignAwaitableError     an orchestrator awaited or yielded something that is no task
    ├── TaskFailedError               a call failed; carries the recorded failure
    │   ├── ActivityFailedError
    │   └── SubOrchestrationFailedError
    └── WaitTimeoutError              the time given to a wait is up; also a TimeoutError

Texts say what happened, to which value, and what to do. Facts are attributes too, so callers never parse text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a cycle in types only: failures are values of the model
    from durable_host.model.failure import Failure

__all__ = [
    "ActivityFailedError",
    "ConfigurationError",
    "DurableHostError",
    "ForeignAwaitableError",
    "IndexingError",
    "InstanceExistsError",
    "InstanceNotFoundError",
    "InvalidInstanceIdError",
    "InvalidStateError",
    "NonDeterminismError",
    "NotSupportedYetError",
    "OrchestratorError",
    "PayloadError",
    "StoreError",
    "StoreMismatchError",
    "StoreUnavailableError",
    "SubOrchestrationFailedError",
    "TaskFailedError",
    "UnknownFunctionError",
    "UnsupportedError",
    "WaitTimeoutError",
]


class DurableHostError(Exception):
    """Root of all errors of durable_host."""


class _ProblemsError(DurableHostError):
    """Several problems, reported together."""

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class ConfigurationError(_ProblemsError):
    """host.json, the settings or the command line are wrong; `problems` lists everything found, each with its path."""


class IndexingError(_ProblemsError):
    """The app's functions cannot be loaded; `problems` lists everything found, each with file and line."""


class PayloadError(DurableHostError, ValueError):
    """A value cannot be carried as JSON, or JSON does not fit the annotation; `path` says where inside the value."""

    def __init__(self, message: str, *, path: str = "$") -> None:
        self.path = path
        super().__init__(message)


class InvalidInstanceIdError(DurableHostError, ValueError):
    """An instance id breaks a rule; checked at starts only."""

    def __init__(self, instance_id: str, rule: str) -> None:
        self.instance_id = instance_id
        self.rule = rule
        super().__init__(f"Instance id {instance_id!r} is not valid: {rule}.")


class UnknownFunctionError(DurableHostError, LookupError):
    """A start of an orchestrator that this app does not have; the text lists those it has."""

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        super().__init__(message)


class InstanceNotFoundError(DurableHostError, LookupError):
    """No instance has this id."""

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id
        super().__init__(f"No instance with id {instance_id!r} was found.")


class InstanceExistsError(DurableHostError):
    """A start under an id whose instance may not be replaced; `status` is the name of its runtime status."""

    def __init__(self, instance_id: str, status: str) -> None:
        self.instance_id = instance_id
        self.status = status
        super().__init__(f"An Orchestration instance with the status {status} already exists.")


class InvalidStateError(DurableHostError):
    """The instance's status does not allow the operation."""

    def __init__(self, instance_id: str, status: str, operation: str, message: str) -> None:
        self.instance_id = instance_id
        self.status = status
        self.operation = operation
        super().__init__(message)


class StoreError(DurableHostError):
    """Something about the store."""


class StoreUnavailableError(StoreError):
    """The store could not be reached, is locked, full or read-only; the effect is unknown. Retry after a delay."""


class StoreMismatchError(StoreError):
    """The store is not ours, is in use by another app, has other settings, or is newer than this code."""


class UnsupportedError(StoreError):
    """The provider cannot do this."""


class NotSupportedYetError(DurableHostError, NotImplementedError):
    """A feature that this version does not have yet."""


class OrchestratorError(DurableHostError):
    """Raised in, or because of, orchestrator code."""


class NonDeterminismError(OrchestratorError):
    """Replay asked for something else than history recorded: orchestrator code is not deterministic, or has changed."""


class ForeignAwaitableError(OrchestratorError, TypeError):
    """An orchestrator awaited or yielded something that is not one of the context's tasks."""


class TaskFailedError(DurableHostError):
    """A call made by an orchestrator failed.

    `reason` and `details` are the recorded texts; `failure` holds type, message, stack and the chain of causes where
    they are known. The text of the exception is the reason, a blank, a newline, a blank and the details, as in the
    Python SDK of Durable Functions.
    """

    def __init__(
        self, name: str, task_id: int, reason: str | None, details: str | None = None, failure: Failure | None = None
    ) -> None:
        self.name = name
        self.task_id = task_id
        self.reason = reason or ""
        self.details = details
        self.failure = failure
        super().__init__(self.reason if details is None else f"{self.reason} \n {details}")


class ActivityFailedError(TaskFailedError):
    """An activity failed."""


class SubOrchestrationFailedError(TaskFailedError):
    """A sub-orchestration failed or was terminated."""


class WaitTimeoutError(DurableHostError, TimeoutError):
    """The time given to a wait is up."""
