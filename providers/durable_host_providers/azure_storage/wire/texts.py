"""JSON texts as Newtonsoft's serializer writes them: compact, non-ASCII literal but for a few characters."""

from __future__ import annotations

import msgspec

__all__ = ["json_bytes", "json_text"]

_encode = msgspec.json.Encoder().encode

# The serializer escapes the first three. The last two are no characters in XML, in which queue messages travel.
_ESCAPED = {each: f"\\u{ord(each):04x}" for each in "\x85\u2028\u2029\ufffe\uffff"}
_ESCAPED_UTF8 = [(plain.encode(), escape.encode()) for plain, escape in _ESCAPED.items()]


def json_bytes(value: object) -> bytes:
    """The value's JSON as UTF-8."""
    data = _encode(value)
    if not data.isascii():
        # Such a character can only stand inside a string, so the bytes may be replaced without parsing.
        for plain, escape in _ESCAPED_UTF8:
            if plain in data:
                data = data.replace(plain, escape)
    return data


def json_text(value: object) -> str:
    """The value's JSON."""
    return json_bytes(value).decode()
