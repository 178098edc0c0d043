"""Columns of a table row and their JSON: OData with minimal metadata.

A type that JSON does not have stands beside the value, in `column@odata.type`. Int32, Boolean and String need none, a
Double gets one, since some look like whole numbers and some are none.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from .ports import EdmDateTime, EdmGuid, EdmInt64, RequestRefusedError, Row, Value, Values

__all__ = ["decode_row", "decode_rows", "encode_row"]

_TYPE = "@odata.type"
_ETAG = "odata.etag"
_INT32 = 2**31
_SEPARATORS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(dict[str, Any])


def encode_row(values: Values) -> bytes:
    """The JSON of a row, without line breaks of any alphabet: Azurite cuts the rows of a batch at them."""
    columns: dict[str, str | int | float | bool] = {}
    for name, value in values.items():
        kind = type(value)
        if kind is str or kind is bool:
            columns[name] = value  # type: ignore[assignment]  # one of these two
        elif kind is int:
            if not -_INT32 <= value < _INT32:  # type: ignore[operator]  # an int
                raise RequestRefusedError(
                    f"the column {name!r} is {value!r}, more than Edm.Int32 holds", status=400, code="InvalidInput"
                )
            columns[name] = value  # type: ignore[assignment]  # an int
        else:
            edm, columns[name] = _typed(value)
            columns[name + _TYPE] = edm
    data = _encoder.encode(columns)
    for raw, escaped in _SEPARATORS:
        if raw in data:
            data = data.replace(raw, escaped)
    return data


def _typed(value: Value) -> tuple[str, str | float]:
    if isinstance(value, EdmDateTime):
        return "Edm.DateTime", str(value)
    if isinstance(value, EdmInt64):
        return "Edm.Int64", str(int(value))
    if isinstance(value, EdmGuid):
        return "Edm.Guid", str(value)
    if isinstance(value, bytes):
        return "Edm.Binary", base64.b64encode(value).decode()
    if isinstance(value, float):
        if math.isfinite(value):
            return "Edm.Double", float(value)
        return "Edm.Double", "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    raise TypeError(f"a column cannot hold {type(value).__name__}")


def decode_row(data: bytes, etag: str | None = None) -> Row:
    """The row of an answer; its ETag from the header, else from the body."""
    return _row(_decoder.decode(data), etag)


def decode_rows(data: bytes) -> list[Row]:
    """The rows of a query's answer."""
    return [_row(columns) for columns in _decoder.decode(data)["value"]]


def _row(columns: Mapping[str, Any], etag: str | None = None) -> Row:
    values: dict[str, Value] = {}
    for name, value in columns.items():
        if value is None or "odata." in name:
            continue
        edm = columns.get(name + _TYPE)
        if edm is None:
            values[name] = EdmDateTime(value) if name == "Timestamp" else value
        else:
            values[name] = _read(edm, value)
    return Row(values, etag or columns.get(_ETAG, ""))


def _read(edm: str, value: Any) -> Value:
    match edm:
        case "Edm.DateTime":
            return EdmDateTime(value)
        case "Edm.Int64":
            return EdmInt64(value)
        case "Edm.Guid":
            return EdmGuid(value)
        case "Edm.Binary":
            return base64.b64decode(value)
        case "Edm.Double":
            return float(value)
        case "Edm.Int32":
            return int(value)
        case "Edm.Boolean":
            return value if isinstance(value, bool) else str(value).lower() == "true"
        case _:
            return str(value)
