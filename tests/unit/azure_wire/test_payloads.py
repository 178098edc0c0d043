"""What moves to a blob, and when a text points to one."""

from __future__ import annotations

import pytest

from durable_host_providers.azure_storage.ports import Value
from durable_host_providers.azure_storage.wire.payloads import (
    MAX_COLUMN_BYTES,
    blob_of_url,
    compress,
    decompress,
    is_large,
    offload,
    offloaded,
)

CONTAINER = "http://127.0.0.1:10000/devstoreaccount1/hub-largemessages"


@pytest.mark.parametrize(
    ("text", "large"),
    [
        ("", False),
        ("x" * (MAX_COLUMN_BYTES // 2), False),
        ("x" * (MAX_COLUMN_BYTES // 2 + 1), True),
        ("\U0001f600" * (MAX_COLUMN_BYTES // 4), False),
        ("\U0001f600" * (MAX_COLUMN_BYTES // 4) + "x", True),
        ("日" * (MAX_COLUMN_BYTES // 2), False),
    ],
)
def test_size_counts_in_utf_16(text: str, large: bool) -> None:
    assert is_large(text) is large


def test_a_row_without_large_columns_stays_the_same_object() -> None:
    row: dict[str, Value] = {"Input": "1", "Name": "n", "EventId": 5}

    assert offload(row, "a", "r", "k", "0123ABCD") == (row, [])
    assert offload(row, "a", "r", "k", "0123ABCD")[0] is row
    assert offloaded(row) == {}


def test_a_large_column_leaves_its_name_behind_and_the_row_of_the_caller_alone() -> None:
    text = "日本" * 20_000
    row: dict[str, Value] = {"Input": text, "Result": "1"}

    moved, (blob,) = offload(row, "a/b", "0000000000000001", "EventRaised", "0123ABCD")

    name = "a^0b/history-0000000000000001-EventRaised-0123ABCD-Input.json.gz"
    assert moved == {"Input": "", "InputBlobName": name, "Result": "1"}
    assert row["Input"] == text
    assert (blob.column, blob.blob_name, decompress(blob.data).decode()) == ("Input", name, text)
    assert offloaded(moved) == {"Input": name}


def test_an_empty_name_says_that_the_text_is_in_its_column() -> None:
    assert offloaded({"Input": "1", "InputBlobName": ""}) == {}


def test_the_same_text_gives_the_same_bytes() -> None:
    assert compress(b"x" * 1000) == compress(b"x" * 1000)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f"{CONTAINER}/large-done/history-1-Input.json.gz", "large-done/history-1-Input.json.gz"),
        (f"{CONTAINER}/%40counter%40k/a%20b.gz", "@counter@k/a b.gz"),
        (f"{CONTAINER}/", None),
        (f"{CONTAINER}", None),
        (f"{CONTAINER}-other/x", None),
        ("http://example.com/x", None),
        (f"{CONTAINER}/is where it lies", None),
        ('"text"', None),
        ("", None),
    ],
)
def test_only_an_address_in_the_hubs_own_container_is_a_reference(text: str, name: str | None) -> None:
    assert blob_of_url(text, CONTAINER) == name
