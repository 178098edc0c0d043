from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Generic, NamedTuple, TypeVar
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_host.errors import PayloadError
from durable_host.model.payloads import decode_payload, encode_payload


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@dataclass
class Line:
    article: str
    count: int = 1


@dataclass
class Order:
    id: UUID
    price: Decimal
    placed: datetime
    lines: list[Line] = field(default_factory=list[Line])


class Point(msgspec.Struct):
    x: float
    y: float = 0.0


class Plain:
    def __init__(self) -> None:
        self.x = 1


class Pair(NamedTuple):
    left: int
    right: int


T = TypeVar("T")


class Box(msgspec.Struct, Generic[T]):
    item: T


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (5, "5"),
        (2**70, "1180591620717411303424"),
        (1.5, "1.5"),
        ("日本", '"日本"'),
        ([1, [2, (3,)]], "[1,[2,[3]]]"),
        ({"a": 1, "b": {"c": None}}, '{"a":1,"b":{"c":null}}'),
        ({1: "a", Colour.RED: 2}, '{"1":"a","red":2}'),
        (OrderedDict[str, int](a=1), '{"a":1}'),
        (Pair(1, 2), "[1,2]"),
        (Colour.RED, '"red"'),
        ([Level.HIGH], "[3]"),
        (b"abc", '"YWJj"'),
        (Decimal("1.10"), '"1.10"'),
        (date(2026, 1, 2), '"2026-01-02"'),
        (timedelta(hours=1), '"PT3600S"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Point(1.5), '{"x":1.5,"y":0.0}'),
        ([Line("nut")], '[{"article":"nut","count":1}]'),
    ],
)
def test_a_value_is_written_compactly(value: object, text: str) -> None:
    assert encode_payload(value) == text


@pytest.mark.parametrize(
    ("value", "path", "words"),
    [
        (math.nan, "$", "nan"),
        ({"a": [0, 1, 2, {"b": math.inf}]}, "$.a[3].b", "inf"),
        ({"first name": {1}}, "$['first name']", "set"),
        ([frozenset()], "$[0]", "frozenset"),
        ({"a": {None: 1}}, "$.a", "key None"),
        ({True: 1}, "$", "key True"),
        ({(1, 2): 1}, "$", "key (1, 2)"),
        ({math.nan: 1}, "$", "key nan"),
        ({1: "a", "1": "b"}, "$", "alike"),
        (Line("x", Plain()), "$.count", "Plain"),  # type: ignore[arg-type]
        (Point(math.nan), "$.x", "nan"),
        ([Decimal("NaN")], "$[0]", "NaN"),
        (object(), "$", "builtins.object"),
        (deque([1]), "$", "deque"),
        ({"r": range(3)}, "$.r", "list(value)"),
        ([ValueError("x")], "$[0]", "ValueError"),
        ("\ud800", "$", "surrogates"),
        (Line, "$", "type"),
    ],
)
def test_what_json_cannot_carry_is_refused_with_its_path(value: object, path: str, words: str) -> None:
    with pytest.raises(PayloadError) as caught:
        encode_payload(value)

    assert caught.value.path == path
    assert str(caught.value).startswith(path + ":")
    assert words in str(caught.value)


def test_a_container_that_holds_itself_is_refused() -> None:
    value: list[object] = []
    value.append(value)

    with pytest.raises(PayloadError, match="contains itself"):
        encode_payload(value)


def test_a_coroutine_is_refused_with_the_hint_that_it_was_not_awaited() -> None:
    async def f() -> None: ...

    coroutine = f()
    with pytest.raises(PayloadError, match="not awaited"):
        encode_payload({"x": coroutine})
    coroutine.close()


@pytest.mark.parametrize("annotation", [Any, object, int, Order, None])
def test_nothing_is_none_whatever_the_annotation(annotation: object) -> None:
    assert decode_payload(None, annotation) is None


def test_a_dataclass_comes_back_with_its_rich_fields() -> None:
    order = Order(UUID(int=7), Decimal("9.90"), datetime(2026, 1, 2, 3, tzinfo=UTC), [Line("nut", 4)])

    assert decode_payload(encode_payload(order), Order) == order


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (b"abc", bytes),
        (Colour.RED, Colour),
        (Level.HIGH, Level),
        ((1, "a"), tuple[int, str]),
        ({1: Point(2.0)}, dict[int, Point]),
        (Box(3), Box[int]),
        (None, int | None),
        (timedelta(days=2), timedelta),
        ([1, 2], Annotated[list[int], []]),
    ],
)
def test_annotations_shape_the_value(value: object, annotation: Any) -> None:
    assert decode_payload(encode_payload(value), annotation) == value


@pytest.mark.parametrize("annotation", [Any, object, None, Plain, list[Plain], int | str | Plain, "Missing", T])
def test_annotations_that_cannot_be_judged_give_plain_values(annotation: Any) -> None:
    assert decode_payload('{"x":[1,2.5]}', annotation) == {"x": [1, 2.5]}


def test_a_mismatch_names_path_and_annotation() -> None:
    with pytest.raises(PayloadError, match="Expected `int`, got `str`") as caught:
        decode_payload('{"article":"nut","count":"4"}', Line)

    assert caught.value.path == "$.count"
    assert "Line" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "NaN", "[1,]", "abc", '"\\ud800"'])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(PayloadError, match="not a JSON text"):
        decode_payload(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_plain_values_come_back_as_they_went(value: object) -> None:
    assert decode_payload(encode_payload(value)) == value
