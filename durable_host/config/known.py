"""The settings of host.json that Azure knows, and what this host makes of each.

Four kinds: used by `host_json.py`, accepted silently because they have no meaning here or their effect is always given,
refused with one warning while they are in use because a later version brings them, and unknown ones, which are warned
about with the name that was probably meant.

Source: functions-host.md 1.2 to 1.9; azure-storage-task-hub.md 7.2 and 7.3.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from durable_host.config.jsonc import Json
from durable_host.config.tree import Node, Report

__all__ = ["AZURE_STORAGE_KEYS", "LATER", "SILENT", "USED", "check_keys", "near_miss"]

USED: Collection[str] = (
    "version",
    "functionTimeout",
    "functions",
    "watchDirectories",
    "watchFiles",
    "logging.logLevel.*",
    "logging.console.isEnabled",
    "extensions.http.routePrefix",
    "extensions.http.maxOutstandingRequests",
    "extensions.http.maxConcurrentRequests",
    "extensions.http.customHeaders.*",
    "extensions.durableTask.hubName",
    "extensions.durableTask.storageProvider.*",
    "extensions.durableTask.maxConcurrentActivityFunctions",
    "extensions.durableTask.maxConcurrentOrchestratorFunctions",
    "extensions.durableTask.maxOrchestrationActions",
    "extensions.durableTask.overridableExistingInstanceStates",
    "extensions.durableTask.storeInputsInOrchestrationHistory",
    "extensions.durableTask.localRpcEndpointEnabled",
    "extensions.durableTask.httpSettings.useForwardedHost",
    "extensions.durableTask.useAppLease",
    "extensions.durableTask.appLeaseOptions.leaseInterval",
    "extensions.durableTask.appLeaseOptions.renewInterval",
    "extensions.durableTask.appLeaseOptions.acquireInterval",
)

SILENT: Collection[str] = (
    "$schema",
    "isDefaultHostConfig",
    "SequentialRestart",
    "extensionBundle.*",
    "managedDependency.*",
    "managedDependencies.*",
    "customHandler.*",
    "httpWorker.*",
    "aggregator.*",
    "telemetryMode",
    "metadataProviderTimeout",
    "logging.fileLoggingMode",
    "logging.applicationInsights.*",
    "logging.console.*",
    "extensions.http.enableChunkedRequestBinding",
    "extensions.durableTask.extendedSessionsEnabled",  # positions are always kept
    "extensions.durableTask.extendedSessionIdleTimeoutInSeconds",
    "extensions.durableTask.useGracefulShutdown",  # always graceful
    "extensions.durableTask.tracing.allowVerboseLinuxTelemetry",
    "extensions.durableTask.maxGrpcMessageSizeInBytes",
    "extensions.durableTask.grpcHttpClientTimeout",
)

# Name → values under which the setting asks for nothing.
LATER: dict[str, tuple[Json, ...]] = {
    "retry.*": (),
    "singleton.*": (),
    "concurrency.dynamicConcurrencyEnabled": (False,),
    "concurrency.*": (),
    "healthMonitor.enabled": (False, True),  # in effect only where the environment says so, see check_keys
    "healthMonitor.*": (),
    "sendCanceledInvocationsToWorker": (True,),
    "extensions.http.dynamicThrottlesEnabled": (False,),
    "extensions.http.hsts.isEnabled": (False,),
    "extensions.http.hsts.*": (),
    "extensions.queues.*": (),
    "extensions.blobs.*": (),
    "extensions.serviceBus.*": (),
    "extensions.eventHubs.*": (),
    "extensions.cosmosDB.*": (),
    "extensions.signalR.*": (),
    "extensions.sendGrid.*": (),
    "extensions.kafka.*": (),
    "extensions.rabbitMQ.*": (),
    "extensions.warmup.*": (),
    "extensions.durableTask.maxConcurrentEntityFunctions": (),
    "extensions.durableTask.maxEntityOperationBatchSize": (5000,),
    "extensions.durableTask.entityMessageReorderWindowInMinutes": (30,),
    "extensions.durableTask.rollbackEntityOperationsOnExceptions": (True,),
    "extensions.durableTask.throwStatusExceptionsOnRaiseEvent": (True,),
    "extensions.durableTask.httpSettings.defaultAsyncRequestSleepTimeMilliseconds": (30000,),
    "extensions.durableTask.tracing.traceInputsAndOutputs": (False,),
    "extensions.durableTask.tracing.traceReplayEvents": (False,),
    "extensions.durableTask.tracing.distributedTracingEnabled": (False,),
    "extensions.durableTask.tracing.distributedTracingProtocol": (
        "HttpCorrelationProtocol",
        "W3CTraceContext",
        "None",
    ),
    "extensions.durableTask.tracing.version": ("None", "V1", "V2"),
    "extensions.durableTask.notifications.eventGrid.topicEndpoint": ("",),
    "extensions.durableTask.notifications.eventGrid.*": (),
    "extensions.durableTask.defaultVersion": ("",),
    "extensions.durableTask.versionMatchStrategy": ("CurrentOrOlder", "None"),
    "extensions.durableTask.versionFailureStrategy": ("Reject",),
}

# Sections that are reported by one warning however many keys they hold, with the key that switches them on, if any.
_ONE_WARNING = {
    "retry": None,
    "singleton": None,
    "concurrency": "dynamicConcurrencyEnabled",
    "healthMonitor": None,
    "extensions.http.hsts": "isEnabled",
    "extensions.queues": None,
    "extensions.blobs": None,
    "extensions.serviceBus": None,
    "extensions.eventHubs": None,
    "extensions.cosmosDB": None,
    "extensions.signalR": None,
    "extensions.sendGrid": None,
    "extensions.kafka": None,
    "extensions.rabbitMQ": None,
    "extensions.warmup": None,
    "extensions.durableTask.notifications.eventGrid": "topicEndpoint",
}

AZURE_STORAGE_KEYS = frozenset(
    {
        "connectionname",
        "connectionstringname",
        "trackingstoreconnectionname",
        "trackingstoreconnectionstringname",
        "trackingstorenameprefix",
        "partitioncount",
        "controlqueuebatchsize",
        "controlqueuebufferthreshold",
        "controlqueuevisibilitytimeout",
        "workitemqueuevisibilitytimeout",
        "maxqueuepollinginterval",
        "fetchlargemessagesautomatically",
        "uselegacypartitionmanagement",
        "usetablepartitionmanagement",
        "allowreplayingterminalinstances",
        "queueclientmessageencoding",
    }
)
"""Keys of `storageProvider` that only Azure Storage has, in lower case."""


def check_keys(root: Node, report: Report) -> None:
    """Warn about what is in the tree and has no effect."""
    _check(root, report)


def _check(node: Node, report: Report) -> None:
    for key, value in node:
        path = node.at(key)
        lowered = path.lower()
        section = _SECTIONS.get(lowered)
        if section is not None:
            _check_section(node, key, value, section, report)
        elif lowered in _USED or lowered in _SILENT:
            continue
        elif lowered in _LATER:
            if not _is_off(value, _LATER[lowered]):
                report.warn(path, "is not supported yet and has no effect.")
        elif any(lowered.startswith(prefix) for prefix in _OPEN):
            continue
        elif lowered in _PARENTS:
            if isinstance(value, dict):
                _check(node.node(key), report)
            elif value is not None:
                node.node(key)  # notes the problem
        else:
            guess = near_miss(key, _children(node.path))
            report.warn(
                path, "is not a known setting and has no effect." + (f" Did you mean {guess!r}?" if guess else "")
            )


def _check_section(node: Node, key: str, value: Json, name: str, report: Report) -> None:
    if not value or not isinstance(value, dict):
        return
    path = node.at(key)
    if name == "healthMonitor":
        # Upstream it works on App Service only; elsewhere it takes the environment to switch it on.
        if f"{path}.enabled".lower() in report.overrides and node.node(key).flag("enabled", False):
            report.warn(path, "is not supported yet and has no effect.")
        return
    switch = _ONE_WARNING[name]
    if switch is None or not _is_off(node.node(key).raw(switch), (False, "")):
        report.warn(path, "is not supported yet and has no effect.")


def _is_off(value: Json, off: tuple[Json, ...]) -> bool:
    if value is None:
        return True
    text = str(value).strip().lower()
    return any(text == str(each).lower() for each in off)


def near_miss(name: str, known: Collection[str]) -> str | None:
    """The known name that was probably meant."""
    import difflib  # rare, and not needed for a start without mistakes

    lowered = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.7)
    return lowered[found[0]] if found else None


def _children(path: str) -> list[str]:
    prefix = f"{path}.".lower() if path else ""
    names: dict[str, None] = {}
    for each in _all_names():
        if each.lower().startswith(prefix):
            names[each[len(prefix) :].split(".")[0]] = None
    names.pop("*", None)
    return list(names)


def _all_names() -> Iterator[str]:
    yield from USED
    yield from SILENT
    yield from LATER


def _exact(names: Collection[str]) -> frozenset[str]:
    return frozenset(each.lower() for each in names if not each.endswith("*"))


_USED = _exact(USED)
_SILENT = _exact(SILENT)
_LATER = {each.lower(): off for each, off in LATER.items() if not each.endswith("*")}
_OPEN = tuple(each[:-1].lower() for each in (*USED, *SILENT) if each.endswith("*"))
_SECTIONS = {each.lower(): each for each in _ONE_WARNING}
_PARENTS = frozenset(
    ".".join(parts[:count]).lower()
    for parts in (each.split(".") for each in _all_names())
    for count in range(1, len(parts))
)
