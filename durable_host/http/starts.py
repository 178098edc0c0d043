"""Start, restart, and waiting for the end in the same request (http-api.md sections 4, 11 and 14)."""

from __future__ import annotations

from datetime import timedelta

from durable_host.errors import InstanceExistsError, InstanceNotFoundError, WaitTimeoutError
from durable_host.functions.status_payload import status_payload
from durable_host.http.calls import Call, InvalidJsonError, json_text
from durable_host.http.errors import ARGUMENT, EXISTS, INCORRECT, first_form, invalid_json, second_form
from durable_host.http.messages import Answer, json_answer
from durable_host.model.ids import check_instance_id
from durable_host.model.names import unknown_function
from durable_host.model.status import RuntimeStatus

__all__ = ["restart", "restart_with_options", "start"]

_LONGEST_WAIT = timedelta(days=1)
_NOT_FOUND = "InstanceId does not match a valid orchestration instance."
_TAKEN = "A non-terminal instance with this instance ID already exists."


async def start(call: Call) -> Answer:
    """`POST orchestrators/{name}[/{id}]`; everything is checked before anything is started."""
    request, name, key = call.request, call.route.name, call.route.key
    if call.own and not call.api.knows(name):
        return second_form(404, INCORRECT, unknown_function(name, "orchestrator", call.api.names()), ARGUMENT)
    if key is not None:
        check_instance_id(key)
    try:
        text = json_text(request.body)
    except InvalidJsonError as error:
        return invalid_json(str(error))
    wait = _wait(call)
    if isinstance(wait, Answer):
        return wait
    try:
        started = await call.hub().start(
            name,
            instance_id=key,
            input_json=text,
            version=request.query.value("version") or call.api.default_version,
            replaceable=call.api.replaceable,
            traceparent=request.headers.get("traceparent") or None,
            tracestate=request.headers.get("tracestate") or None,
        )
    except InstanceExistsError as error:
        return first_form(409, str(error))
    return await _accepted(call, started, wait)


async def restart(call: Call) -> Answer:
    """`POST instances/{id}/restart`: a new id unless `restartWithNewInstanceId=false`."""
    same = not call.request.query.flag("restartWithNewInstanceId", True)
    return await _restart(call, same_id=same)


async def restart_with_options(call: Call) -> Answer:
    """`POST instances/{id}/restartWithOptions`: id and version of the caller's choice."""
    query = call.request.query
    chosen = query.text("newInstanceId")
    if not chosen:
        return first_form(400, "A new orchestration instance ID must be provided.")
    check_instance_id(chosen)
    return await _restart(call, new_id=chosen, version=query.value("version"))


async def _restart(
    call: Call, *, same_id: bool = False, new_id: str | None = None, version: str | None = None
) -> Answer:
    wait = _wait(call)
    if isinstance(wait, Answer):
        return wait
    try:
        if call.client is None:
            raise InstanceNotFoundError(call.key)
        started = await call.client.restart(call.key, new_instance_id=new_id, same_id=same_id, version=version)
    except InstanceNotFoundError:
        text = f"No instance with ID '{call.key}' was found. (Parameter 'instanceId')"
        return second_form(400, _NOT_FOUND, text, ARGUMENT)
    except InstanceExistsError as error:
        return second_form(409, _TAKEN, str(error), EXISTS)
    return await _accepted(call, started, wait)


def _wait(call: Call) -> timedelta | Answer | None:
    """How long to wait for the end: None for not at all, an answer when the numbers contradict each other."""
    timeout = call.request.query.seconds("timeout")
    interval = call.request.query.seconds("pollingInterval")
    if timeout is None or interval is None:
        return None
    if interval > timeout:
        text = f"Total timeout {_number(timeout)} should be bigger than retry timeout {_number(interval)}"
        return first_form(400, text)
    return timedelta(seconds=max(0.0, min(timeout, _LONGEST_WAIT.total_seconds())))


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


async def _accepted(call: Call, instance_id: str, wait: timedelta | None) -> Answer:
    if wait is not None:
        try:
            state = await call.hub().wait_for_completion(instance_id, timeout=wait)
        except (WaitTimeoutError, InstanceNotFoundError):
            pass  # time is up, or somebody purged it meanwhile; either way the caller can only look again
        else:
            if state.status is RuntimeStatus.COMPLETED:
                return json_answer(200, status_payload(state, show_input=False)["output"])
            return json_answer(200, status_payload(state, show_input=True))
    payload = call.urls.check_status(instance_id)
    return json_answer(202, payload, ("Location", payload["statusQueryGetUri"]), ("Retry-After", "10"))
