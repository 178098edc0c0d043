"""Faults of the hub's file while it is in use: each has a stated outcome, and most of them end in recovery."""

# ruff: noqa: ASYNC240 the files are small and local

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from durable_host.environment import system_environment
from durable_host.errors import StoreError, StoreMismatchError, StoreUnavailableError
from durable_host.model.ids import InstanceId
from durable_host.model.instance import HistoryVersion, InstanceQuery
from durable_host.storage.contract import StorageOptions
from durable_host_providers.sqlite import SqliteTaskHubStore, provider

from .sqlite_faults import fill, opened, start

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("sqlite_faults.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "providers")])}


class _Forgetful:
    def holds(self, instance_id: InstanceId, version: HistoryVersion) -> bool:
        return False


@asynccontextmanager
async def hub(file: Path) -> AsyncGenerator[SqliteTaskHubStore]:
    store = opened(file)
    assert isinstance(store, SqliteTaskHubStore)
    await store.create()
    async with store:
        yield store


async def run(fault: str, file: Path) -> list[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), fault, str(file), env=ENVIRONMENT, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode().splitlines()


def python(code: str, *arguments: str) -> None:
    """Do something to a file in another process: closing it in this one would drop SQLite's locks."""
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)


# A full disk.


async def test_a_full_database_refuses_and_recovers(tmp_path: Path) -> None:
    async with hub(tmp_path / "hub.db") as store:
        await store.writer.call(lambda tx: tx.execute("PRAGMA max_page_count = 300").fetchone())
        taken = await fill(store, "full")
        with pytest.raises(StoreUnavailableError, match=r"cannot grow: the disk is full .* Make room"):
            await store.create_instance(start("more", 20_000), replaceable=())
        with pytest.raises(StoreUnavailableError):
            await store.check()
        assert await store.get_instance(InstanceId(taken[-1])) is not None, "reading goes on"

        await store.writer.call(lambda tx: tx.execute("PRAGMA max_page_count = 100000").fetchone())

        await store.check()
        assert await store.create_instance(start("later", 20_000), replaceable=())
        page = await store.query_instances(InstanceQuery(limit=1_000, with_payloads=False))
        assert {*taken, "later"} == {state.instance_id for state in page.instances}


async def test_a_file_size_limit_refuses_and_recovers(tmp_path: Path) -> None:
    lines = await run("file_size_limit", tmp_path / "hub.db")

    assert lines[0].startswith("StoreUnavailableError Reading or writing the hub file hub.db failed")
    assert lines[1:] == ["not ready StoreUnavailableError", "ready", "lost 0"]


# A locked file.


async def test_a_locked_file_refuses_and_recovers(tmp_path: Path) -> None:
    file = tmp_path / "hub.db"
    async with hub(file) as store:
        await store.create_instance(start("before"), replaceable=())
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match=r"is locked: another process .* for more than 0\.2 s"):
            await store.create_instance(start("a"), replaceable=())
        with pytest.raises(StoreUnavailableError, match="is locked"):
            await store.lock_orchestrations(1, wait=timedelta(seconds=1), cache=_Forgetful())
        with pytest.raises(StoreUnavailableError, match="is locked"):
            await store.check()
        assert await store.get_instance(InstanceId("before")) is not None, "reading goes on"

        other.execute("ROLLBACK")
        other.close()

        await store.check()
        assert await store.create_instance(start("a"), replaceable=())
        items = await store.lock_orchestrations(10, wait=timedelta(0), cache=_Forgetful())
        assert len(items) == 2


# Rights.


@pytest.fixture
def open_folder() -> Generator[Path]:
    """A folder that an unprivileged user can reach."""
    if not hasattr(os, "setuid") or os.getuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


async def test_a_folder_that_cannot_be_written_is_told(open_folder: Path) -> None:
    (line,) = await run("as_nobody", open_folder / "hub.db")

    assert line.startswith("StoreUnavailableError The hub file hub.db cannot be opened. Check that its folder exists")


@pytest.mark.parametrize("folder_mode", [0o755, 0o777])
async def test_a_read_only_file_is_told_and_works_once_it_may_be_written(open_folder: Path, folder_mode: int) -> None:
    file = open_folder / "hub.db"
    async with hub(file):
        pass
    open_folder.chmod(folder_mode)

    (line,) = await run("as_nobody", file)
    assert line.startswith("StoreUnavailableError The ")
    assert "user of this process" in line

    open_folder.chmod(0o777)
    for each in open_folder.rglob("*"):
        each.chmod(0o777 if each.is_dir() else 0o666)
    assert await run("as_nobody", file) == ["ready"]


async def test_a_connection_that_became_read_only_recovers(tmp_path: Path) -> None:
    async with hub(tmp_path / "hub.db") as store:
        await store.writer.call(lambda tx: tx.execute("PRAGMA query_only = on"))
        with pytest.raises(StoreUnavailableError, match="is read-only for this user"):
            await store.create_instance(start("a"), replaceable=())

        assert await store.create_instance(start("a"), replaceable=())


# The file goes away under us.


async def refuses_all(store: SqliteTaskHubStore, match: str) -> None:
    with pytest.raises(StoreUnavailableError, match=match):
        await store.create_instance(start("lost"), replaceable=())
    with pytest.raises(StoreUnavailableError, match=match):
        await store.get_instance(InstanceId("a"))
    with pytest.raises(StoreUnavailableError, match=match):
        await store.lock_orchestrations(1, wait=timedelta(seconds=1), cache=_Forgetful())
    with pytest.raises(StoreUnavailableError, match=match):
        await store.check()


async def test_a_deleted_file_acknowledges_nothing_and_may_be_put_back(tmp_path: Path) -> None:
    file = tmp_path / "hub.db"
    async with hub(file) as store:
        await store.create_instance(start("a"), replaceable=())
        aside = tmp_path / "aside"
        file.rename(aside)

        await refuses_all(store, "was deleted or moved while in use")

        aside.rename(file)
        await store.check()
        assert await store.create_instance(start("b"), replaceable=())
        assert await store.get_instance(InstanceId("a")) is not None


async def test_a_host_that_waits_notices_that_its_file_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "hub.db"
    async with hub(file) as store:
        waiting = asyncio.ensure_future(store.lock_orchestrations(1, wait=timedelta(seconds=30), cache=_Forgetful()))
        await asyncio.sleep(0.2)
        file.unlink()

        with pytest.raises(StoreUnavailableError, match="was deleted"):
            await asyncio.wait_for(waiting, 10)


async def test_a_replaced_file_is_not_written(tmp_path: Path) -> None:
    file, other = tmp_path / "hub.db", tmp_path / "other.db"
    async with hub(other) as store:
        await store.create_instance(start("theirs"), replaceable=())
    async with hub(file) as store:
        await store.create_instance(start("a"), replaceable=())
        other.replace(file)

        await refuses_all(store, "was replaced while in use")

    for log in (Path(f"{file}-wal"), Path(f"{file}-shm")):  # they belonged to the old file
        log.unlink()
    async with hub(file) as store:
        page = await store.query_instances(InstanceQuery())
        assert [state.instance_id for state in page.instances] == ["theirs"]


async def test_a_file_cut_short_acknowledges_nothing_more(tmp_path: Path) -> None:
    file, copy = tmp_path / "hub.db", tmp_path / "copy.db"
    async with hub(file) as store:
        await store.create_instance(start("a"), replaceable=())
        _bring_log_into_file(file)
        shutil.copy(file, copy)
        os.truncate(file, 0)

        await refuses_all(store, "was cut short while in use")

        file.write_bytes(copy.read_bytes())  # into the same file: what is in memory is not what is there
        with pytest.raises(StoreUnavailableError, match="cut short"):
            await store.create_instance(start("too early"), replaceable=())


async def test_a_file_shortened_by_a_vacuum_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "hub.db"
    async with hub(file) as store:
        for number in range(100):
            await store.create_instance(start(f"a{number}", 20_000), replaceable=())
        assert await store.purge([InstanceId(f"a{number}") for number in range(100)], force=True) == 100
        length = file.stat().st_size
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("VACUUM")
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        other.close()
        assert file.stat().st_size < length

        assert await store.create_instance(start("b"), replaceable=())
        assert await store.get_instance(InstanceId("b")) is not None


def _bring_log_into_file(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    connection.close()


async def test_a_deleted_log_is_told(tmp_path: Path) -> None:
    file = tmp_path / "hub.db"
    async with hub(file) as store:
        await store.create_instance(start("a"), replaceable=())
        Path(f"{file}-wal").unlink()

        await refuses_all(store, "-wal was deleted or replaced while in use")


async def test_a_damaged_file_is_not_written_until_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "hub.db"
    async with hub(file) as store:
        for _ in range(300):
            await store.create_instance(start(system_environment().ids.new_id(), 5_000), replaceable=())
        python(
            "import shutil, sqlite3, sys\n"
            "connection = sqlite3.connect(sys.argv[1])\n"
            "connection.execute('PRAGMA wal_checkpoint(TRUNCATE)')\n"
            "connection.close()\n"
            "shutil.copy(sys.argv[1], sys.argv[2])\n"
            "with open(sys.argv[1], 'r+b') as file:\n"
            "    size = file.seek(0, 2)\n"
            "    file.seek(8 * 4096)\n"
            "    file.write(b'damage! ' * ((size - 8 * 4096) // 8))\n",
            str(file),
            str(tmp_path / "copy"),
        )

        with pytest.raises(StoreUnavailableError, match="is damaged"):
            await store.query_instances(InstanceQuery(limit=1_000))
        await refuses_all(store, "is damaged")

    async def opens() -> None:
        async with hub(file) as store:
            await store.query_instances(InstanceQuery(limit=1_000))

    with pytest.raises(StoreError, match="is damaged"):
        await opens()
    for name in (file, Path(f"{file}-wal"), Path(f"{file}-shm")):
        name.unlink(missing_ok=True)
    shutil.copy(tmp_path / "copy", file)
    await opens()


# What is there is not ours.


@pytest.mark.parametrize("content", [b"This is a text. " * 300, b"SQLite format 3\0" + b"\xff" * 8000])
async def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "hub.db"
    file.write_bytes(content)

    with pytest.raises(StoreError):
        await opened(file).create()

    assert file.read_bytes() == content


async def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "hub.db"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE theirs (a)")
    connection.commit()
    connection.close()
    content = file.read_bytes()

    for refused in (opened(file).create, opened(file).__aenter__, opened(file).delete):
        with pytest.raises(StoreMismatchError, match=r"database of another program .* not a task hub"):
            await refused()

    assert file.read_bytes() == content


async def test_a_hub_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "hub.db"
    async with hub(file):
        pass
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    for refused in (opened(file).create, opened(file).__aenter__):
        with pytest.raises(StoreMismatchError, match=r"version 99, .* written by a newer durable-host"):
            await refused()


async def test_another_hubs_file_is_refused_and_case_does_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "hub.db"
    async with hub(file):
        pass

    def named(name: str) -> StorageOptions:
        return StorageOptions(name, {}, tmp_path, "sqlite:///hub.db")

    async with provider.open(named("HUB"), system_environment()).hub:
        pass
    with pytest.raises(StoreMismatchError, match="holds the task hub 'Hub', not 'Other'"):
        await provider.open(named("Other"), system_environment()).hub.create()


async def test_an_empty_file_becomes_a_hub(tmp_path: Path) -> None:
    file = tmp_path / "hub.db"
    file.touch()

    async with hub(file) as store:
        await store.check()


async def test_a_hub_that_is_not_there_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StoreMismatchError, match=r"no hub file hub\.db; call create\(\) first"):
        await opened(tmp_path / "hub.db").__aenter__()

    assert list(tmp_path.iterdir()) == []


async def test_two_processes_may_make_one_hub_at_once(tmp_path: Path) -> None:
    stores = [opened(tmp_path / "hub.db") for _ in range(8)]

    await asyncio.gather(*(store.create() for store in stores))

    async with stores[0] as store:
        await store.check()


async def test_delete_refuses_while_a_host_works_and_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "hub.db"
    async with hub(file):
        with pytest.raises(StoreUnavailableError, match="in use by a host; stop it first"):
            await opened(file).delete()

    await opened(file).delete()

    assert list(tmp_path.iterdir()) == []
