"""User values as JSON texts and back: the only serialisation of inputs, results, event data and custom status.

Encoding is msgspec's, compact and with literal non-ASCII characters. msgspec alone is too generous for values that are
kept for ever: it writes NaN as null and a set as an array, in the order of this process's hashes, so that the same
orchestrator would ask for another input on replay. `encode_payload` therefore walks containers first and refuses what
does not come back as it went. Scalars and flat containers of them pay for one loop.

Decoding follows an annotation. One that msgspec cannot judge (a class of the user's that is neither dataclass nor
Struct, an unresolved forward reference) decodes as plain values, so that a wrong hint never stops a running instance.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any, NoReturn, cast
from uuid import UUID

import msgspec

from durable_host.errors import PayloadError

__all__ = ["decode_payload", "encode_payload"]

_encode = msgspec.json.Encoder().encode
_decode_plain = msgspec.json.Decoder().decode

_SCALARS: frozenset[type] = frozenset(
    {str, int, bool, type(None), datetime, date, time, timedelta, UUID, bytes, bytearray, memoryview, msgspec.Raw}
)
_TEXT_KEYS = (str, int, float, Enum, UUID, datetime, date, time, timedelta, Decimal, bytes)
_SETS = (set, frozenset)
_UNANNOTATED: tuple[object, ...] = (Any, object, None, inspect.Parameter.empty)


class _Refused(Exception):
    """A value that JSON cannot carry; steps of its path are added while the walk unwinds, innermost first."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.steps: list[str] = []
        super().__init__(reason)


def encode_payload(value: object) -> str:
    """The JSON text of a value.

    Carried are None, bool, int, finite float, str, list, tuple, dict, dataclasses, msgspec Structs, attrs classes,
    Enum, datetime, date, time, timedelta, UUID, Decimal and bytes (base64), nested at will.

    Raises:
        PayloadError: NaN, an infinity, a set, a key that is no text, a container that holds itself, or any other type;
            `path` says where, as in `$.orders[3].price`.
    """
    kind = type(value)
    if kind not in _SCALARS:
        try:
            _check(value)
        except _Refused as refused:
            _fail(refused)
        except RecursionError:
            raise PayloadError(
                f"$: {kind.__name__} is nested too deeply for JSON, or contains itself; pass a flat value or an id"
            ) from None
    try:
        return _encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        # What the walk cannot see: lone surrogates, a field that hides behind msgspec's own rules.
        raise PayloadError(f"$: {kind.__name__} cannot be carried as JSON: {error}") from error


def _fail(refused: _Refused) -> NoReturn:
    path = "$" + "".join(reversed(refused.steps))
    raise PayloadError(f"{path}: {refused.reason}", path=path) from None


def _check(value: object) -> None:
    kind = type(value)
    if kind in _SCALARS:
        return
    if kind is dict:
        _check_dict(cast(dict[object, object], value))
    elif kind is list or kind is tuple:
        _check_array(cast("list[object] | tuple[object, ...]", value))
    elif kind is float:
        if not math.isfinite(cast(float, value)):
            raise _Refused(f"{value!r} is not a JSON number; pass None or a text instead")
    else:
        _check_other(value)


def _check_dict(value: dict[object, object]) -> None:
    texts = True
    for key, item in value.items():
        if type(key) is not str:
            texts = False
            _check_key(key)
        if type(item) not in _SCALARS:
            try:
                _check(item)
            except _Refused as refused:
                refused.steps.append(_step(key))
                raise
    if not texts:
        written = {_key_text(key) for key in value}
        if len(written) != len(value):
            raise _Refused("two keys of this dict are written alike in JSON; use texts as keys")


def _check_array(value: list[object] | tuple[object, ...]) -> None:
    for item in value:
        if type(item) not in _SCALARS:
            try:
                _check(item)
            except _Refused as refused:
                # Only now is the position worth counting.
                refused.steps.append(f"[{next(at for at, each in enumerate(value) if each is item)}]")
                raise


def _check_other(value: object) -> None:
    kind = type(value)
    if isinstance(value, Enum):
        _check(value.value)
    elif isinstance(value, Decimal):
        if not value.is_finite():
            raise _Refused(f"{value!r} is not a JSON number; pass None or a text instead")
    elif isinstance(value, dict):
        _check_dict(cast(dict[object, object], value))
    elif isinstance(value, (list, tuple)):
        _check_array(cast("list[object] | tuple[object, ...]", value))
    elif isinstance(value, msgspec.Struct):
        _check_fields(value, value.__struct_fields__)
    elif is_dataclass(value) and not isinstance(value, type):
        _check_fields(value, tuple(field.name for field in dataclass_fields(value)))
    elif hasattr(kind, "__attrs_attrs__"):
        attributes: tuple[Any, ...] = getattr(kind, "__attrs_attrs__")  # noqa: B009 - attrs is no dependency of ours
        _check_fields(value, tuple(str(attribute.name) for attribute in attributes))
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _Refused(f"{value!r} is not a JSON number; pass None or a text instead")
    elif isinstance(value, _SETS):
        raise _Refused(f"a {kind.__name__} has no order and is no JSON value; pass sorted(...) or a list")
    elif not isinstance(value, (str, int, datetime, date, time, timedelta, UUID, bytes, bytearray)):
        raise _Refused(f"{kind.__module__}.{kind.__qualname__} is no JSON value{_advice(value)}")


def _check_fields(value: object, names: tuple[str, ...]) -> None:
    for name in names:
        item = getattr(value, name, msgspec.UNSET)
        if type(item) not in _SCALARS and item is not msgspec.UNSET:
            try:
                _check(item)
            except _Refused as refused:
                refused.steps.append(f".{name}")
                raise


def _check_key(key: object) -> None:
    if isinstance(key, bool) or not isinstance(key, _TEXT_KEYS):
        raise _Refused(f"the key {key!r} of type {type(key).__name__} is no text; JSON objects have texts as keys")
    if isinstance(key, float) and not math.isfinite(key):
        raise _Refused(f"the key {key!r} is not a JSON number; use a text")


def _key_text(key: object) -> str:
    return key if type(key) is str else next(iter(_decode_plain(_encode({key: None}))))


def _step(key: object) -> str:
    text = key if isinstance(key, str) else repr(key)
    return f".{text}" if text.isidentifier() else f"[{text!r}]"


def _advice(value: object) -> str:
    if inspect.isawaitable(value):
        return "; it was not awaited"
    if isinstance(value, Mapping):
        return "; pass dict(value)"
    if inspect.isgenerator(value) or isinstance(value, range):
        return "; pass list(value)"
    if hasattr(type(value), "model_dump"):
        return "; pass value.model_dump(mode='json')"
    if isinstance(value, BaseException):
        return "; pass str(value) or raise it"
    return "; use a dataclass, a msgspec Struct or plain values"


def decode_payload(text: str | None, type: Any = Any) -> Any:
    """The value of a JSON text, shaped by an annotation.

    Args:
        text: None means "nothing" and gives None, whatever the annotation.
        type: an annotation; Any, object, None or one that msgspec cannot judge gives plain Python values.

    Raises:
        PayloadError: the text is not JSON, or its value does not fit the annotation; `path` says where.
    """
    if text is None:
        return None
    try:
        return (_decode_plain if type is Any else _decoder(type))(text)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        path = path.rstrip("`") or "$"
        raise PayloadError(f"{path}: {message}, as {_spelled(type)} wants it", path=path) from error
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise PayloadError(f"$: not a JSON text: {error}") from error


def _spelled(annotation: object) -> str:
    return getattr(annotation, "__name__", None) or str(annotation)


def _decoder(annotation: Any) -> Callable[[str], Any]:
    if annotation in _UNANNOTATED:
        return _decode_plain
    try:
        return _cached_decoder(annotation)
    except TypeError:  # unhashable, for example Annotated[int, []]
        return _new_decoder(annotation)


def _new_decoder(annotation: Any) -> Callable[[str], Any]:
    try:
        # Custom classes pass the constructor of a Decoder and fail on every value, so they are looked for first.
        if _holds_custom(msgspec.inspect.type_info(annotation), set()):
            return _decode_plain
        decode: Callable[[str], Any] = msgspec.json.Decoder(annotation).decode
    except (TypeError, NameError, AttributeError, RuntimeError):
        return _decode_plain
    return decode


_cached_decoder = lru_cache(maxsize=1024)(_new_decoder)


def _holds_custom(info: object, seen: set[int]) -> bool:
    if id(info) in seen:
        return False
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType):
        return True
    if isinstance(info, (list, tuple)):
        return any(_holds_custom(each, seen) for each in cast("list[object]", info))
    if isinstance(info, (msgspec.inspect.Type, msgspec.inspect.Field)):
        return any(_holds_custom(getattr(info, name), seen) for name in info.__struct_fields__)
    return False
