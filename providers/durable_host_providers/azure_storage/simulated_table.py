"""A storage table in memory: rows with ETags, entity-group transactions, filters and pages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from durable_host_providers.azure_storage.ports import (
    ANY,
    MAX_OPERATIONS,
    ConflictError,
    EdmDateTime,
    NotFoundError,
    PreconditionFailedError,
    RequestRefusedError,
    Row,
    TableAction,
    TableOperation,
    TablePage,
    Value,
)
from durable_host_providers.azure_storage.simulated_filter import parse_filter, sort_key

if TYPE_CHECKING:  # in types only: the service holds tables
    from durable_host_providers.azure_storage.simulated import SimulatedCaller, SimulatedService

__all__ = ["SimulatedTable", "TableState"]

_PAGE = 1_000
_MAX_TEXT = 32_768
_MAX_BATCH_BYTES = 4 * 1024 * 1024
_MAX_ROW_BYTES = 1024 * 1024
_ONE_PARTITION = re.compile(r"PartitionKey eq '((?:[^']|'')*)'(?: and \([^()]*\)| and (?:(?! or )[^()])*)?")
_FORBIDDEN = frozenset("/\\#?")

Key = tuple[str, str]


class TableState:
    """One table as the service keeps it; survives every crash."""

    def __init__(self, service: SimulatedService) -> None:
        self._service = service
        self.partitions: dict[str, dict[str, Row]] = {}

    def rows(self) -> list[Row]:
        """Every row, in no promised order."""
        return [row for partition in self.partitions.values() for row in partition.values()]

    def find(self, key: Key) -> Row | None:
        """The row with these keys."""
        return self.partitions.get(key[0], {}).get(key[1])

    def transact(self, operations: Sequence[TableOperation]) -> list[str]:
        """All or nothing."""
        if not 1 <= len(operations) <= MAX_OPERATIONS:
            raise _refused(f"a transaction of {len(operations)} operations", "InvalidInput")
        keys = [_key(each.values) for each in operations]
        if len({partition for partition, _ in keys}) > 1:
            raise _refused("a transaction over several partitions", "CommandsInBatchActOnDifferentPartitions")
        if len(set(keys)) < len(keys):
            raise _refused("two operations on one row", "InvalidDuplicateRow")
        if sum(_size(each.values) for each in operations) > _MAX_BATCH_BYTES:
            raise RequestRefusedError("the transaction is too large", status=413, code="RequestBodyTooLarge")
        changed: dict[Key, Row | None] = {}
        for index, (key, operation) in enumerate(zip(keys, operations, strict=True)):
            changed[key] = self._apply(self.find(key), operation, index)
        etags: list[str] = []
        for key, row in changed.items():
            if row is None:
                del self.partitions[key[0]][key[1]]
            else:
                self.partitions.setdefault(key[0], {})[key[1]] = row
            etags.append("" if row is None else row.etag)
        self._service.notify()
        return etags

    def _apply(self, row: Row | None, operation: TableOperation, index: int) -> Row | None:
        """The row as it will be, None: gone."""
        action = operation.action
        _check(operation.values)
        if action is TableAction.INSERT:
            if row is not None:
                raise ConflictError("the row exists", code="EntityAlreadyExists", index=index)
        elif action in {TableAction.REPLACE, TableAction.MERGE, TableAction.DELETE}:
            if row is None:
                raise NotFoundError("the row does not exist", code="ResourceNotFound", index=index)
            if operation.etag not in {ANY, row.etag}:
                raise PreconditionFailedError("the row was changed", code="UpdateConditionNotSatisfied", index=index)
        if action is TableAction.DELETE:
            return None
        merges = action in {TableAction.MERGE, TableAction.UPSERT_MERGE} and row is not None
        values = {**(row.values if merges and row is not None else {}), **operation.values}
        if _size(values) > _MAX_ROW_BYTES:
            raise RequestRefusedError("the row is too large", status=400, code="EntityTooLarge")
        values["Timestamp"] = EdmDateTime(self._service.now().strftime("%Y-%m-%dT%H:%M:%S.%f0Z"))
        return Row(values, f'W/"{self._service.number()}"')

    def query(self, filter: str, select: Sequence[str], top: int | None, continuation: str | None) -> TablePage:
        matches = parse_filter(filter)
        after = None if continuation is None else tuple(map(bytes.fromhex, continuation.split("|")))
        size = min(_PAGE if top is None else top, self._service.page_size)
        found: list[Row] = []
        one = _ONE_PARTITION.fullmatch(filter)  # else every query would look at every row
        within = self.rows() if one is None else self.partitions.get(one[1].replace("''", "'"), {}).values()
        for row in sorted((row for row in within if matches(row.values)), key=lambda row: _order(_key(row.values))):
            if after is not None and _order(_key(row.values)) <= after:
                continue
            if len(found) == size:
                last = _order(_key(found[-1].values))
                rows = [_selected(each, select) for each in found]
                return TablePage(rows, f"{last[0].hex()}|{last[1].hex()}")
            found.append(row)
        return TablePage([_selected(each, select) for each in found])


class SimulatedTable:
    """A process's way to a table."""

    def __init__(self, caller: SimulatedCaller, name: str) -> None:
        self._caller = caller
        self._tables = caller.service.tables
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    async def create(self) -> bool:
        async with self._caller.request("table.create"):
            created = self._name.lower() not in self._tables
            if created:
                self._tables[self._name.lower()] = TableState(self._caller.service)
        return created

    async def delete(self) -> bool:
        async with self._caller.request("table.delete"):
            return self._tables.pop(self._name.lower(), None) is not None

    async def get(self, partition_key: str, row_key: str, *, select: Sequence[str] = ()) -> Row | None:
        async with self._caller.request("table.get"):
            row = self._state().find((partition_key, row_key))
        return None if row is None else _selected(row, select)

    async def query(
        self, filter: str = "", *, select: Sequence[str] = (), top: int | None = None, continuation: str | None = None
    ) -> TablePage:
        async with self._caller.request("table.query"):
            return self._state().query(filter, select, top, continuation)

    async def write(self, operation: TableOperation) -> str:
        async with self._caller.request("table.write"):
            (etag,) = self._state().transact([operation])
        return etag

    async def transact(self, operations: Sequence[TableOperation]) -> list[str]:
        async with self._caller.request("table.transact"):
            return self._state().transact(operations)

    def _state(self) -> TableState:
        try:
            return self._tables[self._name.lower()]
        except KeyError:
            raise NotFoundError(f"there is no table {self._name!r}", code="TableNotFound") from None


def _key(values: Mapping[str, Value]) -> Key:
    return str(values["PartitionKey"]), str(values["RowKey"])


def _order(key: Key) -> tuple[bytes, bytes]:
    return sort_key(key[0]), sort_key(key[1])


def _selected(row: Row, select: Sequence[str]) -> Row:
    if not select:
        return Row(dict(row.values), row.etag)
    return Row({name: row.values[name] for name in select if name in row.values}, row.etag)


def _check(values: Mapping[str, Value]) -> None:
    for key in _key(values):
        if any(each in _FORBIDDEN or each < " " or "\x7f" <= each <= "\x9f" for each in key):
            raise _refused(f"the key {key!r}", "OutOfRangeInput")
    for name, value in values.items():
        if isinstance(value, str) and len(value.encode("utf-16-le", "surrogatepass")) > 2 * _MAX_TEXT:
            raise _refused(f"the column {name}", "PropertyValueTooLarge")
        if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
            raise _refused(f"the column {name}", "InvalidInput")


def _size(values: Mapping[str, Value]) -> int:
    return sum(2 * len(name) + (2 * len(value) if isinstance(value, str) else 8) for name, value in values.items())


def _refused(what: str, code: str) -> RequestRefusedError:
    return RequestRefusedError(f"{what} cannot be stored", status=400, code=code)
