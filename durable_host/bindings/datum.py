"""Values on their way to a parameter: what a binding holds (text, bytes, a JSON value) as what the annotation asks for.

For bindings whose content has no type of its own; HTTP requests, orchestration contexts and clients do not come here.
"""

from __future__ import annotations

import io
import json
from typing import IO, Any, BinaryIO, get_origin

from durable_host.model.payloads import decode_payload, encode_payload

__all__ = ["as_bytes", "as_text", "json_properties", "to_parameter"]

_STREAMS = (IO, BinaryIO, io.BytesIO, io.IOBase, io.BufferedIOBase, io.RawIOBase)


def as_text(value: object) -> str:
    """A value as text: texts as they are, bytes decoded as UTF-8, anything else as JSON.

    Raises:
        PayloadError: it is no JSON value.
        UnicodeDecodeError: the bytes are not UTF-8.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8")
    return encode_payload(value)


def as_bytes(value: object) -> bytes:
    """A value as bytes: bytes as they are, anything else as UTF-8 text."""
    return bytes(value) if isinstance(value, (bytes, bytearray)) else as_text(value).encode("utf-8")


def to_parameter(value: object, annotation: Any = None) -> object:
    """What a function's parameter receives for a value.

    Args:
        value: text, bytes or a JSON value; None stays None.
        annotation: `str`, `bytes`, a binary stream (`io.BytesIO`, `BinaryIO`), or any type that JSON is decoded as.
            Without one the value is passed as it is.

    Raises:
        PayloadError: the JSON does not fit the annotation.
    """
    if value is None or annotation in (None, Any, object):
        return value
    if annotation is str:
        return as_text(value)
    if annotation is bytes:
        return as_bytes(value)
    if annotation in _STREAMS or get_origin(annotation) is IO:
        return io.BytesIO(as_bytes(value))
    return decode_payload(as_text(value), annotation)


def json_properties(text: str | bytes | None) -> dict[str, object]:
    """Binding data from a payload: top-level members of a JSON object, nulls and arrays left out, scalars as texts.

    Anything that is no JSON object gives nothing; a payload is allowed to be anything.
    """
    if not text:
        return {}
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        if not (decoded.lstrip().startswith("{") and decoded.rstrip().endswith("}")):
            return {}
        # Numbers keep the form in which they were written.
        members = json.loads(decoded, parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        return {}
    return {
        name: ("true" if value else "false") if isinstance(value, bool) else value
        for name, value in members.items()
        if value is not None and not isinstance(value, list)
    }
