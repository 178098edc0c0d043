"""host.json: found, read with the environment laid over it, and typed. All problems are reported together.

The file of an app is its own `host.json`, else the nearest one in a parent folder, no higher than the first folder with
a `.git` and no higher than home, else there is none and the defaults hold. Nothing here writes one.

Source: functions-host.md 1.1 to 1.11 and 1.14; hub name rules azure-storage-task-hub.md 1.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from durable_host.config.jsonc import Json, JsonFileError, read_json_file
from durable_host.config.known import check_keys
from durable_host.config.spans import format_span
from durable_host.config.tree import Node, Report, overlay
from durable_host.errors import ConfigurationError

__all__ = [
    "DurableOptions",
    "HostJson",
    "HttpOptions",
    "LoggingOptions",
    "default_hub_name",
    "find_host_json",
    "hub_name_problem",
    "load_host_json",
    "parse_host_json",
]

_MIGRATE = "See https://aka.ms/functions-hostjson"
_WELL_KNOWN = frozenset(
    {
        "version",
        "functionTimeout",
        "retry",
        "functions",
        "http",
        "watchDirectories",
        "watchFiles",
        "queues",
        "serviceBus",
        "eventHub",
        "singleton",
        "logging",
        "aggregator",
        "healthMonitor",
        "extensionBundle",
        "managedDependencies",
        "customHandler",
        "httpWorker",
        "extensions",
        "concurrency",
        "sendCanceledInvocationsToWorker",
        "metadataProviderTimeout",
    }
)
_LEVELS = ("Trace", "Debug", "Information", "Warning", "Error", "Critical", "None")
_HUB_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]{2,44}")
_LARGEST_SPAN = timedelta(days=10_000_000)


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """`extensions.http`; -1 means unbounded."""

    route_prefix: str = "api"
    max_outstanding_requests: int = -1
    max_concurrent_requests: int = -1
    custom_headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class LoggingOptions:
    """`logging`: levels are Azure's names; `default` is None where the file does not say.

    `levels` holds the level of each category prefix in the file's spelling.
    """

    default: str | None = None
    levels: Mapping[str, str] = field(default_factory=dict[str, str])
    console: bool = True


@dataclass(frozen=True, slots=True)
class DurableOptions:
    """`extensions.durableTask`.

    Attributes:
        hub: the task hub's name; `hub_is_explicit` says whether host.json names it.
        storage_type: `storageProvider.type` as written, None where it is automatic.
        storage_named_by: what says so: `host.json`, or an environment variable.
        storage: the other keys of `storageProvider`, for the provider.
        lease: `storageProvider.leaseInterval`.
        use_app_lease, app_lease, app_lease_renewal, app_lease_retry: `useAppLease` and `appLeaseOptions`, for stores
            on which one app at a time processes a hub; the last is None unless host.json says it.
        max_activities, max_orchestrations: at once on this host; None: the engine's default.
        replace_any_state: a start may replace an instance in any state, not only one that has ended.
        local_rpc: None: on where it can be.
    """

    hub: str = "TestHubName"
    hub_is_explicit: bool = False
    storage_type: str | None = None
    storage_named_by: str = "host.json"
    storage: Mapping[str, Json] = field(default_factory=dict[str, Json])
    lease: timedelta = timedelta(seconds=30)
    use_app_lease: bool = True
    app_lease: timedelta = timedelta(seconds=60)
    app_lease_renewal: timedelta = timedelta(seconds=25)
    app_lease_retry: timedelta | None = None
    max_activities: int | None = None
    max_orchestrations: int | None = None
    max_orchestration_actions: int = 100_000
    replace_any_state: bool = False
    store_inputs: bool = False
    local_rpc: bool | None = None
    use_forwarded_host: bool = False


@dataclass(frozen=True, slots=True)
class HostJson:
    """A read host.json, or the defaults.

    Attributes:
        path: of the file, None: there is none.
        function_timeout: per invocation attempt; None: none.
        functions: names of the functions to load; None: all.
        watch_directories, watch_files: additional names that `--reload` watches.
        warnings: what has no effect or may surprise, one sentence each.
        document: the well-known top-level keys, for the log.
    """

    path: Path | None = None
    function_timeout: timedelta | None = timedelta(minutes=30)
    functions: tuple[str, ...] | None = None
    watch_directories: tuple[str, ...] = ()
    watch_files: tuple[str, ...] = ()
    http: HttpOptions = field(default_factory=HttpOptions)
    logging: LoggingOptions = field(default_factory=LoggingOptions)
    durable: DurableOptions = field(default_factory=DurableOptions)
    warnings: tuple[str, ...] = ()
    document: Mapping[str, Json] = field(default_factory=dict[str, Json])


def find_host_json(folder: Path, *, home: Path | None = None) -> Path | None:
    """The host.json that holds for an app folder, or None. Folders above `.git` or above home are not looked at."""
    folder = folder.resolve()
    for each in (folder, *folder.parents):
        candidate = each / "host.json"
        if candidate.is_file():
            return candidate
        if (each / ".git").exists() or each == home:
            return None
    return None


def load_host_json(
    path: Path | None,
    environ: Mapping[str, str],
    *,
    setting: Callable[[str], str | None] | None = None,
    check: Callable[[HostJson], Sequence[str]] | None = None,
) -> HostJson:
    """Read a host.json, or the defaults with the environment laid over them.

    Args:
        path: from `find_host_json`; None: there is no file.
        environ: the process environment, with local.settings.json in it.
        setting: looks up `%NAME%`; by default the environment.
        check: what else is wrong, to be reported together with the rest.

    Raises:
        ConfigurationError: with every problem, each naming its path and value.
    """
    document: Mapping[str, Json] = {"version": "2.0"}
    if path is not None:
        try:
            read = read_json_file(path)
        except JsonFileError as error:
            raise ConfigurationError(f"Unable to parse host configuration file '{path}'. {error}.") from None
        except OSError as error:
            raise ConfigurationError(f"Unable to read host configuration file '{path}'. {error.strerror}.") from None
        if isinstance(read, dict):
            document = read
        else:
            raise ConfigurationError(f"Unable to parse host configuration file '{path}'. It does not hold an object.")
    return parse_host_json(document, environ, path=path, setting=setting, check=check)


def parse_host_json(
    document: Mapping[str, Json],
    environ: Mapping[str, str],
    *,
    path: Path | None = None,
    setting: Callable[[str], str | None] | None = None,
    check: Callable[[HostJson], Sequence[str]] | None = None,
) -> HostJson:
    """Type a read document. Arguments and errors as `load_host_json`."""
    report = Report("host.json")
    if path is not None and not document:
        report.warnings.append(f"Empty host configuration file found: '{path}'. The defaults hold.")
        document = {"version": "2.0"}
    root = Node("", overlay(document, environ, report), report)
    extensions = root.node("extensions")
    _check_version(root, report)
    read = HostJson(
        path=path,
        function_timeout=_function_timeout(root, report),
        functions=root.texts("functions"),
        watch_directories=root.texts("watchDirectories") or (),
        watch_files=root.texts("watchFiles") or (),
        http=_http(extensions.node("http")),
        logging=_logging(root.node("logging")),
        durable=_durable(extensions.node("durableTask"), report, environ, setting or environ.get),
        document={key: value for key, value in document.items() if key in _WELL_KNOWN},
    )
    if root.node("customHandler").raw("description") is not None:
        report.warn("customHandler", "names a custom handler; custom handlers are not supported.")
    check_keys(root, report)
    report.problems += check(read) if check is not None else ()
    if report.problems:
        raise ConfigurationError(report.problems)
    return _with_warnings(read, report)


def _with_warnings(read: HostJson, report: Report) -> HostJson:
    from dataclasses import replace

    return replace(read, warnings=tuple(report.warnings))


def _check_version(root: Node, report: Report) -> None:
    value = root.raw("version")
    if value is None:
        report.problems.append(
            f"host.json: The host.json file is missing the required 'version' property. {_MIGRATE} for steps to "
            "migrate the configuration file."
        )
        return
    if value == "2.0":
        return
    remark = (
        " This does not correspond to the function runtime version, only to the schema version of the host.json file."
        if str(value).startswith("3")
        else ""
    )
    report.problems.append(
        f"host.json: '{value}' is an invalid value for host.json 'version' property. We recommend you set the "
        f"'version' property to '2.0'.{remark} {_MIGRATE} for more information on this configuration file."
    )


def _function_timeout(root: Node, report: Report) -> timedelta | None:
    value = root.raw("functionTimeout")
    if value is not None and str(value).strip() == "-1":
        return None
    before = len(report.problems)
    span = root.span("functionTimeout", timedelta(minutes=30))
    if len(report.problems) == before and not timedelta(seconds=1) <= span <= _LARGEST_SPAN:
        report.problem(
            "functionTimeout",
            value,
            f"FunctionTimeout must be greater than 00:00:01 and less than {format_span(_LARGEST_SPAN)}.",
        )
    return span


def _http(node: Node) -> HttpOptions:
    headers = node.node("customHeaders")
    return HttpOptions(
        route_prefix=node.text("routePrefix", "api").strip("/"),
        max_outstanding_requests=node.integer("maxOutstandingRequests", -1, -1),
        max_concurrent_requests=node.integer("maxConcurrentRequests", -1, -1),
        custom_headers={key: headers.text(key, "") for key, _ in headers},
    )


def _logging(node: Node) -> LoggingOptions:
    levels: dict[str, str] = {}
    section = node.node("logLevel")
    default: str | None = None
    for key, value in section:
        level = section.choice(key, "Information", _LEVELS)
        if key.lower() == "default":
            default = level if value is not None else None
        else:
            levels[key] = level
    return LoggingOptions(default=default, levels=levels, console=node.node("console").flag("isEnabled", True))


def _durable(
    node: Node, report: Report, environ: Mapping[str, str], setting: Callable[[str], str | None]
) -> DurableOptions:
    storage = node.node("storageProvider")
    kind = storage.raw("type")
    concurrency = {
        key: _positive(node, key)
        for key in ("maxConcurrentActivityFunctions", "maxConcurrentOrchestratorFunctions")
    }  # fmt: skip
    for key in ("maxConcurrentEntityFunctions", "maxEntityOperationBatchSize"):
        _positive(node, key)  # without effect yet, but a typing error is one today
    app_lease = node.node("appLeaseOptions")
    second = timedelta(seconds=1)
    app_lease_span = app_lease.span("leaseInterval", 60 * second, low=15 * second, high=60 * second)
    lease = storage.span("leaseInterval", timedelta(seconds=30), low=timedelta(seconds=5), high=timedelta(hours=1))
    return DurableOptions(
        hub=_hub(node, report, environ, setting),
        hub_is_explicit=node.raw("hubName") is not None,
        storage_type=storage.text("type", "").strip() or None if kind is not None else None,
        storage_named_by=report.named_by(storage.at("type")),
        storage={key: value for key, value in storage if key.lower() not in ("type", "leaseinterval")},
        lease=lease,
        use_app_lease=node.flag("useAppLease", True),
        app_lease=app_lease_span,
        app_lease_renewal=app_lease.span(
            "renewInterval", min(25 * second, app_lease_span / 2), second, app_lease_span - second
        ),
        app_lease_retry=None
        if app_lease.raw("acquireInterval") is None
        else app_lease.span("acquireInterval", 30 * second, low=second),
        max_activities=concurrency["maxConcurrentActivityFunctions"],
        max_orchestrations=concurrency["maxConcurrentOrchestratorFunctions"],
        max_orchestration_actions=node.integer(
            "maxOrchestrationActions",
            100_000,
            1,
            message="MaxOrchestrationActions must be a positive integer value.",
        ),
        replace_any_state=node.choice(
            "overridableExistingInstanceStates", "NonRunningStates", ("NonRunningStates", "AnyState")
        )
        == "AnyState",
        store_inputs=node.flag("storeInputsInOrchestrationHistory", False),
        local_rpc=node.flag("localRpcEndpointEnabled", True)
        if node.raw("localRpcEndpointEnabled") is not None
        else None,
        use_forwarded_host=node.node("httpSettings").flag("useForwardedHost", False),
    )


def _positive(node: Node, key: str) -> int | None:
    if node.raw(key) is None:
        return None
    name = key[0].upper() + key[1:]
    return node.integer(key, 1, 1, message=f"{name} must be a positive integer value.")


def _hub(node: Node, report: Report, environ: Mapping[str, str], setting: Callable[[str], str | None]) -> str:
    if node.raw("hubName") is None:
        return default_hub_name(environ)
    written = node.text("hubName", "TestHubName")
    try:
        name = _resolved(written, setting)
    except ValueError as error:
        report.problem(node.at("hubName"), written, str(error))
        return written
    problem = hub_name_problem(name)
    if problem is not None:
        report.problem(node.at("hubName"), written, problem)
    return name


def _resolved(text: str, setting: Callable[[str], str | None]) -> str:
    from durable_host.config.settings import resolve_percent

    return resolve_percent(text, setting)


def hub_name_problem(name: str) -> str | None:
    """What is wrong with an explicit hub name; None: nothing. The rules are Azure's, so that a hub can move there."""
    if not name.strip():
        return "A non-empty HubName configuration is required."
    if _HUB_NAME.fullmatch(name) is None:
        return (
            f"Task hub name '{name}' should contain only alphanumeric characters, start with a letter, and have length "
            "between 3 and 45."
        )
    return None


def default_hub_name(environ: Mapping[str, str]) -> str:
    """The hub of an app that names none: the site's name, made fit, else `TestHubName`."""
    site = environ.get("WEBSITE_SITE_NAME")
    if not site:
        return "TestHubName"
    kept = "".join(each for each in site if each.isascii() and each.isalnum())
    if not kept:
        return "DefaultTaskHub"
    if kept[0].isdigit():
        kept = "t" + kept
    kept = kept[:45]
    return kept if len(kept) >= 3 else kept + "Hub"
