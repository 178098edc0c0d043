"""Both clients open an account with a shared access signature alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from azure.storage.queue import generate_account_sas

from durable_host.environment import Environment
from durable_host_providers.azure_storage.credentials import parse_connection_string
from durable_host_providers.azure_storage.ports import AccessDeniedError, TableAction, TableOperation
from durable_host_providers.azure_storage.rest import RestAccount
from durable_host_providers.azure_storage.sdk import SdkAccount
from tests.servers.azurite import Azurite

pytestmark = pytest.mark.live


def connection_string(azurite: Azurite, permissions: str) -> str:
    token = generate_account_sas(
        azurite.account,
        azurite.key,
        resource_types="sco",
        permission=permissions,
        expiry=datetime.now(UTC) + timedelta(hours=1),
        services="bqt",
    )
    endpoints = ";".join(f"{kind.capitalize()}Endpoint={url}" for kind, url in azurite.urls.items())
    return f"{endpoints};SharedAccessSignature={token}"


@pytest.mark.parametrize("kind", [RestAccount, SdkAccount])
async def test_a_signature_opens_queues_tables_and_blobs(
    azurite: Azurite, kind: type[RestAccount] | type[SdkAccount]
) -> None:
    connection = parse_connection_string(connection_string(azurite, "rwdlacup"))
    name = azurite.new_name()
    async with kind(connection, Environment()) as account:
        queue, table, blobs = account.queue(name), account.table(name), account.blobs(name)
        for each in (queue, table, blobs):
            assert await each.create() is True

        put = await queue.put("a", visibility_s=30)
        await queue.remove(await queue.update(put, visibility_s=0))
        etag = await table.write(TableOperation(TableAction.INSERT, {"PartitionKey": "p", "RowKey": "r"}))
        merge = TableOperation(TableAction.MERGE, {"PartitionKey": "p", "RowKey": "r", "A": 1}, etag)
        assert len(await table.transact([merge])) == 1
        assert len((await table.query("PartitionKey eq 'p'")).rows) == 1
        await blobs.write("a b", b"1")
        assert [item.name for item in await blobs.list("")] == ["a b"]
        for each in (queue, table, blobs):
            assert await each.delete() is True


@pytest.mark.parametrize("kind", [RestAccount, SdkAccount])
async def test_what_a_signature_does_not_allow_is_denied_without_naming_it(
    azurite: Azurite, kind: type[RestAccount] | type[SdkAccount]
) -> None:
    text = connection_string(azurite, "r")
    async with kind(parse_connection_string(text), Environment()) as account:
        for call in (account.queue("nothing").create(), account.table("nothing").create()):
            with pytest.raises(AccessDeniedError) as caught:
                await call
            assert text.rpartition("sig=")[2][:20] not in str(caught.value)
