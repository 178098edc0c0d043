"""Which storage account is meant, and what opens it: connection strings, SAS, and the identities of Azure.

A connection is an app setting that holds a connection string, or a section of settings such as
`AzureWebJobsStorage__accountName` for an identity-based one. Nothing that opens an account shows in a text, a `repr`
or an error.

Source: functions-host.md 1.13.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from durable_host.environment import Environment
from durable_host.errors import ConfigurationError, StoreError, StoreUnavailableError

from .ports import AccessDeniedError

__all__ = [
    "SERVICES",
    "Connection",
    "Credential",
    "Identity",
    "Sas",
    "SharedKey",
    "TokenSource",
    "parse_connection_string",
    "resolve_connection",
]

SERVICES = ("blob", "queue", "table")

_EMULATOR_ACCOUNT = "devstoreaccount1"
_EMULATOR_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_EMULATOR_PORTS = {"blob": 10000, "queue": 10001, "table": 10002}
_SCOPE = "https://storage.azure.com/.default"
_IDENTITY_KEYS = ("credential", "clientId", "tenantId", "clientSecret", "managedIdentityResourceId")
_REFRESH_S = 300


@dataclass(frozen=True, slots=True)
class SharedKey:
    """An account's key; opens everything."""

    account: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sas:
    """A shared access signature, without its question mark."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are in Azure, by the keys of a connection's section; none: whatever the environment offers."""

    credential: str | None = None
    client_id: str | None = None
    tenant_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    resource_id: str | None = None


Credential = SharedKey | Sas | Identity


@dataclass(frozen=True, slots=True)
class Connection:
    """A storage account.

    Attributes:
        name: the app setting it was found under; empty: none.
        urls: endpoint by service, `blob`, `queue` and `table`, without a slash at the end.
    """

    name: str
    urls: Mapping[str, str]
    credential: Credential

    @property
    def location(self) -> str:
        """Where it is, for people: the queue service's host, and the account where the path names it."""
        parts = urlsplit(self.urls["queue"])
        return f"{parts.netloc}{parts.path}"


def resolve_connection(name: str, setting: Callable[[str], str | None]) -> Connection:
    """The connection that the settings hold under a name; empty means `Storage`.

    Raises:
        ConfigurationError: there is none, or it is not complete; the text names the setting, never its value.
    """
    name = name.strip() or "Storage"
    prefixed = name if name.lower().startswith("azurewebjobs") else f"AzureWebJobs{name}"
    for section in dict.fromkeys((f"ConnectionStrings:{prefixed}", prefixed, f"ConnectionStrings:{name}", name)):
        text = setting(section)
        if text and text.strip():
            try:
                return parse_connection_string(text, name=section)
            except ValueError as error:
                raise ConfigurationError(f"The app setting {section!r} is no storage connection: {error}") from None
        found = _of_section(section, setting)
        if found is not None:
            return found
    raise ConfigurationError(
        f"Storage account connection string '{prefixed}' does not exist. Make sure that it is a defined App Setting."
    )


def parse_connection_string(text: str, *, name: str = "") -> Connection:
    """The account that a connection string means.

    Raises:
        ValueError: it means none; the text says why and holds no part of the string but names.
    """
    parts: dict[str, str] = {}
    for part in text.strip().strip(";").split(";"):
        key, equals, value = part.strip().partition("=")
        if not equals or not key:
            raise ValueError("it must consist of Name=Value parts with ';' between them.")
        parts[key.strip().lower()] = value.strip()
    if parts.get("usedevelopmentstorage", "").lower() == "true":
        return _emulator(name, parts.get("developmentstorageproxyuri", "http://127.0.0.1"))
    account = parts.get("accountname", "")
    credential = _credential(parts, account)
    suffix = parts.get("endpointsuffix", "core.windows.net").strip(".")
    scheme = parts.get("defaultendpointsprotocol", "https").lower()
    if scheme not in {"http", "https"}:
        raise ValueError(f"DefaultEndpointsProtocol is {scheme!r}; it must be http or https.")
    urls: dict[str, str] = {}
    for service in SERVICES:
        url = parts.get(f"{service}endpoint") or (f"{scheme}://{account}.{service}.{suffix}" if account else "")
        if not url:
            raise ValueError(f"it lacks AccountName, or {service.capitalize()}Endpoint.")
        urls[service] = _endpoint(url, f"{service.capitalize()}Endpoint")
    return Connection(name, urls, credential)


def _credential(parts: Mapping[str, str], account: str) -> Credential:
    key = parts.get("accountkey")
    sas = parts.get("sharedaccesssignature")
    if key:
        if not account:
            raise ValueError("it has AccountKey, but lacks AccountName.")
        try:
            return SharedKey(account, base64.b64decode(key, validate=True))
        except binascii.Error:
            raise ValueError("its AccountKey is not Base64; copy the whole key.") from None
    if sas:
        return Sas(sas.removeprefix("?"))
    raise ValueError("it lacks AccountKey or SharedAccessSignature.")


def _emulator(name: str, proxy: str) -> Connection:
    host = _endpoint(proxy, "DevelopmentStorageProxyUri")
    urls = {service: f"{host}:{port}/{_EMULATOR_ACCOUNT}" for service, port in _EMULATOR_PORTS.items()}
    return Connection(name, urls, SharedKey(_EMULATOR_ACCOUNT, base64.b64decode(_EMULATOR_KEY)))


def _of_section(section: str, setting: Callable[[str], str | None]) -> Connection | None:
    def sub(key: str) -> str | None:
        value = setting(f"{section}__{key}") or setting(f"{section}:{key}")
        return value.strip() if value and value.strip() else None

    account, service_url = sub("accountName"), sub("serviceUri")
    own = {service: sub(f"{service}ServiceUri") for service in SERVICES}
    keys = {key: sub(key) for key in _IDENTITY_KEYS}
    if account is None and service_url is None and not any(own.values()):
        if any(keys.values()):
            raise ConfigurationError(f"The connection {section!r} names no account; set {section}__accountName.")
        return None
    urls: dict[str, str] = {}
    for service in SERVICES:
        url, origin = own[service], f"{section}__{service}ServiceUri"
        if url is None and account is not None:
            url = f"https://{account}.{service}.core.windows.net"
        if url is None and service_url is not None:
            url, origin = _sibling(service_url, service), f"{section}__serviceUri"
        if url is None:
            raise ConfigurationError(
                f"The connection {section!r} does not say where its {service}s are; "
                f"set {section}__accountName or {section}__{service}ServiceUri."
            )
        try:
            urls[service] = _endpoint(url, origin)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        if not urls[service].startswith("https://"):
            raise ConfigurationError(f"{origin} must be an https address: tokens are not sent without encryption.")
    kind = keys["credential"]
    if kind is not None and kind.lower() not in {"managedidentity", "managedidentityasfederatedidentity"}:
        raise ConfigurationError(f"{section}__credential is {kind!r}; the only kind is managedidentity.")
    if keys["clientSecret"] and not (keys["clientId"] and keys["tenantId"]):
        raise ConfigurationError(
            f"{section}__clientSecret needs {section}__clientId and {section}__tenantId beside it."
        )
    identity = Identity(
        credential=kind,
        client_id=keys["clientId"],
        tenant_id=keys["tenantId"],
        client_secret=keys["clientSecret"],
        resource_id=keys["managedIdentityResourceId"],
    )
    return Connection(section, urls, identity)


def _sibling(url: str, service: str) -> str | None:
    """`https://x.blob.core.windows.net` tells where queues and tables are, too; other addresses tell of one only."""
    for known in SERVICES:
        if f".{known}." in url:
            return url.replace(f".{known}.", f".{service}.", 1)
    return None


def _endpoint(url: str, origin: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError(f"{origin} is not an address such as https://account.queue.core.windows.net.")
    return url.rstrip("/")


class TokenSource:
    """Access tokens of an identity, kept until shortly before they end. May be asked from any event loop.

    azure-identity is asked on a thread, since its asynchronous credentials belong to one loop.
    """

    def __init__(self, identity: Identity, environment: Environment, credential: Any = None) -> None:
        self._identity = identity
        self._environment = environment
        self._credential = credential
        self._token = ""
        self._ends_at = 0.0

    async def token(self) -> tuple[str, int]:
        """A token and when it ends, in seconds since 1970.

        Raises:
            AccessDeniedError: the identity gets none.
            ConfigurationError: azure-identity is not installed.
        """
        left = self._ends_at - self._environment.clock.now().timestamp()
        if left < _REFRESH_S:
            try:
                self._token, self._ends_at = await self._environment.threads.run(self._fetch)
            except StoreError:
                if left <= 0:
                    raise
        return self._token, int(self._ends_at)

    def _fetch(self) -> tuple[str, float]:
        try:
            from azure.core.exceptions import AzureError, ClientAuthenticationError
        except ImportError:
            raise _not_installed() from None
        if self._credential is None:
            self._credential = _make_credential(self._identity)
        try:
            found = self._credential.get_token(_SCOPE)
        except ClientAuthenticationError:
            raise AccessDeniedError(
                "Azure gave no token for storage; check the identity's settings, and its roles on the account.",
                status=401,
            ) from None
        except AzureError as error:
            raise StoreUnavailableError(
                f"Azure's token service could not be reached ({type(error).__name__})."
            ) from None
        return found.token, float(found.expires_on)


def _make_credential(identity: Identity) -> Any:
    try:
        from azure import identity as azure_identity
    except ImportError:
        raise _not_installed() from None
    if identity.client_secret and identity.client_id and identity.tenant_id:
        return azure_identity.ClientSecretCredential(identity.tenant_id, identity.client_id, identity.client_secret)
    if identity.resource_id:
        return azure_identity.ManagedIdentityCredential(identity_config={"resource_id": identity.resource_id})
    if identity.credential is not None:
        return azure_identity.ManagedIdentityCredential(client_id=identity.client_id)
    if identity.client_id:
        return azure_identity.DefaultAzureCredential(
            managed_identity_client_id=identity.client_id, workload_identity_client_id=identity.client_id
        )
    return azure_identity.DefaultAzureCredential()


def _not_installed() -> ConfigurationError:
    return ConfigurationError(
        "An identity-based connection needs azure-identity; install durable-host[azure], or use a connection string."
    )
