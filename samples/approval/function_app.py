"""Human approval: wait for an event, but not for ever. A generator, in the way Azure's samples are written."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any

import durable_host as df

app = df.FunctionApp(http_auth_level=df.AuthLevel.ANONYMOUS)


@app.activity_trigger(input_name="expense")
def ask_manager(expense: dict[str, Any]) -> str:
    return f"{expense['employee']} asks for {expense['amount']}"  # a real one would send a mail


@app.activity_trigger(input_name="expense")
def pay(expense: dict[str, Any]) -> str:
    return f"paid {expense['amount']} to {expense['employee']}"


@app.orchestration_trigger(context_name="context")
def reimburse(context: df.DurableOrchestrationContext) -> Generator[Any, Any, dict[str, Any]]:
    expense: dict[str, Any] = context.get_input()
    question = yield context.call_activity("ask_manager", expense)
    context.set_custom_status({"waiting_for": question})

    patience = timedelta(seconds=expense.get("patience_seconds", 3 * 24 * 60 * 60))
    approval = context.wait_for_external_event("decision")
    deadline = context.create_timer(context.current_utc_datetime + patience)
    first = yield context.task_any([approval, deadline])
    context.set_custom_status(None)

    if first == deadline:
        return {"outcome": "escalated"}
    deadline.cancel()  # the instance would stay Running until the timer fires
    if not approval.result["approved"]:
        return {"outcome": "rejected", "reason": approval.result.get("reason")}
    receipt = yield context.call_activity("pay", expense)
    return {"outcome": "approved", "receipt": receipt}


@app.route(route="expenses", methods=["POST"])
@app.durable_client_input(client_name="client")
async def submit(req: df.HttpRequest, client: df.DurableOrchestrationClient) -> df.HttpResponse:
    instance_id = await client.start_new("reimburse", client_input=req.get_json())
    return client.create_check_status_response(req, instance_id)


@app.route(route="expenses/{id}/decision", methods=["POST"])
@app.durable_client_input(client_name="client")
async def decide(req: df.HttpRequest, client: df.DurableOrchestrationClient) -> df.HttpResponse:
    try:
        await client.raise_event(req.route_params["id"], "decision", req.get_json())
    except (df.InstanceNotFoundError, df.InvalidStateError) as error:
        return df.HttpResponse(f"{error}\n", status_code=404)  # there is none, or it has been decided
    return df.HttpResponse(status_code=202)
