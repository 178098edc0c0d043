"""Who may pass without a key.

A host that is bound to loopback demands no keys, as with Core Tools, unless asked to (functions-host.md 3.2). The bound
address decides, never the peer's: behind a proxy every peer is local.

Two strangers still reach a loopback port: a web page that resolved its own name to 127.0.0.1 (DNS rebinding), and a
page that posts across sites. A browser names both: the first in `Host`, the second in `Origin`. So a request is spared
the keys only if it names a loopback host and no other site's origin. A proxy on the same machine that passes the
outside name on is asked for keys for the same reason. Functions of level anonymous stay open to all of them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

__all__ = ["is_loopback", "names_loopback"]


def is_loopback(host: str) -> bool:
    """Whether a host name or address, without port, is this machine's loopback."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback


def names_loopback(headers: Mapping[str, str]) -> bool:
    """Whether `Host`, and `Origin` if there is one, name this machine; without `Host` it comes from no browser."""
    host = headers.get("host")
    if host is not None and host not in _KNOWN and not _authority(host):
        return False
    origin = headers.get("origin")
    return origin is None or _authority(urlsplit(origin).netloc if "//" in origin else origin)


_KNOWN: set[str] = set()
"""Host headers found to be loopback; what clients send hardly varies, and parsing costs more than the look-up."""


def _authority(text: str) -> bool:
    try:
        name = urlsplit(f"//{text}").hostname
    except ValueError:
        return False
    if name is None or "@" in text or not is_loopback(name):
        return False
    if len(_KNOWN) < 64:
        _KNOWN.add(text)
    return True
