"""Signatures of requests with an account's key, by version 2009-09-19 of the scheme and later.

The string that is signed names the verb, some headers and the resource: account, path as sent, and the query's decoded
values. Tables sign less than queues and blobs do.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from functools import lru_cache

from .credentials import SharedKey

__all__ = ["sign_storage", "sign_table"]


def sign_storage(
    key: SharedKey, method: str, path: str, query: Sequence[tuple[str, str]], headers: Mapping[str, str], size: int
) -> str:
    """The `Authorization` of a request to queues or blobs.

    Args:
        path: of the URL, encoded as sent.
        query: names in lower case and decoded values.
        headers: names in lower case; `x-ms-date` among them.
        size: of the body in bytes.
    """
    get = headers.get
    extra = "\n".join(f"{name}:{headers[name]}" for name in sorted(headers) if name.startswith("x-ms-"))
    resource = "".join(f"\n{name}:{value}" for name, value in sorted(query))
    length = str(size) if size else ""
    text = (
        f"{method}\n\n\n{length}\n\n{get('content-type', '')}\n\n\n{get('if-match', '')}\n{get('if-none-match', '')}"
        f"\n\n\n{extra}\n/{key.account}{path}{resource}"
    )
    return _sign(key, text)


def sign_table(key: SharedKey, method: str, path: str, headers: Mapping[str, str]) -> str:
    """The `Authorization` of a request to tables; of the query only `comp` counts, which is not used here."""
    text = f"{method}\n\n{headers.get('content-type', '')}\n{headers['x-ms-date']}\n/{key.account}{path}"
    return _sign(key, text)


def _sign(key: SharedKey, text: str) -> str:
    keyed = _keyed(key.key).copy()  # a third of what a new one costs
    keyed.update(text.encode())
    return f"SharedKey {key.account}:{base64.b64encode(keyed.digest()).decode()}"


@lru_cache(maxsize=8)
def _keyed(key: bytes) -> hmac.HMAC:
    return hmac.new(key, digestmod=hashlib.sha256)
