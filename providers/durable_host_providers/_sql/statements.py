"""Named SQL statements, kept in `.sql` files.

A file holds one statement after another, each under a line `-- name: …` and followed by at least one comment line that
says what for. Two notations stand for repetition and are expanded by `Rows` and `Values`:

* `VALUES (?, ?) ...` becomes as many groups as there are rows;
* `IN (? ...)` becomes as many question marks as there are values.

Texts are expanded in a few sizes only, so that a driver's cache of prepared statements holds all of them. One statement
with many rows is not only less work than many statements: each execution lets go of Python's global lock and has to
get it back from a busy event loop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from itertools import chain
from typing import TypeVar

__all__ = ["Rows", "Values", "load_statements", "parse_statements"]

T = TypeVar("T")
Parameters = Sequence[object]

_NAME = re.compile(r"^-- name: ([a-z][a-z0-9_]*)\s*$", re.MULTILINE)
_GROUP = re.compile(r"(\([?, ]+\)) \.\.\.")
_MARK = re.compile(r"\? \.\.\.")
_NUMBERED = re.compile(r"\?\d")
_SIZES = (128, 64, 32, 16, 8, 4, 2, 1)


def load_statements(package: str, *names: str) -> dict[str, str]:
    """Read the named statements of `.sql` files inside a package."""
    found: dict[str, str] = {}
    for name in names:
        for key, text in parse_statements(files(package).joinpath(name).read_text("utf-8")).items():
            if key in found:
                raise ValueError(f"{package}: statement {key!r} is defined twice, the second time in {name}")
            found[key] = text
    return found


def parse_statements(text: str) -> Mapping[str, str]:
    """The statements of one file by name, without their comments.

    Raises:
        ValueError: a name appears twice, a statement is empty, or nothing says what it is for.
    """
    parts = _NAME.split(text)
    found: dict[str, str] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        lines = body.strip().splitlines()
        code = "\n".join(line for line in lines if not line.lstrip().startswith("--")).strip().rstrip(";")
        if not code:
            raise ValueError(f"statement {name!r} is empty")
        if not lines[0].startswith("-- "):
            raise ValueError(f"statement {name!r} does not say what it is for")
        if name in found:
            raise ValueError(f"statement {name!r} is defined twice")
        found[name] = code
    return found


class Rows:
    """A statement over any number of rows: `VALUES (?, ?) ...`. Fixed parameters are numbered and come first."""

    def __init__(self, text: str) -> None:
        match = _GROUP.search(text)
        if match is None:
            raise ValueError(f"no repeated group in {text!r}")
        if _NUMBERED.search(text, match.end()):
            raise ValueError(f"a numbered parameter stands after the rows in {text!r}")
        before, group, after = text[: match.start()], match[1], text[match.end() :]
        self._texts = {size: before + ", ".join([group] * size) + after for size in _SIZES}

    def run(self, execute: Callable[[str, Parameters], T], rows: Sequence[Parameters], *fixed: object) -> Iterable[T]:
        """Execute the statement for all rows, in few portions, and yield what `execute` returns for each."""
        at = 0
        left = len(rows)
        for size in _SIZES:
            while left >= size:
                portion = rows[at : at + size] if left > size or at else rows
                yield execute(self._texts[size], [*fixed, *chain.from_iterable(portion)])
                at += size
                left -= size

    def do(self, execute: Callable[[str, Parameters], T], rows: Sequence[Parameters], *fixed: object) -> None:
        """Execute the statement for all rows, for its effect only."""
        for _ in self.run(execute, rows, *fixed):
            pass


class Values:
    """A statement with a list: `IN (? ...)`, padded with NULL. Fixed parameters are numbered and come first."""

    _LARGEST = 256

    def __init__(self, text: str) -> None:
        match = _MARK.search(text)
        if match is None:
            raise ValueError(f"no repeated value in {text!r}")
        if _NUMBERED.search(text, match.end()):
            raise ValueError(f"a numbered parameter stands after the list in {text!r}")
        before, after = text[: match.start()], text[match.end() :]
        self._texts: list[tuple[int, str]] = []
        size = 1
        while size <= self._LARGEST:
            self._texts.append((size, before + ", ".join("?" * size) + after))
            size *= 4

    def run(self, execute: Callable[[str, Parameters], T], values: Sequence[object], *fixed: object) -> Iterable[T]:
        """Execute the statement for all values, in few portions, and yield what `execute` returns for each."""
        for at in range(0, len(values), self._LARGEST):
            portion = values[at : at + self._LARGEST]
            for size, text in self._texts:
                if size >= len(portion):
                    yield execute(text, [*fixed, *portion, *(None,) * (size - len(portion))])
                    break

    def do(self, execute: Callable[[str, Parameters], T], values: Sequence[object], *fixed: object) -> None:
        """Execute the statement for all values, for its effect only."""
        for _ in self.run(execute, values, *fixed):
            pass
