"""Tables over REST: rows as JSON, entity-group transactions as multipart batches."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from durable_host.environment import IdSource
from durable_host.errors import StoreUnavailableError

from .ports import ConflictError, NotFoundError, Row, TableAction, TableOperation, TablePage, Values
from .rest_answers import error_of
from .rest_http import Answer, HttpClient, code_and_detail
from .rest_values import decode_row, decode_rows, encode_row

__all__ = ["RestTable"]

_JSON = "application/json"
_ACCEPT = {"accept": "application/json;odata=minimalmetadata", "dataserviceversion": "3.0"}
_BODY = {"content-type": _JSON, "prefer": "return-no-content", **_ACCEPT}
_METHODS = {
    TableAction.INSERT: "POST",
    TableAction.REPLACE: "PUT",
    TableAction.MERGE: "PATCH",
    TableAction.UPSERT_REPLACE: "PUT",
    TableAction.UPSERT_MERGE: "PATCH",
    TableAction.DELETE: "DELETE",
}
_CONDITIONAL = frozenset({TableAction.REPLACE, TableAction.MERGE, TableAction.DELETE})
_UNCONDITIONAL = frozenset({TableAction.UPSERT_REPLACE, TableAction.UPSERT_MERGE})


class RestTable:
    """One table, see `ports.Table`."""

    def __init__(self, client: HttpClient, ids: IdSource, name: str) -> None:
        self._client = client
        self._ids = ids
        self._name = name
        self._path = f"/{quote(name)}"

    @property
    def name(self) -> str:
        return self._name

    async def create(self) -> bool:
        try:
            body = msgspec.json.encode({"TableName": self._name})
            await self._client.send("table.create", "POST", "/Tables", target=self._name, headers=_BODY, body=body)
        except ConflictError:
            return False
        return True

    async def delete(self) -> bool:
        try:
            await self._send("delete", "DELETE", f"/Tables('{quote(self._name)}')")
        except NotFoundError:
            return False
        return True

    async def get(self, partition_key: str, row_key: str, *, select: Sequence[str] = ()) -> Row | None:
        query = [("$select", ",".join(select))] if select else []
        answer = await self._client.send(
            "table.get",
            "GET",
            self._path + _keys(partition_key, row_key),
            target=self._name,
            query=query,
            headers=_ACCEPT,
            may_be_missing=True,
        )
        if answer.status == 404:
            code, detail = code_and_detail(answer.headers.get("x-ms-error-code", ""), answer.body)
            if code == "TableNotFound":
                raise error_of("table.get", self._name, 404, code, detail)
            return None
        return decode_row(answer.body, answer.headers.get("ETag"))

    async def query(
        self, filter: str = "", *, select: Sequence[str] = (), top: int | None = None, continuation: str | None = None
    ) -> TablePage:
        query: list[tuple[str, str]] = []
        if filter:
            query.append(("$filter", filter))
        if select:
            query.append(("$select", ",".join(select)))
        if top is not None:
            query.append(("$top", str(top)))
        if continuation is not None:
            partition, row = msgspec.json.decode(continuation, type=tuple[str, str])
            query.append(("NextPartitionKey", partition))
            if row:
                query.append(("NextRowKey", row))
        answer = await self._send("query", "GET", f"{self._path}()", query)
        partition = answer.headers.get("x-ms-continuation-NextPartitionKey", "")
        row = answer.headers.get("x-ms-continuation-NextRowKey", "")
        more = msgspec.json.encode((partition, row)).decode() if partition else None
        return TablePage(decode_rows(answer.body), more)

    async def write(self, operation: TableOperation) -> str:
        action = operation.action
        headers = dict(_ACCEPT if action is TableAction.DELETE else _BODY)
        if action in _CONDITIONAL:
            headers["if-match"] = operation.etag
        answer = await self._client.send(
            "table.write",
            _METHODS[action],
            self._of(operation),
            target=self._name,
            headers=headers,
            body=b"" if action is TableAction.DELETE else encode_row(operation.values),
            safe=action in _UNCONDITIONAL,
        )
        return answer.headers.get("ETag", "")

    async def transact(self, operations: Sequence[TableOperation]) -> Sequence[str]:
        boundary = self._ids.new_id()
        parts: list[_Part] = []

        def check(answer: Answer) -> None:
            parts[:] = self._checked(answer, len(operations))

        await self._client.send(
            "table.transact",
            "POST",
            "/$batch",
            target=self._name,
            headers={"content-type": f"multipart/mixed; boundary=batch_{boundary}", **_ACCEPT},
            body=self._batch(operations, boundary),
            safe=all(each.action in _UNCONDITIONAL for each in operations),
            check=check,
        )
        return [part.etag for part in parts]

    def _checked(self, answer: Answer, count: int) -> Sequence[_Part]:
        """The answers to each operation. A batch is answered with 202 whether or not it was done."""
        parts = _parts(answer)
        if len(parts) == 1 and parts[0].status >= 400:
            refused = parts[0]
            code, detail = code_and_detail("", refused.body)
            raise error_of("table.transact", self._name, refused.status, code, detail)
        if len(parts) != count:
            raise StoreUnavailableError(
                f"Azure Storage answered {len(parts)} of {count} operations of a transaction on {self._name!r}; "
                "its effect is unknown."
            )
        return parts

    def _batch(self, operations: Sequence[TableOperation], boundary: str) -> bytes:
        """The body of a batch of one change set."""
        lines: list[bytes] = [
            f"--batch_{boundary}\r\nContent-Type: multipart/mixed; boundary=changeset_{boundary}\r\n\r\n".encode()
        ]
        for operation in operations:
            action = operation.action
            match = f"If-Match: {operation.etag}\r\n" if action in _CONDITIONAL else ""
            head = (
                f"--changeset_{boundary}\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
                f"{_METHODS[action]} {self._client.url('table', self._of(operation))} HTTP/1.1\r\n"
                f"Accept: application/json;odata=minimalmetadata\r\nDataServiceVersion: 3.0\r\n{match}"
            )
            if action is TableAction.DELETE:
                lines.append(f"{head}\r\n\r\n".encode())
                continue
            body = encode_row(operation.values)
            prefer = "Prefer: return-no-content\r\n" if action is TableAction.INSERT else ""
            head = f"{head}{prefer}Content-Type: {_JSON}\r\nContent-Length: {len(body)}\r\n\r\n"
            lines += (head.encode(), body, b"\r\n")
        lines.append(f"--changeset_{boundary}--\r\n--batch_{boundary}--\r\n".encode())
        return b"".join(lines)

    def _of(self, operation: TableOperation) -> str:
        if operation.action is TableAction.INSERT:
            return self._path
        return self._path + _keys_of(operation.values)

    async def _send(self, operation: str, method: str, path: str, query: Sequence[tuple[str, str]] = ()) -> Answer:
        return await self._client.send(
            f"table.{operation}", method, path, target=self._name, query=query, headers=_ACCEPT
        )


def _keys_of(values: Values) -> str:
    return _keys(str(values["PartitionKey"]), str(values["RowKey"]))


def _keys(partition_key: str, row_key: str) -> str:
    """The part of a row's address after the table: quotes doubled, then percent-encoded."""
    partition = quote(partition_key.replace("'", "''"), safe="")
    row = quote(row_key.replace("'", "''"), safe="")
    return f"(PartitionKey='{partition}',RowKey='{row}')"


class _Part:
    """The answer to one operation of a batch, or to the one that was refused."""

    __slots__ = ("body", "etag", "status")

    def __init__(self, status: int, etag: str, body: bytes) -> None:
        self.status = status
        self.etag = etag
        self.body = body


def _parts(answer: Answer) -> list[_Part]:
    """The answers within the answer to a batch."""
    parts: list[_Part] = []
    for chunk in answer.body.split(b"HTTP/1.1 ")[1:]:
        head, _, body = chunk.replace(b"\r\n", b"\n").partition(b"\n\n")
        etags = [line[5:].strip() for line in head.split(b"\n") if line[:5].lower() == b"etag:"]
        parts.append(_Part(int(head[:3]), etags[0].decode() if etags else "", body))
    return parts
