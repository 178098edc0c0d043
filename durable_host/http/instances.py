"""What acts on one instance: status, events, terminate, suspend, resume, rewind, purge (http-api.md 5 and 7 to 10)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from durable_host.engine.client import TaskHubClient
from durable_host.errors import InstanceNotFoundError, InvalidStateError
from durable_host.functions.status_payload import status_payload
from durable_host.http.calls import Call, InvalidJsonError, compact_json
from durable_host.http.errors import error_text, first_form, invalid_json
from durable_host.http.messages import NOT_FOUND, Answer, empty, json_answer
from durable_host.model.history import HistoryEvent
from durable_host.model.status import RuntimeStatus

__all__ = ["purge", "raise_event", "resume", "rewind", "status", "suspend", "terminate"]

_ACCEPTED = empty(202)
_GONE = empty(410)


async def status(call: Call) -> Answer:
    """`GET instances/{id}`."""
    query = call.request.query
    state = None if call.client is None else await call.client.get(call.key)
    if call.client is None or state is None:
        return NOT_FOUND
    history: Sequence[HistoryEvent] | None = None
    if query.flag("showHistory", False) and state.version is not None:
        try:
            history = await call.client.history(call.key)
        except InstanceNotFoundError:
            return NOT_FOUND  # purged between the two reads
    payload = status_payload(
        state,
        show_input=query.flag("showInput", True),
        history=history,
        show_history_output=query.flag("showHistoryOutput", False),
    )
    if not state.status.is_terminal:
        return json_answer(202, payload, ("Location", call.address()), ("Retry-After", "5"))
    failed = state.status is RuntimeStatus.FAILED and query.flag("returnInternalServerErrorOnFailure", False)
    return json_answer(500 if failed else 200, payload)


async def raise_event(call: Call) -> Answer:
    """`POST instances/{id}/raiseEvent/{event}`: 404, then 410, then the content type, then the body."""
    problem: Answer | None = None
    text = "null"
    if call.request.headers.get("content-type", "").split(";", 1)[0].strip().lower() != "application/json":
        problem = first_form(400, "Only application/json request content is supported")
    else:
        try:
            text = compact_json(call.request.body)
        except InvalidJsonError as error:
            problem = invalid_json(str(error))
    if call.client is None:
        return NOT_FOUND
    if problem is not None:
        state = await call.client.get(call.key, with_payloads=False)
        return NOT_FOUND if state is None else _GONE if state.status.is_terminal else problem
    if call.local and call.api.unwrap_events:
        text = _unwrapped(text)
    trace = call.request.headers.get("traceparent") or None
    return await _sent(
        call, lambda client: client.raise_event(call.key, call.route.name, data_json=text, traceparent=trace)
    )


def _unwrapped(text: str) -> str:
    # The 1.x Python client encodes event data twice (http-api.md 15.4).
    if not text.startswith('"'):
        return text
    inner: str = msgspec.json.decode(text, type=str)
    try:
        return compact_json(inner.encode())
    except InvalidJsonError:
        return text


async def terminate(call: Call) -> Answer:
    """`POST instances/{id}/terminate`; `recursive=true`, ours, ends open children as well."""
    query = call.request.query
    recursive = query.flag("recursive", False)
    return await _sent(call, lambda client: client.terminate(call.key, query.text("reason"), recursive=recursive))


async def suspend(call: Call) -> Answer:
    """`POST instances/{id}/suspend`.

    Sent whatever the status says, and so is a resume: the one before it may still be on its way, and the status would
    be that of a moment ago. The engine drops what finds nothing to do and leaves no trace of it in the history.
    """
    return await _sent(call, lambda client: client.suspend(call.key, call.request.query.text("reason")))


async def resume(call: Call) -> Answer:
    """`POST instances/{id}/resume`; see `suspend`."""
    return await _sent(call, lambda client: client.resume(call.key, call.request.query.text("reason")))


async def _sent(call: Call, send: Callable[[TaskHubClient], Awaitable[None]]) -> Answer:
    if call.client is None:
        return NOT_FOUND
    try:
        await send(call.client)
    except InstanceNotFoundError:
        return NOT_FOUND
    except InvalidStateError:
        return _GONE
    return _ACCEPTED


async def rewind(call: Call) -> Answer:
    """`POST instances/{id}/rewind`; errors are JSON strings, the stray `$` of the reference included."""
    try:
        if call.client is None:
            raise InstanceNotFoundError(call.key)
        await call.client.rewind(call.key, call.request.query.text("reason"))
    except InstanceNotFoundError:
        return error_text(404, f'No orchestration with instance ID "${call.key}" found.')
    except InvalidStateError as error:
        return error_text(412, str(error))
    return _ACCEPTED


async def purge(call: Call) -> Answer:
    """`DELETE instances/{id}[?force=true]`; a missing entity is 200 with nothing deleted."""
    entity = call.key.startswith("@")
    removed = 0
    try:
        if call.client is not None:
            force = entity or call.request.query.flag("force", False)
            removed = await call.client.purge(call.key, force=force)
    except InstanceNotFoundError:
        removed = 0
    except InvalidStateError as error:
        return error_text(412, str(error))
    return json_answer(200, {"instancesDeleted": removed}) if removed or entity else NOT_FOUND
