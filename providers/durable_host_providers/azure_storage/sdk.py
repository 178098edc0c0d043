"""A storage account over the Azure SDK: slower than `rest`, and the judge of what it does.

Hot paths do not come here. Tests run both implementations against the same account.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import msgspec
from azure.core import MatchConditions
from azure.data.tables import EdmType, EntityProperty, UpdateMode
from azure.data.tables.aio import TableServiceClient
from azure.storage.queue import QueueMessage as SdkMessage
from azure.storage.queue.aio import QueueClient, QueueServiceClient

from durable_host.environment import Environment

from .credentials import Connection, Identity, SharedKey, TokenSource
from .ports import (
    ANY,
    Blobs,
    ConflictError,
    EdmDateTime,
    EdmGuid,
    EdmInt64,
    NotFoundError,
    Queue,
    QueueMessage,
    RequestRefusedError,
    Row,
    Table,
    TableAction,
    TableOperation,
    TablePage,
    Value,
    Values,
)
from .rest_answers import error_of
from .rest_http import VERSIONS
from .rest_loops import PerLoop
from .rest_patience import Patience
from .sdk_blobs import SdkBlobServices
from .sdk_calls import CLIENT_OPTIONS, SdkCalls, sdk_credential

__all__ = ["SdkAccount", "SdkQueue", "SdkTable"]

T = TypeVar("T")
_EPOCH = datetime.fromtimestamp(0, UTC)
_MERGE = frozenset({TableAction.MERGE, TableAction.UPSERT_MERGE})
_UPSERT = frozenset({TableAction.UPSERT_MERGE, TableAction.UPSERT_REPLACE})


class SdkAccount:
    """See `ports.StorageAccount`."""

    def __init__(self, connection: Connection, environment: Environment) -> None:
        credential = connection.credential
        tokens = TokenSource(credential, environment) if isinstance(credential, Identity) else None
        encoded = base64.b64encode(credential.key).decode() if isinstance(credential, SharedKey) else ""
        opened: Any = sdk_credential(connection, tokens, encoded)
        urls = connection.urls
        self._location = connection.location
        self._patience = Patience(environment)
        self._blobs = SdkBlobServices(connection, self._patience, tokens)
        self._queue_calls = SdkCalls(self._patience, urlsplit(urls["queue"]).netloc)
        self._table_calls = SdkCalls(self._patience, urlsplit(urls["table"]).netloc)
        self._queues = PerLoop(
            lambda: QueueServiceClient(
                urls["queue"], credential=opened, api_version=VERSIONS["queue"], **CLIENT_OPTIONS
            ),
            lambda client: client.close(),
        )
        self._tables = PerLoop(
            lambda: TableServiceClient(urls["table"], credential=opened, **CLIENT_OPTIONS),
            lambda client: client.close(),
        )

    @property
    def location(self) -> str:
        return self._location

    @property
    def requests(self) -> Mapping[str, int]:
        return self._patience.requests

    async def __aenter__(self) -> Self:
        await self._queues.__aenter__()
        await self._tables.__aenter__()
        await self._blobs.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._blobs.__aexit__(exc_type, exc, tb)
        await self._tables.__aexit__(exc_type, exc, tb)
        await self._queues.__aexit__(exc_type, exc, tb)

    def queue(self, name: str) -> Queue:
        return SdkQueue(self._queue_calls, self._queues, name)

    def table(self, name: str) -> Table:
        return SdkTable(self._table_calls, self._tables, name)

    def blobs(self, container: str) -> Blobs:
        return self._blobs.container(container)

    async def queue_names(self, prefix: str) -> Sequence[str]:
        async with self._queues.use() as service:
            client: Any = service

            async def names() -> list[str]:
                found = client.list_queues(name_starts_with=prefix)
                return [str(each.name) async for each in found]

            return sorted(await self._queue_calls.run("queue.list", prefix, names))


class SdkQueue:
    """One queue, see `ports.Queue`."""

    def __init__(self, calls: SdkCalls, clients: PerLoop[QueueServiceClient], name: str) -> None:
        self._calls = calls
        self._clients = clients
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    async def create(self) -> bool:
        try:
            await self._run("create", lambda client: client.create_queue())
        except ConflictError:
            return False
        except RequestRefusedError as error:
            if error.status != 204:  # "it is there, with the same metadata" is an error to the SDK
                raise
            return False
        return True

    async def delete(self) -> bool:
        try:
            await self._run("delete", lambda client: client.delete_queue())
        except NotFoundError:
            return False
        return True

    async def put(self, text: str, *, visibility_s: int = 0) -> QueueMessage:
        sent = await self._run(
            "put",
            lambda client: client.send_message(text, visibility_timeout=visibility_s or None, time_to_live=-1),
        )
        return _message(sent, text)

    async def get(self, limit: int, *, visibility_s: int) -> Sequence[QueueMessage]:
        async def get(client: QueueClient) -> list[SdkMessage]:
            found = client.receive_messages(messages_per_page=limit, visibility_timeout=visibility_s)
            return await _first_page(found.by_page())

        return [_message(each) for each in await self._run("get", get)]

    async def peek(self, limit: int) -> Sequence[QueueMessage]:
        return [_message(each) for each in await self._run("peek", lambda client: client.peek_messages(limit))]

    async def update(self, message: QueueMessage, *, visibility_s: int, text: str | None = None) -> QueueMessage:
        changed = await self._run(
            "update",
            lambda client: client.update_message(
                message.id, pop_receipt=message.pop_receipt, content=text, visibility_timeout=visibility_s
            ),
        )
        return msgspec.structs.replace(
            message,
            text=message.text if text is None else text,
            pop_receipt=str(changed.pop_receipt),
            next_visible_at=changed.next_visible_on or _EPOCH,
        )

    async def remove(self, message: QueueMessage) -> None:
        await self._run("remove", lambda client: client.delete_message(message.id, pop_receipt=message.pop_receipt))

    async def count(self) -> int:
        found = await self._run("count", lambda client: client.get_queue_properties())
        return int(found.approximate_message_count or 0)

    async def _run(self, operation: str, call: Callable[[QueueClient], Awaitable[T]]) -> T:
        async with self._clients.use() as service:
            client = service.get_queue_client(self._name)
            return await self._calls.run(f"queue.{operation}", self._name, lambda: call(client))


class SdkTable:
    """One table, see `ports.Table`."""

    def __init__(self, calls: SdkCalls, clients: PerLoop[TableServiceClient], name: str) -> None:
        self._calls = calls
        self._clients = clients
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    async def create(self) -> bool:
        try:
            await self._run("create", lambda client: client.create_table())
        except ConflictError:
            return False
        return True

    async def delete(self) -> bool:
        # The SDK passes over a table that is not there; whether it was shows in the status alone.
        statuses: list[int] = []

        async def delete(client: Any) -> None:
            await client.delete_table(raw_response_hook=_recorder(statuses))

        try:
            await self._run("delete", delete)
        except NotFoundError:
            return False
        return statuses[-1:] == [204]

    async def get(self, partition_key: str, row_key: str, *, select: Sequence[str] = ()) -> Row | None:
        options: dict[str, Any] = {"select": list(select)} if select else {}
        try:
            found = await self._run("get", lambda client: client.get_entity(partition_key, row_key, **options))
        except NotFoundError as error:
            if error.code == "TableNotFound":
                raise
            return None
        return _row(found)

    async def query(
        self, filter: str = "", *, select: Sequence[str] = (), top: int | None = None, continuation: str | None = None
    ) -> TablePage:
        options: dict[str, Any] = {"results_per_page": top, "select": list(select) or None}
        token = None
        if continuation is not None:
            partition, row = msgspec.json.decode(continuation, type=tuple[str, str])
            token = {"PartitionKey": partition, "RowKey": row or None}

        async def query(client: Any) -> TablePage:
            found = client.query_entities(filter, **options) if filter else client.list_entities(**options)
            pages: Any = found.by_page(continuation_token=token)
            rows = [_row(each) for each in await _first_page(pages)]
            more: Any = getattr(pages, "continuation_token", None)
            if not more or not more.get("PartitionKey"):
                return TablePage(rows)
            return TablePage(rows, msgspec.json.encode((more["PartitionKey"], more.get("RowKey") or "")).decode())

        return await self._run("query", query)

    async def write(self, operation: TableOperation) -> str:
        entity = _entity(operation.values)
        mode = UpdateMode.MERGE if operation.action in _MERGE else UpdateMode.REPLACE
        match_options = _match(operation.etag)
        statuses: list[int] = []

        async def write(client: Any) -> str:
            match operation.action:
                case TableAction.INSERT:
                    done: Mapping[str, Any] = await client.create_entity(entity)
                case TableAction.DELETE:
                    await client.delete_entity(
                        entity["PartitionKey"],
                        entity["RowKey"],
                        raw_response_hook=_recorder(statuses),
                        **match_options,
                    )
                    if statuses[-1:] == [404]:  # the SDK passes over a row that is not there
                        raise error_of("table.write", self._name, 404, "ResourceNotFound")
                    return ""
                case action if action in _UPSERT:
                    done = await client.upsert_entity(entity, mode)
                case _:
                    done = await client.update_entity(entity, mode, **match_options)
            return str(done["etag"])

        return await self._run("write", write, safe=operation.action in _UPSERT)

    async def transact(self, operations: Sequence[TableOperation]) -> Sequence[str]:
        batch: list[Any] = []
        for operation in operations:
            entity = _entity(operation.values)
            mode = UpdateMode.MERGE if operation.action in _MERGE else UpdateMode.REPLACE
            match operation.action:
                case TableAction.INSERT:
                    batch.append(("create", entity))
                case TableAction.DELETE:
                    batch.append(("delete", entity, _match(operation.etag)))
                case action if action in _UPSERT:
                    batch.append(("upsert", entity, {"mode": mode}))
                case _:
                    batch.append(("update", entity, {"mode": mode, **_match(operation.etag)}))
        safe = all(each.action in _UPSERT for each in operations)
        done = await self._run("transact", lambda client: client.submit_transaction(batch), safe=safe)
        return [str(each.get("etag") or "") for each in done]

    async def _run(self, operation: str, call: Callable[[Any], Awaitable[T]], *, safe: bool | None = None) -> T:
        # Any: the SDK's table client is typed in part only.
        async with self._clients.use() as service:
            client = service.get_table_client(self._name)
            return await self._calls.run(f"table.{operation}", self._name, lambda: call(client), safe=safe)


async def _first_page(pages: AsyncIterable[AsyncIterable[T]]) -> list[T]:
    """Of a paged answer the first page alone, which is one request."""
    async for page in pages:
        return [each async for each in page]
    return []


def _recorder(statuses: list[int]) -> Callable[[Any], None]:
    return lambda answer: statuses.append(int(answer.http_response.status_code))


def _match(etag: str) -> dict[str, Any]:
    """Without these the SDK sends `If-Match: *`."""
    return {} if etag == ANY else {"etag": etag, "match_condition": MatchConditions.IfNotModified}


def _message(found: SdkMessage, text: str | None = None) -> QueueMessage:
    return QueueMessage(
        id=str(found.id),
        text=str(found.content) if text is None else text,
        pop_receipt=found.pop_receipt or "",
        dequeue_count=found.dequeue_count or 0,
        inserted_at=found.inserted_on or _EPOCH,
        next_visible_at=found.next_visible_on or _EPOCH,
    )


def _entity(values: Values) -> dict[str, Any]:
    return {name: _written(value) for name, value in values.items()}


def _written(value: Value) -> Any:
    if isinstance(value, EdmDateTime):
        return EntityProperty(str(value), EdmType.DATETIME)
    if isinstance(value, EdmInt64):
        return EntityProperty(int(value), EdmType.INT64)
    if isinstance(value, EdmGuid):
        return EntityProperty(str(value), EdmType.GUID)
    return value


def _row(entity: Any) -> Row:
    metadata: Any = entity.metadata
    columns: Mapping[str, Any] = entity
    values = {name: _read(value) for name, value in columns.items() if value is not None}
    if metadata.get("timestamp") is not None:
        values["Timestamp"] = _read(metadata["timestamp"])
    return Row(values, str(metadata.get("etag") or ""))


def _read(value: Any) -> Value:
    if isinstance(value, EntityProperty):
        return EdmInt64(value.value)
    if isinstance(value, datetime):
        return EdmDateTime(getattr(value, "tables_service_value", "") or value.isoformat())
    if isinstance(value, bool | int | float | str | bytes):
        return value
    return EdmGuid(value)
