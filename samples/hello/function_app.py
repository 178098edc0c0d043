"""Chaining: three activities one after another, and an endpoint that starts any orchestrator by name."""

from __future__ import annotations

import durable_host as df

app = df.FunctionApp(http_auth_level=df.AuthLevel.ANONYMOUS)


@app.activity_trigger(input_name="city")
def say_hello(city: str) -> str:
    return f"Hello {city}!"


@app.orchestration_trigger(context_name="context")
async def hello_cities(context: df.DurableOrchestrationContext) -> list[str]:
    return [await context.call_activity(say_hello, city) for city in ("Tokyo", "Seattle", "London")]


@app.route(route="orchestrators/{name}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def start(req: df.HttpRequest, client: df.DurableOrchestrationClient) -> df.HttpResponse:
    body = req.get_json() if req.get_body() else None
    instance_id = await client.start_new(req.route_params["name"], client_input=body)
    return client.create_check_status_response(req, instance_id)
