"""Keys, queues, blob names and hub names, by the vectors of the reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from durable_host.storage.contract import StorageOptions
from durable_host_providers.azure_storage.settings import read_settings
from durable_host_providers.azure_storage.wire.keys import (
    SENTINEL,
    control_queue_of,
    escape_key,
    fnv1a,
    history_blob_name,
    instance_of_key,
    is_entity,
    message_blob_name,
    payload_prefixes,
    row_key,
)
from durable_host_providers.azure_storage.wire.names import hub_name_problem


@pytest.mark.parametrize(
    ("instance_id", "key"),
    [
        ("a/b\\c#d?e^f", "a^0b^1c^2d^3e^^f"),
        ("\t", "^É"),
        ("\x00", "^À"),
        ("\x7f", "^Ŀ"),
        ("\x9f", "^ş"),
        ("@counter@k", "@counter@k"),
        ("0b9c:0", "0b9c:0"),
        ("odd id ^ % äß 日本", "odd id ^^ % äß 日本"),
        ("", ""),
    ],
)
def test_an_id_is_escaped_as_the_reference_does_it(instance_id: str, key: str) -> None:
    assert escape_key(instance_id) == key
    assert instance_of_key(key) == instance_id


@pytest.mark.parametrize(("key", "instance_id"), [("^A", "A"), ("^", "^"), ("a^", "a^"), ("^\n", "\n")])
def test_a_key_that_nobody_escaped_is_still_read(key: str, instance_id: str) -> None:
    assert instance_of_key(key) == instance_id


def test_row_keys_sort_by_index_and_before_the_sentinel() -> None:
    keys = [row_key(index) for index in (0, 9, 10, 255, 2**40)]

    assert keys[:3] == ["0000000000000000", "0000000000000009", "000000000000000A"]
    assert sorted([*keys, SENTINEL]) == [*keys, SENTINEL]


@pytest.mark.parametrize(
    ("instance_id", "hashed", "queues"),
    [
        ("", 0x811C9DC5, (1, 1, 1, 5, 5)),
        ("a", 0xE40C292C, (0, 1, 0, 4, 12)),
        ("abc", 0x1A47E90B, (1, 2, 3, 3, 11)),
        ("instance1", 0xC8489B99, (1, 1, 1, 1, 9)),
        ("order-1", 0x2B7FCD6D, (1, 1, 1, 5, 13)),
        ("order-10", 0xD7304967, (1, 1, 3, 7, 7)),
        ("@counter@mykey", 0xCC6A5E00, (0, 2, 0, 0, 0)),
        ("@Counter@mykey", 0xD26B0260, (0, 1, 0, 0, 0)),
        ("7f3a1c2e4b5d4e6f8a9b0c1d2e3f4a5b:0", 0x2A7EA507, (1, 1, 3, 7, 7)),
        ("héllo", 0x4AA48540, (0, 0, 0, 0, 0)),
        ("日本語", 0x805F5CE7, (1, 0, 3, 7, 7)),
        ("naïve/слово", 0x60CE4885, (1, 0, 1, 5, 5)),
        ("Hello World", 0xB3902527, (1, 0, 3, 7, 7)),
        ("start-and-event-queued", 0x2F9E972C, (0, 1, 0, 4, 12)),
    ],
)
def test_an_id_has_the_control_queue_of_the_reference(instance_id: str, hashed: int, queues: tuple[int, ...]) -> None:
    assert fnv1a(instance_id) == hashed
    assert tuple(control_queue_of(instance_id, count) for count in (2, 3, 4, 8, 16)) == queues


def test_message_blobs_lie_below_the_raw_id_and_history_blobs_below_the_escaped_one() -> None:
    assert message_blob_name("a/b", "0" * 32, "TimerFired") == f"a/b/message-{'0' * 32}-TimerFired.json.gz"
    assert history_blob_name("a/b", row_key(1), "ExecutionStarted", "51AFE1B9", "Input") == (
        "a^0b/history-0000000000000001-ExecutionStarted-51AFE1B9-Input.json.gz"
    )
    assert history_blob_name("a", "", "Output", "0123ABCD", "Output") == "a/history--Output-0123ABCD-Output.json.gz"
    assert payload_prefixes("a/b") == ("a/b/", "a^0b/")


def test_no_instance_has_the_blobs_of_another_whose_id_it_begins() -> None:
    assert not any("order-10/message-x".startswith(prefix) for prefix in payload_prefixes("order-1"))


def test_entities_are_told_by_their_ids() -> None:
    assert is_entity("@counter@a")
    assert not is_entity("a@b")


@pytest.mark.parametrize("name", ["abc", "TestHubName", "H" * 45, "a1B2"])
def test_names_that_a_hub_may_have(name: str) -> None:
    assert hub_name_problem(name) is None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "0 characters"),
        ("ab", "2 characters"),
        ("a" * 46, "46 characters"),
        ("1abc", "starts with '1'"),
        ("äbc", "starts with 'ä'"),
        ("my-hub", "contains '-'"),
        ("my_hub", "contains '_'"),
        ("hubß", "contains 'ß'"),
        ("hub٣", "contains '٣'"),
    ],
)
def test_names_that_a_hub_may_not_have_are_told_why(name: str, problem: str) -> None:
    assert problem in (hub_name_problem(name) or "")


def test_the_provider_refuses_a_name_that_no_queue_can_have() -> None:
    options = StorageOptions(
        hub="my_hub", settings={"trackingStoreConnectionName": "T", "trackingStoreNamePrefix": "1st"}, folder=Path()
    )

    assert read_settings(options)[1] == [
        "extensions.durableTask.hubName is 'my_hub': it contains '_'; only A-Z, a-z and 0-9 are allowed.",
        "extensions.durableTask.storageProvider.trackingStoreNamePrefix is '1st': it starts with '1'; it must start "
        "with one of A-Z and a-z.",
    ]
