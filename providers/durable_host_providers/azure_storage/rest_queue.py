"""Queues over REST."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from .ports import ConflictError, NotFoundError, QueueMessage
from .rest_http import Answer, HttpClient

__all__ = ["RestQueue", "queue_names"]

_XML = {"content-type": "application/xml"}
_NEVER = "-1"
_MORE_ESCAPES = {"\r": "&#13;"}
_MISSING = datetime.fromtimestamp(0, UTC)  # a message that was peeked at


class RestQueue:
    """One queue, see `ports.Queue`."""

    def __init__(self, client: HttpClient, name: str) -> None:
        self._client = client
        self._name = name
        self._path = f"/{quote(name)}"

    @property
    def name(self) -> str:
        return self._name

    async def create(self) -> bool:
        try:
            answer = await self._send("create", "PUT", self._path)
        except ConflictError:
            return False
        return answer.status == 201

    async def delete(self) -> bool:
        try:
            await self._send("delete", "DELETE", self._path)
        except NotFoundError:
            return False
        return True

    async def put(self, text: str, *, visibility_s: int = 0) -> QueueMessage:
        query = [("messagettl", _NEVER)]
        if visibility_s:
            query.append(("visibilitytimeout", str(visibility_s)))
        answer = await self._send("put", "POST", f"{self._path}/messages", query, _body(text))
        return _put_message(answer.body, text)

    async def get(self, limit: int, *, visibility_s: int) -> Sequence[QueueMessage]:
        query = [("numofmessages", str(limit)), ("visibilitytimeout", str(visibility_s))]
        return _messages(await self._send("get", "GET", f"{self._path}/messages", query))

    async def peek(self, limit: int) -> Sequence[QueueMessage]:
        query = [("numofmessages", str(limit)), ("peekonly", "true")]
        return _messages(await self._send("peek", "GET", f"{self._path}/messages", query))

    async def update(self, message: QueueMessage, *, visibility_s: int, text: str | None = None) -> QueueMessage:
        query = [("popreceipt", message.pop_receipt), ("visibilitytimeout", str(visibility_s))]
        body = b"" if text is None else _body(text)
        answer = await self._send("update", "PUT", self._of(message), query, body)
        return QueueMessage(
            id=message.id,
            text=message.text if text is None else text,
            pop_receipt=answer.headers["x-ms-popreceipt"],
            dequeue_count=message.dequeue_count,
            inserted_at=message.inserted_at,
            next_visible_at=_time(answer.headers["x-ms-time-next-visible"]),
        )

    async def remove(self, message: QueueMessage) -> None:
        await self._send("remove", "DELETE", self._of(message), [("popreceipt", message.pop_receipt)])

    async def count(self) -> int:
        answer = await self._send("count", "GET", self._path, [("comp", "metadata")])
        return int(answer.headers["x-ms-approximate-messages-count"])

    def _of(self, message: QueueMessage) -> str:
        return f"{self._path}/messages/{quote(message.id, safe='')}"

    async def _send(
        self, operation: str, method: str, path: str, query: Sequence[tuple[str, str]] = (), body: bytes = b""
    ) -> Answer:
        headers = _XML if body else None
        return await self._client.send(
            f"queue.{operation}", method, path, target=self._name, query=query, headers=headers, body=body
        )


async def queue_names(client: HttpClient, prefix: str) -> Sequence[str]:
    """Names of the account's queues that start with the prefix, sorted."""
    names: list[str] = []
    marker = ""
    while True:
        query = [("comp", "list"), ("prefix", prefix)]
        if marker:
            query.append(("marker", marker))
        answer = await client.send("queue.list", "GET", "/", target=prefix, query=query)
        root = ElementTree.fromstring(answer.body)
        names += [element.text or "" for element in root.iterfind("Queues/Queue/Name")]
        marker = root.findtext("NextMarker") or ""
        if not marker:
            return sorted(names)


@lru_cache(maxsize=256)  # the messages of one answer have few times, in whole seconds
def _time(text: str) -> datetime:
    return parsedate_to_datetime(text)


def _body(text: str) -> bytes:
    return f"<QueueMessage><MessageText>{escape(text, _MORE_ESCAPES)}</MessageText></QueueMessage>".encode()


def _put_message(body: bytes, text: str) -> QueueMessage:
    """The one message of an answer to a put. Nothing in it is escaped, and a parser takes ten times as long."""
    return QueueMessage(
        id=_field(body, b"<MessageId>"),
        text=text,
        pop_receipt=_field(body, b"<PopReceipt>"),
        dequeue_count=0,
        inserted_at=_time(_field(body, b"<InsertionTime>")),
        next_visible_at=_time(_field(body, b"<TimeNextVisible>")),
    )


def _field(body: bytes, tag: bytes) -> str:
    return body.partition(tag)[2].partition(b"<")[0].decode()


def _messages(answer: Answer) -> list[QueueMessage]:
    """The messages of an answer."""
    found: list[QueueMessage] = []
    for element in ElementTree.fromstring(answer.body):
        fields = {child.tag: child.text or "" for child in element}
        next_visible = fields.get("TimeNextVisible")
        found.append(
            QueueMessage(
                id=fields["MessageId"],
                text=fields.get("MessageText", ""),
                pop_receipt=fields.get("PopReceipt", ""),
                dequeue_count=int(fields.get("DequeueCount", "0")),
                inserted_at=_time(fields["InsertionTime"]),
                next_visible_at=_time(next_visible) if next_visible else _MISSING,
            )
        )
    return found
