"""The Azurite that a benchmark runs on, a new one for every run: it slows down with everything that it keeps."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Generator
from pathlib import Path

from tests.servers.azurite import Azurite, find_azurite

__all__ = ["fresh_azurite"]


@contextlib.contextmanager
def fresh_azurite() -> Generator[Azurite, None, None]:
    """An empty account, in memory; ends with the block.

    Raises:
        SystemExit: Azurite is not installed; the text says what to do.
    """
    if find_azurite() is None:
        raise SystemExit("the benchmark needs Azurite: run `make servers`")
    with tempfile.TemporaryDirectory() as folder, Azurite(Path(folder)) as server:
        yield server
