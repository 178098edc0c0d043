"""What the REST client does when the service throttles, cuts connections, refuses the clock, or is away for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path

import pytest
from aiohttp import web

from durable_host.environment import Environment
from durable_host.errors import StoreUnavailableError
from durable_host.testing.environment import SimulatedClock
from durable_host_providers.azure_storage.credentials import (
    Connection,
    Credential,
    Identity,
    Sas,
    SharedKey,
    TokenSource,
    parse_connection_string,
)
from durable_host_providers.azure_storage.ports import AccessDeniedError, QueueMessage, TableAction, TableOperation
from durable_host_providers.azure_storage.rest import RestAccount
from durable_host_providers.azure_storage.rest_http import HttpClient
from durable_host_providers.azure_storage.rest_patience import Patience
from durable_host_providers.azure_storage.rest_queue import RestQueue
from tests.hosting import free_port
from tests.servers.azurite import Azurite

pytestmark = pytest.mark.live

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

EMPTY = b'<?xml version="1.0" encoding="utf-8"?><QueueMessagesList />'
SECRET = "a secret that nobody may see"
KEY = SharedKey("acct", SECRET.encode())


@asynccontextmanager
async def serving(handler: Handler) -> AsyncGenerator[str]:
    """A service of one's own; its address."""
    server = web.Server(handler)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", free_port())
    await site.start()
    try:
        yield site.name
    finally:
        await runner.cleanup()


def connection(url: str, credential: Credential = KEY) -> Connection:
    return Connection("Test", dict.fromkeys(("blob", "queue", "table"), f"{url}/acct"), credential)


async def test_a_busy_service_is_asked_again_after_the_time_it_names() -> None:
    asked: list[float] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(asyncio.get_running_loop().time())
        if len(asked) == 1:
            return web.Response(status=503, headers={"Retry-After": "1", "x-ms-error-code": "ServerBusy"})
        return web.Response(body=EMPTY)

    async with serving(handler) as url, RestAccount(connection(url), Environment()) as account:
        assert await account.queue("q").get(1, visibility_s=30) == []

        assert asked[1] - asked[0] >= 1
        assert account.requests == {"queue.get": 2}


async def test_a_cut_connection_is_an_unknown_effect() -> None:
    asked: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.method)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with serving(handler) as url, RestAccount(connection(url), Environment()) as account:
        with pytest.raises(StoreUnavailableError, match="Its effect is unknown"):
            await account.queue("q").put("a")
        assert asked == ["POST"]
        with pytest.raises(StoreUnavailableError):
            await account.queue("q").get(1, visibility_s=30)
        assert asked.count("GET") > 1


async def test_a_kept_connection_that_breaks_is_an_unknown_effect_as_well() -> None:
    asked: list[str] = []
    message = QueueMessage("id", "text", "receipt", 1, datetime.now(UTC), datetime.now(UTC))
    headers = {"x-ms-popreceipt": "new", "x-ms-time-next-visible": "Sat, 21 Nov 2026 10:00:00 GMT"}

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.method)
        if len(asked) > 1:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=204, headers=headers)

    async with serving(handler) as url, RestAccount(connection(url), Environment()) as account:
        queue = account.queue("q")
        await queue.update(message, visibility_s=30)
        with pytest.raises(StoreUnavailableError, match="Its effect is unknown"):
            await queue.update(message, visibility_s=30)

    assert asked == ["PUT", "PUT"]


async def test_an_account_that_is_not_there_is_told_with_its_address() -> None:
    port = free_port()

    async with RestAccount(connection(f"http://127.0.0.1:{port}"), Environment()) as account:
        with pytest.raises(StoreUnavailableError) as caught:
            await account.queue("q").put("a")

    assert f"127.0.0.1:{port}" in str(caught.value)
    assert SECRET not in str(caught.value)


async def test_a_clock_that_is_far_off_is_corrected_by_the_services() -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    asked: list[timedelta] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        skew = parsedate_to_datetime(request.headers["x-ms-date"]) - now
        asked.append(abs(skew))
        headers = {"Date": format_datetime(now, usegmt=True), "x-ms-error-code": "AuthenticationFailed"}
        if abs(skew) > timedelta(minutes=15):
            return web.Response(status=403, headers=headers)
        return web.Response(body=EMPTY, headers=headers)

    clock = SimulatedClock(lambda: 0.0)
    async with serving(handler) as url, RestAccount(connection(url), Environment(clock=clock)) as account:
        for _ in range(2):
            assert await account.queue("q").get(1, visibility_s=30) == []

    assert [skew > timedelta(minutes=15) for skew in asked] == [True, False, False]


async def test_a_wrong_key_is_told_without_it() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        signature = request.headers["Authorization"]
        body = f"<Error><Code>AuthenticationFailed</Code><Message>Signature {signature} is wrong</Message></Error>"
        return web.Response(status=403, text=body)

    async with serving(handler) as url, RestAccount(connection(url), Environment()) as account:
        with pytest.raises(AccessDeniedError) as caught:
            await account.table("t").get("p", "r")

    assert "SharedKey" not in str(caught.value)
    assert "check the connection's key" in str(caught.value)


async def test_a_shared_access_signature_goes_with_each_request_and_into_no_text() -> None:
    asked: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.raw_path)
        return web.Response(status=404, headers={"x-ms-error-code": "QueueNotFound"})

    signature = Sas("sv=2021&sig=abc%2Bdef%3D")
    async with serving(handler) as url, RestAccount(connection(url, signature), Environment()) as account:
        with pytest.raises(Exception, match="QueueNotFound") as caught:
            await account.queue("q").peek(1)

    assert asked == ["/acct/q/messages?numofmessages=1&peekonly=true&sv=2021&sig=abc%2Bdef%3D"]
    assert "abc" not in str(caught.value)


class _Tokens(TokenSource):
    async def token(self) -> tuple[str, int]:
        return SECRET, 0


async def test_a_token_goes_with_each_request() -> None:
    asked: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.headers["Authorization"])
        return web.Response(body=EMPTY)

    environment = Environment()
    async with serving(handler) as url:
        tokens = _Tokens(Identity(), environment)
        patience = Patience(environment)
        async with HttpClient(connection(url, Identity()), environment, patience, tokens) as client:
            await RestQueue(client, "q").peek(1)

    assert asked == [f"Bearer {SECRET}"]


async def test_a_throttled_operation_within_a_batch_is_asked_again() -> None:
    asked = 0

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        line = "503 Server Busy" if asked == 1 else "204 No Content"
        return web.Response(status=202, text=f"--batch\r\n\r\n--changeset\r\n\r\nHTTP/1.1 {line}\r\nETag: e\r\n\r\n")

    operation = TableOperation(TableAction.INSERT, {"PartitionKey": "p", "RowKey": "r"})
    async with serving(handler) as url, RestAccount(connection(url), Environment()) as account:
        assert list(await account.table("t").transact([operation])) == ["e"]
        assert account.requests == {"table.transact": 2}


async def test_a_batch_that_is_answered_in_part_is_an_unknown_effect() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=202, text="--batch\r\n\r\n--changeset\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")

    operations = [TableOperation(TableAction.INSERT, {"PartitionKey": "p", "RowKey": each}) for each in "ab"]
    async with serving(handler) as url, RestAccount(connection(url), Environment()) as account:
        with pytest.raises(StoreUnavailableError, match="1 of 2 operations"):
            await account.table("t").transact(operations)


async def test_work_goes_on_when_the_service_is_back(tmp_path: Path, azurite: Azurite) -> None:
    with Azurite(tmp_path, in_memory=False) as server:
        account = RestAccount(parse_connection_string(server.connection_string), Environment())
        async with account:
            queue = account.queue("away")
            await queue.create()
            await queue.put("before")
            server.stop()
            with pytest.raises(StoreUnavailableError):
                await queue.put("while it is away")
            server.start()
            await queue.put("after")

            assert sorted(each.text for each in await queue.get(32, visibility_s=30)) == ["after", "before"]
