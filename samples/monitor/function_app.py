"""Monitor: look again and again, with growing pauses, until something is so or the time is up."""

from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import timedelta

import durable_host as df

# The caller names an address that this host then asks: outside of your own machine this wants a key.
app = df.FunctionApp(http_auth_level=df.AuthLevel.FUNCTION)


@dataclass
class Watch:
    url: str
    first_pause_seconds: float = 5
    longest_pause_seconds: float = 300
    give_up_after_seconds: float = 24 * 60 * 60


@dataclass
class Verdict:
    healthy: bool
    checks: int


@app.activity_trigger(input_name="url")
def is_healthy(url: str) -> bool:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is not a web address")
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return 200 <= answer.status < 300
    except (urllib.error.URLError, TimeoutError):
        return False


@app.orchestration_trigger(context_name="context")
async def watch(context: df.DurableOrchestrationContext) -> Verdict:
    task = context.get_input(Watch)
    end = context.current_utc_datetime + timedelta(seconds=task.give_up_after_seconds)
    pause = timedelta(seconds=task.first_pause_seconds)
    checks = 0
    while True:
        checks += 1
        if await context.call_activity(is_healthy, task.url):
            return Verdict(healthy=True, checks=checks)
        if context.current_utc_datetime + pause > end:
            return Verdict(healthy=False, checks=checks)
        context.set_custom_status({"checks": checks, "next_check_at": context.current_utc_datetime + pause})
        await context.create_timer(context.current_utc_datetime + pause)
        pause = min(pause * 2, timedelta(seconds=task.longest_pause_seconds))


@app.route(route="watches", methods=["POST"])
@app.durable_client_input(client_name="client")
async def start(req: df.HttpRequest, client: df.DurableOrchestrationClient) -> df.HttpResponse:
    instance_id = await client.start_new(watch, client_input=req.get_json())
    return client.create_check_status_response(req, instance_id)
