"""Signed requests over pooled connections, one pool per event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from durable_host.environment import Environment

from .credentials import Connection, Identity, Sas, SharedKey, TokenSource
from .rest_answers import error_of, retry_after_s, unreachable
from .rest_loops import PerLoop
from .rest_patience import NotSentError, Patience
from .rest_signing import sign_storage, sign_table

__all__ = ["VERSIONS", "Answer", "HttpClient", "code_and_detail"]

logger = logging.getLogger(__name__)

VERSIONS: Mapping[str, str] = {"blob": "2021-12-02", "queue": "2021-12-02", "table": "2020-12-06"}
"""Versions of the protocol; Azurite and every account know them."""

_AT_ONCE = 100
"""Requests of one loop. To wait for a turn is cheaper here than in aiohttp's pool, which shuffles those who wait."""

_AT_ONCE_EMULATOR = 32  # Azurite has one thread, and more connections only cost it more
_KEEP_ALIVE_S = 30.0
_KEEP_ALIVE_EMULATOR_S = 4.0  # Azurite closes idle connections after 5 s
_TIMEOUT = aiohttp.ClientTimeout(total=45, sock_connect=5)
_SKEW = timedelta(minutes=5)  # the service refuses signatures that are 15 minutes off
_NO_AUTO_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class Answer:
    """An answer that was asked for; `headers` compare without case."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class HttpClient:
    """Requests to the services of one account. Attributes: `patience` counts and repeats them."""

    def __init__(
        self, connection: Connection, environment: Environment, patience: Patience, tokens: TokenSource | None = None
    ) -> None:
        self.patience = patience
        self._clock = environment.clock
        self._credential = connection.credential
        self._tokens = tokens
        if tokens is None and isinstance(connection.credential, Identity):
            self._tokens = TokenSource(connection.credential, environment)
        self._origins: dict[str, str] = {}
        self._paths: dict[str, str] = {}
        for service, url in connection.urls.items():
            parts = urlsplit(url)
            self._origins[service] = f"{parts.scheme}://{parts.netloc}"
            self._paths[service] = quote(parts.path, safe="/%")
        self._emulator = connection.urls["queue"].startswith("http://")
        self._sessions = PerLoop(self._open, lambda pool: pool.session.close())
        self._offset = timedelta(0)
        self._date = (0, "")

    async def __aenter__(self) -> Self:
        await self._sessions.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._sessions.__aexit__(exc_type, exc, tb)

    def url(self, service: str, path: str) -> str:
        """The address of something, as batches name it; `path` is encoded and begins with a slash."""
        return f"{self._origins[service]}{self._paths[service]}{path}"

    async def send(
        self,
        kind: str,
        method: str,
        path: str,
        *,
        target: str,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        safe: bool | None = None,
        check: Callable[[Answer], None] | None = None,
        may_be_missing: bool = False,
    ) -> Answer:
        """Make a request, again where that helps; any answer below 300 is returned.

        Args:
            kind: see `REQUEST_KINDS`; names the service, too.
            path: encoded, begins with a slash; the endpoint's own path is put in front.
            target: what it is about, for texts; without secrets.
            query: names in lower case, except for tables, and values, not encoded.
            headers: names in lower case.
            safe: see `Patience.run`.
            check: looks into an answer that says it is well; raises the port's errors.
            may_be_missing: an answer of 404 is returned, too.

        Raises:
            StoreError: the port's errors, see `error_of`.
        """
        own = dict(headers) if headers is not None else {}

        async def attempt() -> Answer:
            answer = await self._attempt(kind, method, path, target, query, own, body, may_be_missing=may_be_missing)
            if check is not None:
                check(answer)
            return answer

        return await self.patience.run(kind, attempt, safe=safe)

    async def _attempt(
        self,
        kind: str,
        method: str,
        path: str,
        target: str,
        query: Sequence[tuple[str, str]],
        headers: dict[str, str],
        body: bytes,
        *,
        may_be_missing: bool,
        corrected: bool = False,
    ) -> Answer:
        service = kind.partition(".")[0]
        path_sent = self._paths[service] + path
        parts = [f"{name}={quote(value, safe=',')}" for name, value in query]
        headers["x-ms-date"] = self._date_now()
        headers["x-ms-version"] = VERSIONS[service]
        credential = self._credential
        if isinstance(credential, Sas):
            parts.append(credential.token)
        elif isinstance(credential, SharedKey):
            headers.pop("authorization", None)
            headers["authorization"] = (
                sign_table(credential, method, path_sent, headers)
                if service == "table"
                else sign_storage(credential, method, path_sent, query, headers, len(body))
            )
        elif self._tokens is not None:
            headers["authorization"] = f"Bearer {(await self._tokens.token())[0]}"
        question = f"?{'&'.join(parts)}" if parts else ""
        url = URL(f"{self._origins[service]}{path_sent}{question}", encoded=True)
        answer = await self._exchange(kind, target, method, url, headers, body)
        if answer.status < 300 or (may_be_missing and answer.status == 404):
            return answer
        code = answer.headers.get("x-ms-error-code", "")
        if answer.status == 403 and not corrected and self._correct_clock(answer):
            return await self._attempt(
                kind, method, path, target, query, headers, body, may_be_missing=may_be_missing, corrected=True
            )
        code, detail = code_and_detail(code, answer.body)
        retry_after = retry_after_s(answer.headers, self._clock.now().timestamp())
        raise error_of(kind, target, answer.status, code, detail, retry_after=retry_after)

    async def _exchange(
        self, kind: str, target: str, method: str, url: URL, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        location = f"{url.host}:{url.port}"
        try:
            own = self._sessions.own
            if own is not None:
                return await own.roundtrip(method, url, headers, body)
            async with self._sessions.use() as pool:
                return await pool.roundtrip(method, url, headers, body)
        except aiohttp.ClientConnectorError as error:
            raise NotSentError(str(unreachable(kind, target, location, error.os_error))) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise unreachable(kind, target, location, error) from None

    def _date_now(self) -> str:
        """The time as it is signed, made once a second."""
        now = self._clock.now() + self._offset
        second = int(now.timestamp())
        if self._date[0] != second:
            self._date = (second, format_datetime(now, usegmt=True))
        return self._date[1]

    def _open(self) -> _Pool:
        keep = _KEEP_ALIVE_EMULATOR_S if self._emulator else _KEEP_ALIVE_S
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=keep),
            timeout=_TIMEOUT,
            skip_auto_headers=_NO_AUTO_HEADERS,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        # It would send a PUT or DELETE again when a kept connection breaks, which is not for it to decide: the second
        # of two conditional writes is refused, and what was done would look as if it had not been.
        session._retry_connection = False  # pyright: ignore[reportPrivateUsage]
        return _Pool(session, _AT_ONCE_EMULATOR if self._emulator else _AT_ONCE)

    def _correct_clock(self, answer: Answer) -> bool:
        """After a refusal: whether our clock is off, so that a signature with the service's time may be accepted."""
        try:
            theirs = parsedate_to_datetime(answer.headers.get("Date", ""))
        except ValueError:
            return False
        offset = theirs - self._clock.now()
        if abs(offset - self._offset) < _SKEW:
            return False
        self._offset = offset
        logger.warning(
            "this machine's clock differs from Azure Storage's; set it right",
            extra={"event": "clock_skewed", "seconds": round(offset.total_seconds())},
        )
        return True


class _Pool:
    """The connections of one loop."""

    __slots__ = ("_turns", "session")

    def __init__(self, session: aiohttp.ClientSession, at_once: int) -> None:
        self.session = session
        self._turns = asyncio.Semaphore(at_once)

    async def roundtrip(self, method: str, url: URL, headers: Mapping[str, str], body: bytes) -> Answer:
        async with (
            self._turns,
            self.session.request(method, url, headers=headers, data=body or None, allow_redirects=False) as response,
        ):
            return Answer(response.status, response.headers, await response.read())


def code_and_detail(code: str, body: bytes) -> tuple[str, str]:
    """The error code and the words of an answer's body, XML or JSON; `code` is the header's, if there was one."""
    text = body.decode("utf-8", "replace")
    found, _, after = text.partition("<Code>")
    if after:
        code = code or after.partition("</Code>")[0]
        return code, text.partition("<Message>")[2].partition("</Message>")[0]
    if '"code"' in text:
        code = code or text.partition('"code"')[2].partition('"')[2].partition('"')[0]
        return code, text.partition('"value"')[2].partition('"')[2].partition('"')[0].replace("\\n", "\n")
    return code, found if len(found) < 200 and "<" not in found else ""
