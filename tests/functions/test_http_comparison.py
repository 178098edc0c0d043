"""The judge is only as good as its eye: what it must notice, and what it must let pass."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.functions.comparison import Ids, Recorded, differences

JSON = {"Content-Type": "application/json; charset=utf-8"}


def _differences(theirs: str, ours: str, headers: Mapping[str, str] = JSON, status: int = 200) -> list[str]:
    recorded = Recorded(0, "g", "n", "GET", "/", {}, None, 200, {**JSON, "Date": "then"}, theirs)
    return differences(recorded, status, headers, ours.encode(), Ids())


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ('{"a":1,"b":2}', '{"b":2,"a":1}'),
        ('{"a":null}', "{}"),
        ('{"n":1.0}', '{"n":1}'),
        ('{"n":12345678901234567890}', '{"n":12345678901234567000}'),
        ('{"a":true}', '{"a":1}'),
        ('{"output":"x"}', '{"output":"y"}'),
        ("[1,2]", "[1]"),
        ("[]", "{}"),
        ("null", ""),
        ('{"createdTime":"2025-01-01T00:00:00Z"}', '{"createdTime":"2025-01-01T00:00:00.5Z"}'),
        ('{"Timestamp":"2025-01-01T00:00:00.5Z"}', '{"Timestamp":"2025-01-01T00:00:00.50Z"}'),
        ('{"StackTrace":"at"}', '{"StackTrace":"at"}'),
        ('{"Details":"text"}', '{"Details":null}'),
        ('[{"instanceId":"a"},{"instanceId":"b"}]', '[{"instanceId":"b"},{"instanceId":"a"}]'),
        ('[{"instanceId":"a"},{"instanceId":"b"}]', '[{"instanceId":"a"}]'),
    ],
)
def test_a_difference_is_seen(theirs: str, ours: str) -> None:
    assert _differences(theirs, ours) != []


def test_another_status_or_header_is_seen() -> None:
    assert _differences("1", "1", status=202) != []
    assert _differences("1", "1", headers={}) != []
    assert _differences("1", "1", headers={**JSON, "Location": "x"}) != []


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ('{"createdTime":"2025-01-01T00:00:00Z"}', '{"createdTime":"2030-01-01T00:00:00Z"}'),
        ('{"StackTrace":"at"}', '{"StackTrace":""}'),
        (f'{{"id":"{"0" * 32}"}}', f'{{"id":"{"f" * 32}"}}'),
    ],
)
def test_what_varies_from_run_to_run_passes(theirs: str, ours: str) -> None:
    assert _differences(theirs, ours) == []


def test_one_generated_id_cannot_stand_for_two() -> None:
    one, two, ours = "0" * 32, "1" * 32, "f" * 32

    assert _differences(f'["{one}","{two}"]', f'["{ours}","{ours}"]') != []
    assert _differences(f'["{one}","{one}"]', f'["{ours}","{two}"]') != []
