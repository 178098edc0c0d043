"""Every sample, through HTTP, on each store that outlives it, in a process of its own."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.hosting import ROOT, HostProcess

pytestmark = pytest.mark.live

SAMPLES = sorted(path.parent.name for path in (ROOT / "samples").glob("*/function_app.py"))
RunSample = Callable[..., HostProcess]


def _start(host: HostProcess, path: str, body: object = None) -> str:
    answer = host.request("POST", path, body)
    assert answer.status == 202, (answer, host.printed())
    assert answer.headers["Location"]
    return str(answer.json()["statusQueryGetUri"])


def _wait_for_custom_status(host: HostProcess, url: str, accept: Callable[[Any], bool]) -> Any:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        status = host.request("GET", url).json()
        if status["customStatus"] is not None and accept(status["customStatus"]):
            return status["customStatus"]
        time.sleep(0.05)
    raise AssertionError(host.request("GET", url).json())


def test_every_sample_has_an_app_settings_and_a_page_of_text() -> None:
    assert SAMPLES == ["approval", "cleanup", "fan_out", "hello", "monitor"]
    for name in SAMPLES:
        folder = ROOT / "samples" / name
        assert (folder / "host.json").exists(), name
        text = (folder / "README.md").read_text(encoding="utf-8")
        assert f"durable-host start samples/{name}" in text, name
        assert len(text.splitlines()) <= 40, f"{name}: more than a screen"


def test_hello_greets_three_cities(run_sample: RunSample) -> None:
    host = run_sample("hello")

    status = host.complete(_start(host, "/api/orchestrators/hello_cities"))

    assert status["runtimeStatus"] == "Completed"
    assert status["output"] == ["Hello Tokyo!", "Hello Seattle!", "Hello London!"]


def test_hello_passes_a_json_body_on_as_input(run_sample: RunSample) -> None:
    host = run_sample("hello")

    status = host.complete(_start(host, "/api/orchestrators/hello_cities", {"any": "thing"}))

    assert status["input"] == {"any": "thing"}


def test_hello_goes_on_after_the_host_was_killed(run_sample: RunSample) -> None:
    host = run_sample("hello")
    urls = [_start(host, "/api/orchestrators/hello_cities") for _ in range(20)]
    host.kill()

    again = run_sample("hello")

    for url in urls:
        path = url.removeprefix(host.address)
        # What a killed host had in its hands stays hidden for up to a minute on Azure Storage.
        status = again.complete(path, within=90)
        assert status["output"] == ["Hello Tokyo!", "Hello Seattle!", "Hello London!"]


def test_fan_out_compresses_every_file_of_the_folder(run_sample: RunSample) -> None:
    host = run_sample("fan_out")
    url = _start(host, "/api/packs", {"folder": "texts"})

    status = host.complete(url)

    texts = sorted((host.folder / "texts").iterdir())
    output = status["output"]
    assert [each["name"] for each in output["files"]] == [f"texts/{text.name}" for text in texts]
    assert output["before"] == sum(text.stat().st_size for text in texts) > output["after"]
    for text in texts:
        packed = host.folder / ".packed" / status["instanceId"] / "texts" / f"{text.name}.gz"
        assert gzip.decompress(packed.read_bytes()) == text.read_bytes()
    readme = (host.folder / "README.md").read_text(encoding="utf-8")
    assert f'"before": {output["before"]}, "after": ' in readme


def test_fan_out_keeps_to_its_folder(run_sample: RunSample) -> None:
    host = run_sample("fan_out")

    status = host.complete(_start(host, "/api/packs", {"folder": "../.."}))

    assert status["runtimeStatus"] == "Failed"
    assert "lies outside of the app folder" in status["output"]


@pytest.mark.parametrize(
    ("decision", "output"),
    [
        ({"approved": True}, {"outcome": "approved", "receipt": "paid 42 to Ada"}),
        ({"approved": False, "reason": "too much"}, {"outcome": "rejected", "reason": "too much"}),
    ],
)
def test_approval_waits_for_the_decision(run_sample: RunSample, decision: object, output: object) -> None:
    host = run_sample("approval")
    answer = host.request("POST", "/api/expenses", {"employee": "Ada", "amount": 42})
    links = answer.json()
    _wait_for_custom_status(host, links["statusQueryGetUri"], lambda said: said["waiting_for"] == "Ada asks for 42")

    decided = host.request("POST", f"/api/expenses/{links['id']}/decision", decision)

    assert decided.status == 202
    assert host.complete(links["statusQueryGetUri"])["output"] == output
    again = host.request("POST", f"/api/expenses/{links['id']}/decision", decision)
    assert (again.status, b"it has ended with status Completed" in again.body) == (404, True)
    unknown = host.request("POST", "/api/expenses/nobody/decision", decision)
    assert (unknown.status, b"No instance with id 'nobody' was found." in unknown.body) == (404, True)


def test_approval_that_nobody_gives_is_escalated(run_sample: RunSample) -> None:
    host = run_sample("approval")

    status = host.complete(_start(host, "/api/expenses", {"employee": "Ada", "amount": 42, "patience_seconds": 0.2}))

    assert status["output"] == {"outcome": "escalated"}


def test_approval_outlives_a_killed_host(run_sample: RunSample) -> None:
    host = run_sample("approval")
    links = host.request("POST", "/api/expenses", {"employee": "Ada", "amount": 42}).json()
    _wait_for_custom_status(host, links["statusQueryGetUri"], bool)
    host.kill()

    again = run_sample("approval")
    again.request("POST", f"/api/expenses/{links['id']}/decision", {"approved": True})

    status = again.complete(links["statusQueryGetUri"].removeprefix(host.address))
    assert status["output"]["outcome"] == "approved"


def test_monitor_reports_an_address_that_answers(run_sample: RunSample) -> None:
    host = run_sample("monitor")

    status = host.complete(_start(host, "/api/watches", {"url": f"{host.address}/health/ready"}))

    assert status["output"] == {"healthy": True, "checks": 1}


def test_monitor_looks_again_with_growing_pauses_and_gives_up(run_sample: RunSample) -> None:
    host = run_sample("monitor")
    watch = {
        "url": f"{host.address}/nothing/here",
        "first_pause_seconds": 0.1,
        "longest_pause_seconds": 0.2,
        "give_up_after_seconds": 0.6,
    }

    status = host.complete(_start(host, "/api/watches", watch))

    assert status["output"]["healthy"] is False
    assert status["output"]["checks"] > 1
    assert status["customStatus"]["checks"] >= 1


def test_cleanup_goes_round_after_round_until_it_is_stopped(run_sample: RunSample, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for name, age in (("old", 7200), ("young", 0)):
        (scratch / name).write_text(name, encoding="utf-8")
        os.utime(scratch / name, (time.time() - age, time.time() - age))
    host = run_sample("cleanup", settings={"CLEANUP_FOLDER": str(scratch)})
    url = _start(host, "/api/cleanup", {"keep_seconds": 3600, "every_seconds": 0.1})
    _wait_for_custom_status(host, url, lambda said: said["rounds"] >= 3)

    assert host.request("POST", "/api/cleanup", {"keep_seconds": 1, "every_seconds": 1}).status == 409
    host.request("POST", "/api/cleanup/stop")

    output = host.complete(url)["output"]
    assert output["rounds"] >= 3
    assert output["removed"] == 1
    assert host.request("POST", "/api/cleanup/stop").status == 404
    assert [path.name for path in scratch.iterdir()] == ["young"]
