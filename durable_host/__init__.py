"""Durable functions anywhere. The usual way to use it:

    import durable_host as df

    app = df.FunctionApp()

Names are loaded when they are first used, so that a command which only looks at a hub does not load the function host.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from durable_host.bindings.http_types import AuthLevel, HttpRequest, HttpResponse
    from durable_host.engine.client import TaskHubClient
    from durable_host.engine.composites import task_all, task_any, when_all, when_all_settled, when_any
    from durable_host.engine.context import DurableOrchestrationContext
    from durable_host.engine.settings import EngineSettings
    from durable_host.engine.tasks import Task
    from durable_host.engine.timers import TimerTask
    from durable_host.errors import (
        ActivityFailedError,
        ConfigurationError,
        DurableHostError,
        IndexingError,
        InstanceExistsError,
        InstanceNotFoundError,
        InvalidInstanceIdError,
        InvalidStateError,
        NonDeterminismError,
        NotSupportedYetError,
        PayloadError,
        StoreUnavailableError,
        SubOrchestrationFailedError,
        TaskFailedError,
        UnknownFunctionError,
        WaitTimeoutError,
    )
    from durable_host.functions.app import Blueprint, DFApp, FunctionApp
    from durable_host.functions.client import DurableOrchestrationClient
    from durable_host.functions.status import (
        DurableOrchestrationStatus,
        OrchestrationRuntimeStatus,
        PurgeHistoryResult,
    )
    from durable_host.functions.values import Context, Out
    from durable_host.model.failure import Failure
    from durable_host.model.instance import InstanceQuery, InstanceState
    from durable_host.model.retry import RetryOptions
    from durable_host.model.status import RuntimeStatus
    from durable_host.storage.registry import open_hub
    from durable_host.worker import TaskHubWorker

__version__ = "0.1.0"

__all__ = [
    "ActivityFailedError",
    "AuthLevel",
    "Blueprint",
    "ConfigurationError",
    "Context",
    "DFApp",
    "DurableHostError",
    "DurableOrchestrationClient",
    "DurableOrchestrationContext",
    "DurableOrchestrationStatus",
    "EngineSettings",
    "Failure",
    "FunctionApp",
    "HttpRequest",
    "HttpResponse",
    "IndexingError",
    "InstanceExistsError",
    "InstanceNotFoundError",
    "InstanceQuery",
    "InstanceState",
    "InvalidInstanceIdError",
    "InvalidStateError",
    "NonDeterminismError",
    "NotSupportedYetError",
    "OrchestrationRuntimeStatus",
    "Out",
    "PayloadError",
    "PurgeHistoryResult",
    "RetryOptions",
    "RuntimeStatus",
    "StoreUnavailableError",
    "SubOrchestrationFailedError",
    "Task",
    "TaskFailedError",
    "TaskHubClient",
    "TaskHubWorker",
    "TimerTask",
    "UnknownFunctionError",
    "WaitTimeoutError",
    "__version__",
    "open_hub",
    "task_all",
    "task_any",
    "when_all",
    "when_all_settled",
    "when_any",
]

_HOMES = {
    "bindings.http_types": ("AuthLevel", "HttpRequest", "HttpResponse"),
    "engine.client": ("TaskHubClient",),
    "engine.composites": ("task_all", "task_any", "when_all", "when_all_settled", "when_any"),
    "engine.context": ("DurableOrchestrationContext",),
    "engine.settings": ("EngineSettings",),
    "engine.tasks": ("Task",),
    "engine.timers": ("TimerTask",),
    "errors": tuple(name for name in __all__ if name.endswith("Error")),
    "functions.app": ("Blueprint", "DFApp", "FunctionApp"),
    "functions.client": ("DurableOrchestrationClient",),
    "functions.status": ("DurableOrchestrationStatus", "OrchestrationRuntimeStatus", "PurgeHistoryResult"),
    "functions.values": ("Context", "Out"),
    "model.failure": ("Failure",),
    "model.instance": ("InstanceQuery", "InstanceState"),
    "model.retry": ("RetryOptions",),
    "model.status": ("RuntimeStatus",),
    "storage.registry": ("open_hub",),
    "worker": ("TaskHubWorker",),
}
_HOME_OF = {name: f"durable_host.{module}" for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
