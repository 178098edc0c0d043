"""An app for tests of the host as a process, and ways to run the command line."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.hosting import source_environment

__all__ = ["APP", "command_line", "make_app", "wait_until"]

APP = """
import logging
import time

import durable_host as df

app = df.FunctionApp(http_auth_level=df.AuthLevel.FUNCTION)
VERSION = "one"


@app.activity_trigger(input_name="seconds")
def slow(seconds: float) -> str:
    logging.warning("slow begins")
    time.sleep(seconds)
    return "slept"


@app.orchestration_trigger(context_name="context")
async def sleeper(context: df.DurableOrchestrationContext) -> str:
    return await context.call_activity(slow, context.get_input())


@app.orchestration_trigger(context_name="context")
def waiter(context: df.DurableOrchestrationContext):
    return (yield context.wait_for_external_event("go"))


@app.orchestration_trigger(context_name="context")
def broken(context: df.DurableOrchestrationContext):
    raise ValueError("on purpose")


@app.orchestration_trigger(context_name="context")
def spinning(context: df.DurableOrchestrationContext):
    while True:
        pass


@app.route(route="version", methods=["GET"])
def version(req: df.HttpRequest) -> df.HttpResponse:
    return df.HttpResponse(VERSION)


@app.route(route="start/{name}/{id}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def start(req: df.HttpRequest, client: df.DurableOrchestrationClient) -> df.HttpResponse:
    body = req.get_json() if req.get_body() else None
    await client.start_new(req.route_params["name"], instance_id=req.route_params["id"], client_input=body)
    return client.create_check_status_response(req, req.route_params["id"])
"""


def make_app(folder: Path, text: str = APP, *, host_json: str | None = None) -> Path:
    """Write an app into a new folder."""
    folder.mkdir(parents=True)
    (folder / "function_app.py").write_text(text)
    # Of its own, so that no host.json above the test's folder counts.
    (folder / "host.json").write_text(host_json or '{"version": "2.0"}')
    return folder


def command_line(*arguments: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "durable_host", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=source_environment(**settings),
        timeout=60,
        check=False,
    )


def wait_until(condition: Callable[[], bool], what: str, *, within: float = 20) -> None:
    """Ask again and again."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, f"not within {within} s: {what}"
        time.sleep(0.05)
