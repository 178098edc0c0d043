"""The memory provider keeps the contract; what follows from its being in memory."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from durable_host.environment import system_environment
from durable_host.errors import StoreMismatchError
from durable_host.storage.contract import StorageOptions
from durable_host_providers.memory import MemoryHub, provider


async def test_a_hub_that_was_not_created_cannot_be_opened() -> None:
    with pytest.raises(StoreMismatchError, match="create"):
        await MemoryHub().open().__aenter__()


async def test_a_named_hub_is_shared_in_the_process_and_an_unnamed_one_is_not() -> None:
    def documents(url: str | None) -> object:
        options = StorageOptions(hub="Hub", settings={}, folder=Path(), url=url, lease=timedelta(seconds=1))
        return provider.open(options, system_environment()).host_state

    assert documents("memory://shared-by-test") is documents("memory://shared-by-test")
    assert documents("memory://") is not documents("memory://")
    assert documents(None) is not documents(None)
