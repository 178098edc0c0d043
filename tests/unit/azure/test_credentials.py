"""Connections of Azure Storage: what the settings mean, and that nothing shows which opens an account."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import NamedTuple

import pytest

from durable_host.environment import Environment
from durable_host.errors import ConfigurationError, StoreUnavailableError
from durable_host.testing.environment import SimulatedClock
from durable_host_providers.azure_storage.credentials import (
    Connection,
    Identity,
    Sas,
    SharedKey,
    TokenSource,
    parse_connection_string,
    resolve_connection,
)
from durable_host_providers.azure_storage.ports import AccessDeniedError

SECRET = b"a key that nobody may see"
KEY = base64.b64encode(SECRET).decode()


def resolve(name: str = "AzureWebJobsStorage", **settings: str) -> Connection:
    folded = {key.lower(): value for key, value in settings.items()}
    return resolve_connection(name, lambda each: folded.get(each.replace(":", "__").lower()))


def test_a_connection_string_of_azure_gives_the_addresses_of_its_services() -> None:
    found = parse_connection_string(
        f"DefaultEndpointsProtocol=https;AccountName=acct;AccountKey={KEY};EndpointSuffix=core.windows.net"
    )

    assert found.urls == {each: f"https://acct.{each}.core.windows.net" for each in ("blob", "queue", "table")}
    assert found.credential == SharedKey("acct", SECRET)
    assert found.location == "acct.queue.core.windows.net"


def test_addresses_that_are_given_win() -> None:
    found = parse_connection_string(
        f"AccountName=acct;AccountKey={KEY};QueueEndpoint=http://127.0.0.1:5/acct/;TableEndpoint=https://t.example/"
    )

    assert found.urls == {
        "blob": "https://acct.blob.core.windows.net",
        "queue": "http://127.0.0.1:5/acct",
        "table": "https://t.example",
    }


@pytest.mark.parametrize("text", ["UseDevelopmentStorage=true", " UseDevelopmentStorage=True; "])
def test_the_emulator_is_on_its_own_ports(text: str) -> None:
    found = parse_connection_string(text)

    assert found.urls == {
        "blob": "http://127.0.0.1:10000/devstoreaccount1",
        "queue": "http://127.0.0.1:10001/devstoreaccount1",
        "table": "http://127.0.0.1:10002/devstoreaccount1",
    }
    assert isinstance(found.credential, SharedKey)


def test_the_emulator_may_be_elsewhere() -> None:
    found = parse_connection_string("UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://azurite")

    assert found.urls["queue"] == "http://azurite:10001/devstoreaccount1"


def test_a_shared_access_signature_is_a_credential() -> None:
    found = parse_connection_string(
        "BlobEndpoint=https://a.blob.core.windows.net/;QueueEndpoint=https://a.queue.core.windows.net;"
        "TableEndpoint=https://a.table.core.windows.net;SharedAccessSignature=?sv=2021&sig=abc%3D"
    )

    assert found.credential == Sas("sv=2021&sig=abc%3D")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "Name=Value"),
        (f"AccountName=acct;AccountKey={KEY}x", "not Base64"),
        (f"AccountKey={KEY}", "lacks AccountName"),
        ("AccountName=acct", "lacks AccountKey or SharedAccessSignature"),
        ("SharedAccessSignature=sig=abc", "lacks AccountName, or BlobEndpoint"),
        (f"AccountName=acct;AccountKey={KEY};QueueEndpoint=nowhere", "QueueEndpoint is not an address"),
        (f"AccountName=acct;AccountKey={KEY};DefaultEndpointsProtocol=ftp", "must be http or https"),
    ],
)
def test_what_is_wrong_is_said_without_the_key(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(AzureWebJobsStorage=text)

    assert said in str(caught.value)
    assert "'AzureWebJobsStorage'" in str(caught.value)
    assert KEY not in str(caught.value)
    assert "sig=abc" not in str(caught.value)


def test_nothing_that_opens_an_account_shows() -> None:
    for each in (
        parse_connection_string(f"AccountName=acct;AccountKey={KEY}"),
        Sas("sig=hidden"),
        Identity(client_id="id", tenant_id="t", client_secret="hidden"),
    ):
        assert KEY not in repr(each)
        assert "nobody" not in repr(each)
        assert "hidden" not in repr(each)


def test_the_first_section_that_exists_wins() -> None:
    one, two = f"AccountName=one;AccountKey={KEY}", f"AccountName=two;AccountKey={KEY}"

    assert resolve("", AzureWebJobsStorage=one).name == "AzureWebJobsStorage"
    assert resolve("Mine", AzureWebJobsMine=one, Mine=two).urls["blob"].startswith("https://one.")
    assert resolve("Mine", Mine=two).urls["blob"].startswith("https://two.")
    assert resolve("Mine", ConnectionStrings__Mine=one, Mine=two).urls["blob"].startswith("https://one.")


def test_a_missing_connection_is_told_in_azures_words() -> None:
    with pytest.raises(ConfigurationError, match=r"'AzureWebJobsMine' does not exist\. Make sure"):
        resolve("Mine")


def test_a_section_of_parts_means_an_identity() -> None:
    by_name = resolve(AzureWebJobsStorage__accountName="acct")
    by_address = resolve(AzureWebJobsStorage__serviceUri="https://acct.blob.core.windows.net")
    each = resolve(
        AzureWebJobsStorage__blobServiceUri="https://b.example",
        AzureWebJobsStorage__queueServiceUri="https://q.example",
        AzureWebJobsStorage__tableServiceUri="https://t.example/",
        AzureWebJobsStorage__credential="managedidentity",
        AzureWebJobsStorage__clientId="me",
    )

    assert by_name.urls == by_address.urls
    assert by_name.urls["table"] == "https://acct.table.core.windows.net"
    assert by_name.credential == Identity()
    assert each.urls == {"blob": "https://b.example", "queue": "https://q.example", "table": "https://t.example"}
    assert each.credential == Identity(credential="managedidentity", client_id="me")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"clientId": "me"}, "names no account"),
        ({"blobServiceUri": "https://b.example"}, "does not say where its queues are"),
        ({"accountName": "acct", "credential": "password"}, "the only kind is managedidentity"),
        ({"accountName": "acct", "clientSecret": "hidden"}, "needs AzureWebJobsStorage__clientId"),
        ({"serviceUri": "http://acct.blob.core.windows.net"}, "must be an https address"),
    ],
)
def test_an_incomplete_section_is_told(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(**{f"AzureWebJobsStorage__{key}": value for key, value in settings.items()})

    assert said in str(caught.value)
    assert "hidden" not in str(caught.value)


class _Token(NamedTuple):
    token: str
    expires_on: int


class _Identity:
    """Gives tokens that last an hour, or fails."""

    def __init__(self, clock: SimulatedClock) -> None:
        self.clock = clock
        self.given = 0
        self.error: Exception | None = None

    def get_token(self, *scopes: str) -> _Token:
        assert scopes == ("https://storage.azure.com/.default",)
        if self.error is not None:
            raise self.error
        self.given += 1
        return _Token(f"token {self.given}", int(self.clock.now().timestamp()) + 3600)


async def test_a_token_is_kept_until_shortly_before_it_ends() -> None:
    clock = SimulatedClock(lambda: 0.0)
    identity = _Identity(clock)
    source = TokenSource(Identity(), Environment(clock=clock), identity)

    first = await source.token()
    clock.advance(timedelta(minutes=50))
    kept = await source.token()
    clock.advance(timedelta(minutes=6))
    renewed = await source.token()

    assert first[0] == kept[0] == "token 1"
    assert renewed[0] == "token 2"


async def test_a_token_is_used_to_its_end_while_there_is_no_other() -> None:
    from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError

    clock = SimulatedClock(lambda: 0.0)
    identity = _Identity(clock)
    source = TokenSource(Identity(), Environment(clock=clock), identity)
    await source.token()

    identity.error = ServiceRequestError("no answer, and hidden")
    clock.advance(timedelta(minutes=58))
    assert (await source.token())[0] == "token 1"
    clock.advance(timedelta(minutes=3))
    with pytest.raises(StoreUnavailableError) as unreachable:
        await source.token()
    identity.error = ClientAuthenticationError("hidden")
    with pytest.raises(AccessDeniedError) as denied:
        await source.token()

    assert "hidden" not in str(unreachable.value) + str(denied.value)
