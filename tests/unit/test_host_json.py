from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from durable_host.config.host_json import (
    HostJson,
    default_hub_name,
    find_host_json,
    hub_name_problem,
    load_host_json,
    parse_host_json,
)
from durable_host.config.jsonc import Json
from durable_host.errors import ConfigurationError


def _read(document: dict[str, Json], environ: dict[str, str] | None = None) -> HostJson:
    return parse_host_json({"version": "2.0", **document}, environ or {})


def _durable(**settings: Json) -> dict[str, Json]:
    return {"extensions": {"durableTask": settings}}


def _problems(document: dict[str, Json], environ: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        _read(document, environ)
    return caught.value.problems


def test_without_a_file_the_defaults_hold() -> None:
    read = load_host_json(None, {})

    assert read.http.route_prefix == "api"
    assert read.function_timeout == timedelta(minutes=30)
    assert read.durable.hub == "TestHubName"
    assert read.durable.storage_type is None
    assert read.durable.lease == timedelta(seconds=30)
    assert read.warnings == ()


def test_settings_are_read_without_case_and_from_texts() -> None:
    read = _read(
        {
            "FunctionTimeout": "00:10:00",
            "extensions": {
                "HTTP": {"RoutePrefix": "/v1/", "maxConcurrentRequests": "7", "customHeaders": {"X-A": "b"}},
                "DurableTask": {
                    "HubName": "MyHub",
                    "maxConcurrentActivityFunctions": "3",
                    "storeInputsInOrchestrationHistory": "True",
                    "overridableExistingInstanceStates": "anystate",
                    "storageProvider": {"Type": "SQLite", "leaseInterval": "00:01:00", "path": "x.db"},
                },
            },
        }
    )

    assert read.function_timeout == timedelta(minutes=10)
    assert (read.http.route_prefix, read.http.max_concurrent_requests) == ("v1", 7)
    assert read.http.custom_headers == {"X-A": "b"}
    durable = read.durable
    assert (durable.hub, durable.hub_is_explicit, durable.max_activities) == ("MyHub", True, 3)
    assert durable.store_inputs
    assert durable.replace_any_state
    assert durable.storage_type == "SQLite"
    assert durable.storage == {"path": "x.db"}
    assert durable.lease == timedelta(minutes=1)


def test_no_timeout_is_written_as_minus_one() -> None:
    assert _read({"functionTimeout": "-1"}).function_timeout is None
    assert _read({"functionTimeout": -1}).function_timeout is None


def test_all_problems_come_together_with_path_and_value() -> None:
    problems = _problems(
        {
            "version": "3.0",
            "functionTimeout": "00:00:00",
            "logging": {"logLevel": {"default": "Loud"}},
            "extensions": {
                "http": {"maxOutstandingRequests": "many", "customHeaders": []},
                "durableTask": {
                    "hubName": "no-dashes",
                    "maxConcurrentActivityFunctions": -1,
                    "storageProvider": "sqlite",
                    "storeInputsInOrchestrationHistory": "perhaps",
                },
            },
        }
    )

    text = "\n".join(problems)
    assert len(problems) == 9
    assert (
        "'3.0' is an invalid value for host.json 'version' property. We recommend you set the 'version' property to "
        "'2.0'. This does not correspond to the function runtime version, only to the schema version of the host.json "
        "file. See https://aka.ms/functions-hostjson for more information on this configuration file." in text
    )
    assert "functionTimeout is '00:00:00': FunctionTimeout must be greater than 00:00:01" in text
    assert (
        "host.json: extensions.http.maxOutstandingRequests is 'many': Failed to convert configuration value at "
        "'AzureFunctionsJobHost:extensions:http:maxOutstandingRequests' to type 'System.Int32'. Write a whole number."
        in problems
    )
    assert (
        "host.json: extensions.durableTask.hubName is 'no-dashes': Task hub name 'no-dashes' should contain only "
        "alphanumeric characters, start with a letter, and have length between 3 and 45." in problems
    )
    assert (
        "host.json: extensions.durableTask.maxConcurrentActivityFunctions is -1: MaxConcurrentActivityFunctions must "
        "be a positive integer value." in problems
    )


def test_a_missing_version_is_a_problem() -> None:
    with pytest.raises(ConfigurationError, match="missing the required 'version' property"):
        parse_host_json({"logging": {}}, {})


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "host.json"
    path.write_text("{}")

    read = load_host_json(path, {})

    assert read.durable.hub == "TestHubName"
    assert "Empty host configuration file" in read.warnings[0]
    assert path.read_text() == "{}"


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', '{"version": "2.0"'])
def test_a_broken_file_names_its_path(tmp_path: Path, text: str) -> None:
    path = tmp_path / "host.json"
    path.write_text(text)

    with pytest.raises(ConfigurationError, match="Unable to parse host configuration file"):
        load_host_json(path, {})


def test_the_environment_replaces_single_leaves_without_case() -> None:
    read = _read(
        {"functions": ["a", "b"], **_durable(hubName="FromFile", maxConcurrentActivityFunctions=1)},
        {
            "azurefunctionsjobhost__EXTENSIONS__durabletask__hubname": "FromEnv",
            "AzureFunctionsJobHost__extensions__http__routePrefix": "",
            "AzureFunctionsJobHost__functions__0": "c",
            "AzureFunctionsJobHost__logging__logLevel__Host.General": "Debug",
            "AzureFunctionsJobHost__extensions__durableTask__storageProvider__type": "memory",
            "AzureFunctionsJobHost__SequentialRestart": "True",
        },
    )

    assert read.durable.hub == "FromEnv"
    assert read.durable.max_activities == 1
    assert read.durable.storage_type == "memory"
    assert read.durable.storage_named_by == "AzureFunctionsJobHost__extensions__durableTask__storageProvider__type"
    assert read.http.route_prefix == ""
    assert read.functions == ("c", "b")
    assert read.logging.levels == {"Host.General": "Debug"}
    assert read.warnings == ()


def test_a_wrong_override_is_reported_by_its_variable() -> None:
    name = "AzureFunctionsJobHost__extensions__durableTask__maxConcurrentActivityFunctions"

    (problem,) = _problems({}, {name: "x"})

    assert problem.startswith(f"{name} (extensions.durableTask.maxConcurrentActivityFunctions) is 'x'")


def test_the_hub_name_may_come_from_a_setting() -> None:
    assert _read(_durable(hubName="%MY_HUB%x"), {"MY_HUB": "Abc"}).durable.hub == "Abcx"
    assert "'%NOPE%' does not resolve to a value." in _problems(_durable(hubName="%NOPE%"))[0]
    assert "does not have a closing '%'" in _problems(_durable(hubName="Hub%"))[0]
    assert "A non-empty HubName configuration is required." in _problems(_durable(hubName=""))[0]


@pytest.mark.parametrize("name", ["ab", "1abc", "a_b", "a" * 46, "häb", "a b"])
def test_hub_names_follow_azures_rules(name: str) -> None:
    assert hub_name_problem(name) is not None


@pytest.mark.parametrize(
    ("site", "hub"),
    [
        (None, "TestHubName"),
        ("my-site", "mysite"),
        ("1x-", "t1x"),
        ("--", "DefaultTaskHub"),
        ("a", "aHub"),
        ("b" * 99, "b" * 45),
    ],
)
def test_an_automatic_hub_name_is_made_fit(site: str | None, hub: str) -> None:
    assert default_hub_name({} if site is None else {"WEBSITE_SITE_NAME": site}) == hub
    assert hub_name_problem(hub) is None


def test_the_app_lease_is_read_with_azures_defaults() -> None:
    durable = _read({"extensions": {"durableTask": {}}}).durable
    set_up = _read(
        {
            "extensions": {
                "durableTask": {
                    "useAppLease": False,
                    "appLeaseOptions": {
                        "leaseInterval": "00:00:30",
                        "renewInterval": "00:00:10",
                        "acquireInterval": "00:05:00",
                    },
                }
            }
        }
    )

    assert durable.use_app_lease
    assert durable.app_lease == timedelta(seconds=60)
    assert durable.app_lease_renewal == timedelta(seconds=25)
    assert durable.app_lease_retry is None
    assert set_up.warnings == ()
    assert not set_up.durable.use_app_lease
    assert set_up.durable.app_lease == timedelta(seconds=30)
    assert set_up.durable.app_lease_renewal == timedelta(seconds=10)
    assert set_up.durable.app_lease_retry == timedelta(minutes=5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("leaseInterval", "00:00:10"),
        ("leaseInterval", "00:02:00"),
        ("renewInterval", "00:01:00"),
        ("acquireInterval", "00:00:00"),
    ],
)
def test_intervals_of_the_app_lease_that_cannot_work_are_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"appLeaseOptions\.{name} must be"):
        _read({"extensions": {"durableTask": {"appLeaseOptions": {name: value}}}})


def test_what_real_apps_carry_is_accepted_silently() -> None:
    read = _read(
        {
            "$schema": "x",
            "isDefaultHostConfig": True,
            "telemetryMode": "OpenTelemetry",
            "extensionBundle": {"id": "Microsoft.Azure.Functions.ExtensionBundle", "version": "[4.*, 5.0.0)"},
            "managedDependency": {"enabled": True},
            "aggregator": {"batchSize": 1000},
            "logging": {
                "fileLoggingMode": "debugOnly",
                "logLevel": {"default": "Information", "Function": "Debug"},
                "applicationInsights": {"samplingSettings": {"isEnabled": True, "excludedTypes": "Request"}},
            },
            "healthMonitor": {"enabled": True},
            "extensions": {
                "http": {"hsts": {"isEnabled": False}, "dynamicThrottlesEnabled": False},
                "durableTask": {
                    "extendedSessionsEnabled": True,
                    "maxEntityOperationBatchSize": 5000,
                    "tracing": {"distributedTracingEnabled": False, "version": "V2"},
                    "notifications": {"eventGrid": {"topicEndpoint": ""}},
                    "useAppLease": True,
                },
            },
        }
    )

    assert read.warnings == ()
    assert read.logging.default == "Information"


def test_settings_in_use_that_do_nothing_get_one_warning_each() -> None:
    warnings = _read(
        {
            "retry": {"strategy": "fixedDelay", "maxRetryCount": 2, "delayInterval": "00:00:05"},
            "concurrency": {"dynamicConcurrencyEnabled": True, "snapshotPersistenceEnabled": True},
            "extensions": {
                "queues": {"batchSize": 1, "maxDequeueCount": 3},
                "durableTask": {
                    "tracing": {"distributedTracingEnabled": True, "version": "V2"},
                    "notifications": {"eventGrid": {"topicEndpoint": "https://x", "keySettingName": "k"}},
                    "maxConcurrentEntityFunctions": 4,
                    "defaultVersion": "1.0",
                },
            },
        }
    ).warnings

    assert [each.split(" is not")[0].removeprefix("host.json: ") for each in warnings] == [
        "retry",
        "concurrency",
        "extensions.queues",
        "extensions.durableTask.tracing.distributedTracingEnabled",
        "extensions.durableTask.notifications.eventGrid",
        "extensions.durableTask.maxConcurrentEntityFunctions",
        "extensions.durableTask.defaultVersion",
    ]
    assert all("is not supported yet and has no effect." in each for each in warnings)


def test_unknown_settings_are_warned_about_with_a_guess() -> None:
    warnings = _read(
        {
            "functionTimout": "00:01:00",
            "zzz": 1,
            "extensions": {"durableTask": {"hubname2": "x", "maxConcurrentActivityFunction": 1}},
        }
    ).warnings

    assert warnings == (
        "host.json: functionTimout is not a known setting and has no effect. Did you mean 'functionTimeout'?",
        "host.json: zzz is not a known setting and has no effect.",
        "host.json: extensions.durableTask.hubname2 is not a known setting and has no effect. Did you mean 'hubName'?",
        "host.json: extensions.durableTask.maxConcurrentActivityFunction is not a known setting and has no effect. "
        "Did you mean 'maxConcurrentActivityFunctions'?",
    )


def test_days_are_pointed_out() -> None:
    warnings = _read({"functionTimeout": "24:00:00"}).warnings

    assert "24 days" in warnings[0]


def test_a_custom_handler_is_warned_about() -> None:
    warnings = _read({"customHandler": {"description": {"defaultExecutablePath": "x"}}}).warnings

    assert warnings == ("host.json: customHandler names a custom handler; custom handlers are not supported.",)


def test_the_nearest_file_counts_but_none_above_git_or_home(tmp_path: Path) -> None:
    app = tmp_path / "repo" / "samples" / "app"
    app.mkdir(parents=True)
    (tmp_path / "host.json").write_text("{}")

    assert find_host_json(app) == tmp_path / "host.json"
    (tmp_path / "repo" / ".git").mkdir()
    assert find_host_json(app) is None
    (tmp_path / "repo" / "host.json").write_text("{}")
    assert find_host_json(app) == tmp_path / "repo" / "host.json"
    assert find_host_json(app, home=tmp_path / "repo" / "samples") is None
    (app / "host.json").write_text("{}")
    assert find_host_json(app, home=tmp_path / "repo" / "samples") == app / "host.json"
