"""Eternal orchestration: clean a folder, sleep, and begin again with a fresh history."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import durable_host as df

app = df.FunctionApp(http_auth_level=df.AuthLevel.ANONYMOUS)

FOLDER = Path(os.environ.get("CLEANUP_FOLDER") or Path(__file__).resolve().parent / "scratch")
INSTANCE = "cleanup"  # a fixed id: there is one of it, however often it is started


@app.activity_trigger(input_name="age")
def remove_old_files(age: float) -> int:
    limit = time.time() - age
    removed = 0
    for path in FOLDER.glob("*"):
        if path.is_file() and path.stat().st_mtime < limit:
            path.unlink(missing_ok=True)
            removed += 1
    return removed


@app.orchestration_trigger(context_name="context")
def clean_up(context: df.DurableOrchestrationContext) -> Generator[Any, Any, dict[str, int]]:
    plan: dict[str, Any] = context.get_input()
    removed: int = yield context.call_activity("remove_old_files", plan["keep_seconds"])
    plan = {**plan, "rounds": plan.get("rounds", 0) + 1, "removed": plan.get("removed", 0) + removed}
    context.set_custom_status({"rounds": plan["rounds"], "removed": plan["removed"]})

    stop = context.wait_for_external_event("stop")
    pause = context.create_timer(context.current_utc_datetime + timedelta(seconds=plan["every_seconds"]))
    if (yield context.task_any([stop, pause])) == stop:
        pause.cancel()
        return {"rounds": plan["rounds"], "removed": plan["removed"]}
    context.continue_as_new(plan)
    return {}  # not seen by anybody: the next execution takes over


@app.route(route="cleanup", methods=["POST"])
@app.durable_client_input(client_name="client")
async def start(req: df.HttpRequest, client: df.DurableOrchestrationClient) -> df.HttpResponse:
    try:
        await client.start_new("clean_up", instance_id=INSTANCE, client_input=req.get_json())
    except df.InstanceExistsError as error:
        return df.HttpResponse(f"{error}\n", status_code=409)
    return client.create_check_status_response(req, INSTANCE)


@app.route(route="cleanup/stop", methods=["POST"])
@app.durable_client_input(client_name="client")
async def stop(req: df.HttpRequest, client: df.DurableOrchestrationClient) -> df.HttpResponse:
    try:
        await client.raise_event(INSTANCE, "stop")
    except (df.InstanceNotFoundError, df.InvalidStateError) as error:
        return df.HttpResponse(f"{error}\n", status_code=404)
    return client.create_check_status_response(req, INSTANCE)
