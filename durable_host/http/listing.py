"""Filters, and the two operations that take them: list and purge of many (http-api.md 6 and 7).

Ours beyond the reference, for both: `name` (orchestrator names, separated by commas or repeated), `tag` (`key:value`,
repeated: all must hold; the key ends at the first colon), `lastUpdatedTimeFrom` and `lastUpdatedTimeTo`; and for purge
`instanceIdPrefix` as well.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error

import msgspec

from durable_host.functions.status_payload import status_payload
from durable_host.http.calls import Call
from durable_host.http.errors import error_text, first_form
from durable_host.http.messages import NOT_FOUND, Answer, json_answer
from durable_host.http.query import FilterError, Query
from durable_host.model.instance import InstanceQuery
from durable_host.model.status import TERMINAL, RuntimeStatus

__all__ = ["CONTINUATION", "instance_query", "purge", "show"]

CONTINUATION = "x-ms-continuation-token"

_DEFAULT_PAGE = 100
_LOCAL_PAGE = 10_000
"""The Python client reads the first page only; a large one on its endpoint keeps it from losing the rest silently."""
_LARGEST_PAGE = 10_000

_STATUSES = {status.value.lower(): status for status in RuntimeStatus}


def instance_query(query: Query) -> InstanceQuery:
    """The filters of a request. Raises FilterError."""
    statuses: set[RuntimeStatus] = set()
    for item in query.items("runtimeStatus"):
        found = _STATUSES.get(item.lower())
        if found is None:
            names = ", ".join(sorted(status.value for status in RuntimeStatus))
            raise FilterError("runtimeStatus", item, f"one of {names}")
        statuses.add(found)
    tags: list[tuple[str, str]] = []
    for item in query.values("tag"):
        key, colon, value = item.partition(":")
        if not colon or not key:
            raise FilterError("tag", item, "key:value")
        tags.append((key, value))
    return InstanceQuery(
        statuses=frozenset(statuses),
        names=frozenset(query.items("name")),
        prefix=query.text("instanceIdPrefix") or "",
        tags=tuple(tags),
        created_from=query.instant("createdTimeFrom"),
        created_to=query.instant("createdTimeTo"),
        updated_from=query.instant("lastUpdatedTimeFrom"),
        updated_to=query.instant("lastUpdatedTimeTo"),
    )


async def show(call: Call) -> Answer:
    """`GET instances/`: one page, and the token for the next one in a header that is always there."""
    query = call.request.query
    size = query.page_size(_LOCAL_PAGE if call.local else _DEFAULT_PAGE, _LARGEST_PAGE)
    token = call.request.headers.get(CONTINUATION)
    wanted = msgspec.structs.replace(instance_query(query), limit=size, cursor=_cursor(token))
    if call.client is None:
        return json_answer(200, [], (CONTINUATION, ""))
    try:
        page = await call.client.query(wanted)
    except ValueError:
        # Promise 12 of the contract: the store cannot read the cursor.
        if token:
            raise FilterError(CONTINUATION, token, "a token from an earlier page") from None
        raise
    show_input = query.flag("showInput", True)
    body = [status_payload(state, show_input=show_input) for state in page.instances]
    return json_answer(200, body, (CONTINUATION, _token(page.cursor)))


def _token(cursor: str | None) -> str:
    return "" if cursor is None else urlsafe_b64encode(cursor.encode("utf-8", "surrogatepass")).decode()


def _cursor(token: str | None) -> str | None:
    if not token:
        return None
    try:
        raw = urlsafe_b64decode(token.encode("ascii"))
        if urlsafe_b64encode(raw) != token.encode("ascii"):  # the decoder skips what it does not know
            raise ValueError("not base64")
        return raw.decode("utf-8", "surrogatepass")
    except (Base64Error, ValueError):
        raise FilterError(CONTINUATION, token, "a token from an earlier page") from None


async def purge(call: Call) -> Answer:
    """`DELETE instances/?createdTimeFrom=…`: nothing that is not terminal goes without `force=true`."""
    query = call.request.query
    try:
        start = query.instant("createdTimeFrom")
    except FilterError:
        start = None
    if start is None:
        return error_text(400, "Please provide value for 'createdTimeFrom' parameter.")
    wanted = instance_query(query)
    force = query.flag("force", False)
    living = sorted(status.value for status in wanted.statuses - TERMINAL)
    if living and not force:
        return first_form(
            400, f"Instances with status {', '.join(living)} have not ended; add force=true to purge them all the same."
        )
    if wanted.created_to is None:
        wanted = msgspec.structs.replace(wanted, created_to=call.api.now())
    removed = 0 if call.client is None else await call.client.purge_by(wanted, force=force)
    return json_answer(200, {"instancesDeleted": removed}) if removed else NOT_FOUND
