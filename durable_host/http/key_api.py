"""The key endpoints of the admin API (http-api.md 17.3, functions-host.md 10.3)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from durable_host.http.errors import first_form
from durable_host.http.keys import MASTER, Key, KeyRing, KeyScope, create_key, delete_key, list_keys
from durable_host.http.messages import NOT_FOUND, Answer, Request, empty, json_answer

__all__ = ["KeyApi"]


class _Given(msgspec.Struct):
    value: str | None = None
    name: str | None = None


class KeyApi:
    """Lists, makes, sets and removes keys of one scope at a time."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    async def handle(self, request: Request, scope: KeyScope, name: str | None) -> Answer:
        """Answer one request.

        Args:
            name: of the key in the path; None: the whole scope.
        """
        ring = self._ring
        if ring.store is None:
            return first_form(501, "This host keeps no keys: its storage provider has no host-state store.")
        if name is None:
            if request.method != "GET":
                return NOT_FOUND
            keys = await list_keys(ring.store, ring.environment, scope)
            return json_answer(
                200, {"keys": [{"name": k.name, "value": k.value} for k in keys], "links": _links(request)}
            )
        match request.method:
            case "GET":
                found = await self._find(scope, name)
                return NOT_FOUND if found is None else self._shown(200, found, request)
            case "POST" | "PUT":
                value: str | None = None
                if request.method == "PUT":
                    value = _given(request.body)
                    if value is None:
                        return first_form(400, "Invalid key value")
                key, new = await create_key(ring.store, ring.environment, scope, name, value)
                ring.forget()
                return self._shown(201 if new else 200, key, request)
            case "DELETE":
                if name == MASTER:
                    return first_form(400, "Cannot delete System Key.")
                gone = await delete_key(ring.store, ring.environment, scope, name)
                ring.forget()
                return empty(204) if gone else NOT_FOUND
            case _:
                return NOT_FOUND

    async def _find(self, scope: KeyScope, name: str) -> Key | None:
        assert self._ring.store is not None
        if name == MASTER and scope.name is None:
            value = await self._ring.master_key()
            return None if value is None else Key(MASTER, value)
        keys: Sequence[Key] = await list_keys(self._ring.store, self._ring.environment, scope)
        return next((key for key in keys if key.name.lower() == name.lower()), None)

    def _shown(self, status: int, key: Key, request: Request) -> Answer:
        return json_answer(status, {"name": key.name, "value": key.value, "links": _links(request)})


def _links(request: Request) -> list[dict[str, str]]:
    return [{"rel": "self", "href": f"{request.scheme}://{request.host}{request.path}"}]


def _given(body: bytes) -> str | None:
    try:
        return msgspec.json.decode(body, type=_Given).value or None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
