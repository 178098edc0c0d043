"""The Python in docs/ runs: each page's blocks, one after another, in one module. Where that is an app, it loads."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from durable_host.functions.indexing import load_app
from tests.hosting import ROOT

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [page for page in sorted((ROOT / "docs").rglob("*.md")) if _BLOCK.search(page.read_text(encoding="utf-8"))]


def _code(page: Path) -> str:
    """The page's blocks, each at the line where it stands, so that a traceback points into the page."""
    text = page.read_text(encoding="utf-8")
    lines = [""] * text.count("\n")
    for block in _BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(1))
        for offset, line in enumerate(block[1].splitlines()):
            lines[first + offset] = line
    return "\n".join(lines)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT / "docs")))
def test_code_of_the_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)

    exec(compile(_code(page), page, "exec"), module.__dict__)

    if "app" in module.__dict__:
        (tmp_path / "function_app.py").write_text(_code(page), encoding="utf-8")
        assert load_app(tmp_path).functions


def test_every_page_is_in_the_list_of_pages() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")

    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")} - {"README.md"}

    assert {page for page in pages if f"({page})" not in index} == set()
