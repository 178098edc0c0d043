"""The primitives of a storage account that the provider uses: queues, tables, blobs.

Each method is one request, or one logical request that the implementation repeats by itself while the service asks for
patience. Three implementations keep to these protocols: `sdk` (the Azure SDK), `rest` (a thin client for queues and
tables) and `simulated` (in memory, with faults on both sides of each primitive).

Rules that all of them keep:

-   An exception other than those named below leaves the effect unknown; so does a cancellation.
-   A request that the implementation repeats by itself may meet its own first attempt: an insert that answers 409 on a
    second attempt raises `ConflictError` like any other. Callers decide by reading.
-   Methods may be called from any event loop and from several at once: leases are renewed on a thread of their own.
    Implementations keep connections per loop.
-   Seconds of visibility and of leases are whole numbers, as the service takes them; who calls decides how to round.
-   Texts of errors never hold keys, signatures or connection strings.

Values of table rows are Python values whose type says the Edm type, see `Value`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from types import TracebackType
from typing import Protocol, Self

import msgspec

from durable_host.errors import StoreError, StoreUnavailableError

__all__ = [
    "ANY",
    "MAX_GET",
    "MAX_OPERATIONS",
    "MAX_VISIBILITY_S",
    "REQUEST_KINDS",
    "AccessDeniedError",
    "BlobContent",
    "BlobItem",
    "Blobs",
    "ConflictError",
    "EdmDateTime",
    "EdmGuid",
    "EdmInt64",
    "LeaseState",
    "NotFoundError",
    "PreconditionFailedError",
    "Queue",
    "QueueMessage",
    "RequestRefusedError",
    "Row",
    "StorageAccount",
    "StorageRequestError",
    "Table",
    "TableAction",
    "TableOperation",
    "TablePage",
    "ThrottledError",
    "Value",
    "Values",
]

ANY = "*"
"""As an ETag to match: whatever stands there, as long as something does."""

MAX_GET = 32
"""Most messages of one `Queue.get` or `Queue.peek`."""

MAX_OPERATIONS = 100
"""Most operations of one `Table.transact`."""

MAX_VISIBILITY_S = 7 * 86_400
"""Longest time for which a message can be invisible, in seconds."""


# Errors.


class StorageRequestError(StoreError):
    """The service answered, and said no.

    Attributes:
        status: of the HTTP answer.
        code: the service's, for example `UpdateConditionNotSatisfied`; empty where it gave none.
    """

    def __init__(self, message: str, *, status: int, code: str = "") -> None:
        self.status = status
        self.code = code
        super().__init__(message)


class NotFoundError(StorageRequestError):
    """404: the queue, message, table, row, container or blob is not there.

    Also raised for a message whose pop receipt is no longer valid (`PopReceiptMismatch`, a 400 by number): somebody
    else has got it, or changed it.
    """

    def __init__(self, message: str, *, status: int = 404, code: str = "", index: int | None = None) -> None:
        self.index = index
        super().__init__(message, status=status, code=code)


class ConflictError(StorageRequestError):
    """409: it is there already, or somebody holds a lease. `index`: of the operation in a transaction."""

    def __init__(self, message: str, *, status: int = 409, code: str = "", index: int | None = None) -> None:
        self.index = index
        super().__init__(message, status=status, code=code)


class PreconditionFailedError(StorageRequestError):
    """412: an ETag or a lease id does not match. `index`: of the operation in a transaction."""

    def __init__(self, message: str, *, status: int = 412, code: str = "", index: int | None = None) -> None:
        self.index = index
        super().__init__(message, status=status, code=code)


class AccessDeniedError(StorageRequestError):
    """401 or 403: the key, the signature or the role is wrong; the text says what to do."""


class RequestRefusedError(StorageRequestError):
    """Any other 4xx: what was asked for cannot be stored (too large, a bad name), or is a mistake of ours."""


class ThrottledError(StoreUnavailableError):
    """429 or 503 for longer than the implementation was willing to wait. `retry_after` in seconds, where told."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


# An account that cannot be reached, an answer of 5xx and a time limit that is over raise StoreUnavailableError itself.


# Queues.


class QueueMessage(msgspec.Struct, frozen=True):
    """A message as the last call on it returned it.

    Attributes:
        id: the service's, unique in its queue.
        text: as stored.
        pop_receipt: the right to change it; void as soon as somebody gets or changes the message.
        dequeue_count: how often it was got, this time included; 0 from `put`.
        inserted_at: by the service's clock, in whole seconds.
        next_visible_at: by the service's clock.
    """

    id: str
    text: str
    pop_receipt: str
    dequeue_count: int
    inserted_at: datetime
    next_visible_at: datetime


class Queue(Protocol):
    """One queue. Messages are put with an endless time to live."""

    @property
    def name(self) -> str: ...

    async def create(self) -> bool:
        """Create it; False: it was there."""
        ...

    async def delete(self) -> bool:
        """Remove it with its messages; False: it was not there."""
        ...

    async def put(self, text: str, *, visibility_s: int = 0) -> QueueMessage:
        """Append a message, invisible for so many seconds; the result can be updated and deleted at once.

        Raises:
            NotFoundError: there is no such queue.
        """
        ...

    async def get(self, limit: int, *, visibility_s: int) -> Sequence[QueueMessage]:
        """Take up to `limit` (1 to 32) visible messages, roughly oldest first; nobody else sees them meanwhile."""
        ...

    async def peek(self, limit: int) -> Sequence[QueueMessage]:
        """Look at up to `limit` (1 to 32) visible messages; their pop receipts are empty."""
        ...

    async def update(self, message: QueueMessage, *, visibility_s: int, text: str | None = None) -> QueueMessage:
        """Make it visible again after so many seconds from now, its text replaced if one is given.

        Returns:
            The message with its new pop receipt; the old one is void.

        Raises:
            NotFoundError: it is gone, or its pop receipt is void.
        """
        ...

    async def remove(self, message: QueueMessage) -> None:
        """Delete a message.

        Raises:
            NotFoundError: it is gone, or its pop receipt is void.
        """
        ...

    async def count(self) -> int:
        """About how many messages there are, visible or not.

        Raises:
            NotFoundError: there is no such queue.
        """
        ...


# Tables.


class EdmDateTime(str):
    """`Edm.DateTime` as its text, `2026-11-21T10:43:17.6071993Z`: a datetime would lose the seventh digit."""

    __slots__ = ()


class EdmInt64(int):
    """`Edm.Int64`; a plain int is an `Edm.Int32`."""

    __slots__ = ()


class EdmGuid(str):
    """`Edm.Guid` as its text."""

    __slots__ = ()


Value = str | bool | int | float | bytes
"""`Edm.String`, `Boolean`, `Int32`, `Double`, `Binary`; by the subclasses above `DateTime`, `Int64`, `Guid`."""

Values = Mapping[str, Value]
"""Columns of a row, `PartitionKey` and `RowKey` included. A null is an absent column."""


class Row(msgspec.Struct, frozen=True):
    """A row as read; `Timestamp` is among the values unless the query left it out."""

    values: dict[str, Value]
    etag: str


class TableAction(Enum):
    """What to do with a row. Where an `etag` is needed, `ANY` means: whatever stands there."""

    INSERT = "insert"
    """Must not exist: else ConflictError."""
    REPLACE = "replace"
    """Must exist with this `etag`: else NotFoundError or PreconditionFailedError."""
    MERGE = "merge"
    """As REPLACE, but columns that are not given stay."""
    UPSERT_REPLACE = "upsert replace"
    """Insert or replace, no condition."""
    UPSERT_MERGE = "upsert merge"
    """Insert or merge, no condition."""
    DELETE = "delete"
    """Must exist with this `etag`: else NotFoundError or PreconditionFailedError. Only the keys of `values` count."""


class TableOperation(msgspec.Struct, frozen=True):
    """One operation; `etag` for REPLACE, MERGE and DELETE only."""

    action: TableAction
    values: Values
    etag: str = ANY


class TablePage(msgspec.Struct, frozen=True):
    """Some rows in key order. It may be empty or short although `continuation` is set: ask on."""

    rows: Sequence[Row]
    continuation: str | None = None


class Table(Protocol):
    """One table."""

    @property
    def name(self) -> str: ...

    async def create(self) -> bool:
        """Create it; False: it was there."""
        ...

    async def delete(self) -> bool:
        """Remove it with its rows; False: it was not there."""
        ...

    async def get(self, partition_key: str, row_key: str, *, select: Sequence[str] = ()) -> Row | None:
        """One row, or None; `select` names the columns wanted, none for all.

        Raises:
            NotFoundError: there is no such table.
        """
        ...

    async def query(
        self, filter: str = "", *, select: Sequence[str] = (), top: int | None = None, continuation: str | None = None
    ) -> TablePage:
        """One page of the rows that match the OData filter, at most 1,000, and at most `top` where that is given.

        Args:
            continuation: opaque text of the page before, of the same query.

        Raises:
            NotFoundError: there is no such table.
        """
        ...

    async def write(self, operation: TableOperation) -> str:
        """One operation as a request of its own; the row's new ETag (empty after DELETE).

        Raises:
            ConflictError, NotFoundError, PreconditionFailedError: see `TableAction`.
        """
        ...

    async def transact(self, operations: Sequence[TableOperation]) -> Sequence[str]:
        """1 to 100 operations on different rows of one partition, 4 MB at most: all of them or none.

        Returns:
            The new ETags, in the order of the operations.

        Raises:
            ConflictError, NotFoundError, PreconditionFailedError: `index` is that of the first operation that failed.
        """
        ...


# Blobs.


class LeaseState(Enum):
    """Where the lease of a blob or container stands."""

    AVAILABLE = "available"
    LEASED = "leased"
    EXPIRED = "expired"
    BREAKING = "breaking"
    BROKEN = "broken"


class BlobItem(msgspec.Struct, frozen=True):
    """What is known of a blob without its content."""

    name: str
    etag: str
    size: int
    lease: LeaseState = LeaseState.AVAILABLE
    metadata: Mapping[str, str] = {}


class BlobContent(msgspec.Struct, frozen=True):
    """A blob as read."""

    data: bytes
    etag: str


class Blobs(Protocol):
    """One container of block blobs. Lease operations with `name` None are on the container itself.

    A lease id is a GUID text chosen by the caller. Writing and deleting what is leased needs `lease_id`.
    """

    @property
    def container(self) -> str: ...

    async def create(self) -> bool:
        """Create the container; False: it was there."""
        ...

    async def delete(self, *, lease_id: str | None = None) -> bool:
        """Remove the container with its blobs; False: it was not there.

        Raises:
            PreconditionFailedError: it is leased and `lease_id` is not that lease.
        """
        ...

    def url(self, name: str) -> str:
        """The blob's URL: `/`-separated segments of the name percent-encoded, RFC 3986 unreserved characters kept."""
        ...

    async def read(self, name: str) -> BlobContent | None:
        """The blob, or None; also when there is no such container."""
        ...

    async def properties(self, name: str | None) -> BlobItem | None:
        """What is known of the blob, or of the container (`name` None), or None."""
        ...

    async def write(
        self,
        name: str,
        data: bytes,
        *,
        if_match: str | None = None,
        if_absent: bool = False,
        lease_id: str | None = None,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Put a whole block blob with its metadata, none by default; its new ETag.

        Raises:
            NotFoundError: there is no such container.
            ConflictError: `if_absent`, and it is there.
            PreconditionFailedError: `if_match` or `lease_id` does not match, or it is leased and none was given.
        """
        ...

    async def remove(self, name: str, *, if_match: str | None = None, lease_id: str | None = None) -> bool:
        """Delete a blob; False: it was not there.

        Raises:
            PreconditionFailedError: as in `write`.
        """
        ...

    async def list(self, prefix: str) -> Sequence[BlobItem]:
        """All blobs whose name starts with the prefix, in order of names; none when there is no such container."""
        ...

    async def acquire_lease(self, name: str | None, *, duration_s: int, lease_id: str) -> None:
        """Take the lease for 15 to 60 s, or take it again under the same id.

        Raises:
            NotFoundError: no such blob or container.
            ConflictError: somebody else holds it.
        """
        ...

    async def renew_lease(self, name: str | None, lease_id: str) -> None:
        """Let it hold for its duration again.

        Raises:
            NotFoundError: no such blob or container.
            ConflictError, PreconditionFailedError: lost.
        """
        ...

    async def change_lease(self, name: str | None, lease_id: str, *, new_lease_id: str) -> None:
        """Take a lease over from who holds it under `lease_id`.

        Raises:
            NotFoundError: no such blob or container.
            ConflictError, PreconditionFailedError: nobody holds it under that id.
        """
        ...

    async def release_lease(self, name: str | None, lease_id: str) -> None:
        """Give it back.

        Raises:
            NotFoundError: no such blob or container.
            ConflictError, PreconditionFailedError: it was not ours.
        """
        ...


# The account.

REQUEST_KINDS: tuple[str, ...] = (
    *(f"queue.{each}" for each in ("create", "delete", "put", "get", "peek", "update", "remove", "count", "list")),
    *(f"table.{each}" for each in ("create", "delete", "get", "query", "write", "transact")),
    *(f"blob.{each}" for each in ("create", "delete", "read", "properties", "write", "remove", "list")),
    *(f"blob.{each}_lease" for each in ("acquire", "renew", "change", "release")),
)
"""Keys of `StorageAccount.requests`: the service and the method, for example `table.transact`."""


class StorageAccount(Protocol):
    """A storage account, or what stands for one. Used as an async context manager; the parts are cheap to make."""

    @property
    def location(self) -> str:
        """Where it is, without secrets, for people: `https://x.queue.core.windows.net`, `127.0.0.1:10001`."""
        ...

    @property
    def requests(self) -> Mapping[str, int]:
        """How many requests were made so far by kind, repetitions included; see `REQUEST_KINDS`."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    def queue(self, name: str) -> Queue:
        """The queue of that name, whether it exists or not."""
        ...

    def table(self, name: str) -> Table:
        """The table of that name, whether it exists or not."""
        ...

    def blobs(self, container: str) -> Blobs:
        """The container of that name, whether it exists or not."""
        ...

    async def queue_names(self, prefix: str) -> Sequence[str]:
        """Names of the queues that start with the prefix, sorted."""
        ...
