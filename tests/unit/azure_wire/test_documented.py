"""Every member and column of ours stands in the reference documentation."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from durable_host_providers.azure_storage.wire.envelopes import Envelope
from durable_host_providers.azure_storage.wire.extra import Extra
from durable_host_providers.azure_storage.wire.instance_rows import WITHOUT_PAYLOADS
from tests.unit.azure_wire import test_scenario_messages, test_scenarios
from tests.unit.azure_wire.differences import ALLOWED

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "azure-storage-format.md"


def _names() -> set[str]:
    added = {
        difference.member.removeprefix("TaskMessage.Event.")
        for table in (ALLOWED, test_scenarios.ALLOWED, test_scenario_messages.ALLOWED)
        for difference in table
        if difference.change == "added"
    }
    ours = {field.encode_name for field in msgspec.structs.fields(Envelope)[-4:]}
    extra = {field.encode_name for field in msgspec.structs.fields(Extra)} - {"Tracestate", "Original"}
    quarantine = {name for name in WITHOUT_PAYLOADS if name.startswith("Quarantined")}
    return added | ours | extra | quarantine


@pytest.mark.parametrize("name", sorted(_names()))
def test_what_is_ours_is_documented(name: str) -> None:
    assert re.search(rf"`{re.escape(name)}`", PAGE.read_text(encoding="utf-8"))
