"""Starts and events inside the caller's own transaction on PostgreSQL: they happen if it commits, and only then."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.hosting import ROOT, HostProcess, source_environment
from tests.live.host_app import make_app, wait_until

pytestmark = pytest.mark.live

_WEBHOOK = "/runtime/webhooks/durabletask"

_APP = """
import os

import asyncpg
import psycopg

import durable_host as df

app = df.FunctionApp(http_auth_level=df.AuthLevel.ANONYMOUS)
ORDERS = os.environ["ORDERS"]


@app.orchestration_trigger(context_name="context")
async def order(context: df.DurableOrchestrationContext) -> list:
    return [context.get_input(), await context.wait_for_external_event("paid")]


async def act(client, connection, req):
    name = req.route_params["id"]
    if req.route_params["what"] == "start":
        return await client.start_new("order", instance_id=name, client_input={"of": name}, connection=connection)
    await client.raise_event(name, "paid", {"by": "card"}, connection=connection)
    return name


@app.route(route="{driver}/{what}/{id}/{outcome}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def order_in_transaction(req: df.HttpRequest, client: df.DurableOrchestrationClient) -> df.HttpResponse:
    name, commit = req.route_params["id"], req.route_params["outcome"] == "commit"
    match req.route_params["driver"]:
        case "asyncpg":
            connection = await asyncpg.connect(ORDERS)
            try:
                transaction = connection.transaction()
                await transaction.start()
                await connection.execute("INSERT INTO orders VALUES ($1)", name)
                await act(client, connection, req)
                await (transaction.commit() if commit else transaction.rollback())
            finally:
                await connection.close()
        case "psycopg_async":
            connection = await psycopg.AsyncConnection.connect(ORDERS)
            try:
                await connection.execute("INSERT INTO orders VALUES (%s)", (name,))
                await act(client, connection, req)
                await (connection.commit() if commit else connection.rollback())
            finally:
                await connection.close()
        case "psycopg":
            connection = psycopg.connect(ORDERS)
            try:
                connection.execute("INSERT INTO orders VALUES (%s)", (name,))
                await act(client, connection, req)
                connection.commit() if commit else connection.rollback()
            finally:
                connection.close()
        case _:
            await act(client, object(), req)
    return df.HttpResponse(name)
"""

_PAGE = (ROOT / "docs" / "how-to" / "postgres.md").read_text(encoding="utf-8")

DRIVERS = ["asyncpg", "psycopg_async", "psycopg"]


@pytest.fixture(scope="module")
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    server = request.getfixturevalue("postgres_server")
    name = server.create_database()
    server.execute("CREATE TABLE orders (id text)", database=name)
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[HostProcess]:
    app = make_app(tmp_path_factory.mktemp("orders") / "app", _APP)
    with HostProcess(app, "--storage", database, environment=source_environment(ORDERS=database)) as running:
        yield running


@pytest.fixture(scope="module")
def other_host(tmp_path_factory: pytest.TempPathFactory, database: str, host: HostProcess) -> Iterator[HostProcess]:
    """On the same hub; it hears of what the first one's callers commit."""
    app = make_app(tmp_path_factory.mktemp("other") / "app", _APP)
    with HostProcess(app, "--storage", database, environment=source_environment(ORDERS=database)) as running:
        yield running


def _ordered(database: str, name: str) -> int:
    with psycopg.connect(database) as connection:
        return len(connection.execute("SELECT 1 FROM orders WHERE id = %s", (name,)).fetchall())


def _act(host: HostProcess, driver: str, what: str, name: str, outcome: str) -> None:
    answer = host.request("POST", f"/api/{driver}/{what}/{name}/{outcome}")
    assert answer.status == 200, (answer, host.printed())


def _status(host: HostProcess, name: str) -> int:
    return host.request("GET", f"{_WEBHOOK}/instances/{name}").status


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_is_committed_with_the_callers_rows_happens(
    host: HostProcess, other_host: HostProcess, database: str, driver: str
) -> None:
    name = f"commit-{driver}"

    _act(host, driver, "start", name, "commit")
    assert _status(host, name) == 202
    _act(other_host, driver, "event", name, "commit")

    # Well below the slow poll: the commit itself wakes the hosts.
    document = host.complete(f"{_WEBHOOK}/instances/{name}", within=4)
    assert document["output"] == [{"of": name}, {"by": "card"}]
    assert _ordered(database, name) == 2


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_is_rolled_back_never_happened(host: HostProcess, database: str, driver: str) -> None:
    name = f"rollback-{driver}"

    _act(host, driver, "start", name, "rollback")
    assert _status(host, name) == 404
    assert _ordered(database, name) == 0

    _act(host, driver, "start", name, "commit")
    _act(host, driver, "event", name, "rollback")
    wait_until(
        lambda: host.request("GET", f"{_WEBHOOK}/instances/{name}").json()["runtimeStatus"] == "Running", "it waits"
    )
    _act(host, driver, "event", name, "commit")
    assert host.complete(f"{_WEBHOOK}/instances/{name}", within=4)["output"] == [{"of": name}, {"by": "card"}]


def test_an_instance_that_exists_already_undoes_nothing_by_itself(host: HostProcess, database: str) -> None:
    _act(host, "asyncpg", "start", "twice", "commit")

    answer = host.request("POST", "/api/asyncpg/start/twice/commit")

    assert answer.status == 500
    assert "already exists" in host.printed()
    assert _ordered(database, "twice") == 1, "the caller did not commit"


def test_a_connection_of_a_kind_that_is_not_known_is_refused(host: HostProcess) -> None:
    answer = host.request("POST", "/api/nothing/start/refused/commit")

    assert answer.status == 500
    assert "asyncpg" in host.printed()
    assert _status(host, "refused") == 404


def test_the_app_and_the_statements_of_the_how_to_work(tmp_path: Path, postgres_database: str) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", _PAGE, re.MULTILINE | re.DOTALL)
    (statements,) = re.findall(r"^```sql title=\"callers.sql\"\n(.*?)^```$", _PAGE, re.MULTILINE | re.DOTALL)
    app = make_app(
        tmp_path / "app",
        code,
        host_json="""{"version": "2.0", "extensions": {"durableTask": {
            "hubName": "Orders", "storageProvider": {"type": "postgres", "connectionName": "OrdersDatabase"}
        }}}""",
    )

    with HostProcess(app, environment=source_environment(OrdersDatabase=postgres_database)) as host:
        with psycopg.connect(postgres_database, autocommit=True) as connection:
            connection.execute("CREATE TABLE orders (id serial PRIMARY KEY, item text)")
            answer = host.request("POST", "/api/orders", {"item": "coffee"})
            assert answer.status == 202, (answer, host.printed())
            connection.execute(statements.encode())
            connection.execute("SELECT durable_host.raise_event('Orders', 'order-1', 'paid')")
        first = host.complete(f"{_WEBHOOK}/instances/order-1", within=4)
        second = host.complete(f"{_WEBHOOK}/instances/order-1007", within=4)

    assert first["output"] == ["coffee", None]
    assert second["output"] == ["tea", {"by": "card"}]
