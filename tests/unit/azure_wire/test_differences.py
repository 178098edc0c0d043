"""The differ of the golden tests sees what it has to see."""

from __future__ import annotations

import pytest

from durable_host_providers.azure_storage.ports import EdmDateTime, EdmInt64, Value
from tests.unit.azure_wire.differences import differences

ROW: dict[str, Value] = {
    "Name": "N",
    "EventId": 1,
    "IsPlayed": True,
    "_Timestamp": EdmDateTime("2026-11-21T10:43:02.9586757Z"),
}


@pytest.mark.parametrize(
    "change",
    [
        {"Name": "M"},
        {"EventId": EdmInt64(1)},
        {"EventId": 2},
        {"IsPlayed": 1},
        {"IsPlayed": False},
        {"_Timestamp": "2026-11-21T10:43:02.9586757Z"},
        {"_Timestamp": EdmDateTime("2026-11-21T10:43:02.9586767Z")},
        {"_Timestamp": EdmDateTime("2026-11-21T10:43:02.958675Z")},
        {"More": ""},
    ],
)
def test_a_change_of_presence_type_or_value_is_a_difference(change: dict[str, Value]) -> None:
    (found,) = differences("row", ROW, {**ROW, **change})

    assert found.member in change


def test_a_column_that_is_gone_is_a_difference() -> None:
    assert [str(each) for each in differences("row", ROW, {"Name": "N", "EventId": 1, "IsPlayed": True})] == [
        "row: _Timestamp is missing"
    ]


def test_the_seventh_digit_is_none() -> None:
    assert list(differences("row", ROW, {**ROW, "_Timestamp": EdmDateTime("2026-11-21T10:43:02.9586750Z")})) == []
