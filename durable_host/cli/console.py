"""What commands print: tables and sentences for people, JSON for programs, errors for both."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from durable_host.errors import ConfigurationError, DurableHostError, IndexingError
from durable_host.telemetry.logging import use_colours

__all__ = ["ask", "clean", "complain", "note", "print_json", "print_table", "report_error", "shortened", "since"]

_RED, _YELLOW, _BOLD, _RESET = "\033[31m", "\033[33m", "\033[1m", "\033[0m"


def print_json(value: object) -> None:
    """A value as indented JSON."""
    text = msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2)
    sys.stdout.write(text.decode("utf-8", "replace") + "\n")


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell; the last one is not padded."""
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in [list(headings), *cells]) for at in range(len(headings))]
    bold = use_colours(sys.stdout)

    def line(row: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

    head = line(headings)
    sys.stdout.write((f"{_BOLD}{head}{_RESET}" if bold else head) + "\n")
    for row in cells:
        sys.stdout.write(line(row) + "\n")


def note(text: str) -> None:
    """A sentence beside the result, on standard error so that the result can be piped."""
    sys.stderr.write(clean(text, keep_lines=True) + "\n")


def complain(text: str, *, warning: bool = False) -> None:
    """An error or a warning, coloured where standard error shows colours."""
    colour = _YELLOW if warning else _RED
    text = clean(text, keep_lines=True)
    sys.stderr.write(f"{colour}{text}{_RESET}\n" if use_colours(sys.stderr) else f"{text}\n")


def report_error(error: Exception, *, as_json: bool = False, debug: bool = False) -> int:
    """Say what went wrong; returns the exit code."""
    if debug:
        import traceback

        traceback.print_exception(error)
        return 1
    problems: Sequence[str] = [_text(error)]
    if isinstance(error, (ConfigurationError, IndexingError)):
        problems = error.problems
    if as_json:
        sys.stderr.buffer.write(msgspec.json.encode({"error": "\n".join(problems), "problems": problems}) + b"\n")
        sys.stderr.flush()
        return 1
    for problem in problems:
        complain(problem)
    return 1


def _text(error: Exception) -> str:
    if isinstance(error, DurableHostError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"Unexpected {type(error).__name__}: {error}. Run again with --debug to see where."


def ask(question: str) -> bool:
    """Ask for a yes; anything else is a no. Standard input has to be a terminal."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def clean(text: str, *, keep_lines: bool = False) -> str:
    """The text without characters that would steer a terminal."""
    if text.isprintable():
        return text
    kept = "\n\t" if keep_lines else ""
    return "".join(each if each.isprintable() or each in kept else "�" for each in text)


def shortened(text: str | None, width: int = 60) -> str:
    """A text on one line, cut to a width."""
    if text is None:
        return ""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def since(at: datetime, now: datetime) -> str:
    """How long ago something was, in one unit: `3 min`."""
    seconds = max(0, int((now - at.astimezone(UTC)) / timedelta(seconds=1)))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
