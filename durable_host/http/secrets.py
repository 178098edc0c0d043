"""Values of keys: 40 bytes as URL-safe Base64, with a marker and a checksum that scanners for leaked secrets know.

33 random bytes, the three bytes that read `AzFu` in Base64, and a Marvin32 checksum of what precedes it, seeded by the
kind of key. Clients treat the value as opaque.

Source: functions-host.md 3.3; Azure/azure-functions-host SecretGenerator.cs; microsoft/security-utilities.
"""

from __future__ import annotations

from base64 import b64decode, urlsafe_b64encode
from enum import Enum

from durable_host.environment import IdSource

__all__ = ["KeyKind", "generate_secret", "is_generated"]

_MARKER = b64decode("AzFu")
_RANDOM = 33
_LENGTH = 56
_MASK = 0xFFFFFFFF


class KeyKind(Enum):
    """What a key opens; values seed the checksum."""

    MASTER = 0x4D61737465723030
    SYSTEM = 0x53797374656D3030
    FUNCTION = 0x46756E6374693030


def generate_secret(ids: IdSource, kind: KeyKind) -> str:
    """A new value of 56 characters."""
    data = ids.token(_RANDOM) + _MARKER
    return urlsafe_b64encode(data + _marvin32(data, kind.value).to_bytes(4, "little")).decode()


def is_generated(value: str, kind: KeyKind) -> bool:
    """Whether a value has marker and checksum of this kind."""
    try:
        data = b64decode(value, altchars=b"-_", validate=True)
    except ValueError:
        return False
    body, checksum = data[:-4], data[-4:]
    return (
        len(value) == _LENGTH
        and body.endswith(_MARKER)
        and checksum == _marvin32(body, kind.value).to_bytes(4, "little")
    )


def _marvin32(data: bytes, seed: int) -> int:
    low, high = seed & _MASK, seed >> 32
    whole = len(data) // 4 * 4
    words = [int.from_bytes(data[at : at + 4], "little") for at in range(0, whole, 4)]
    # The rest of the data and a final 0x80, then one empty round.
    words += [int.from_bytes(data[whole:] + b"\x80", "little"), 0]
    for word in words:
        low = (low + word) & _MASK
        high ^= low
        low = (_rotated(low, 20) + high) & _MASK
        high = _rotated(high, 9) ^ low
        low = (_rotated(low, 27) + high) & _MASK
        high = _rotated(high, 19)
    return low ^ high


def _rotated(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _MASK
