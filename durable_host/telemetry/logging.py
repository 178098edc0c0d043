"""Log lines in the style of `func start`, or as JSON, with Azure's categories and level rules.

A record's *category* decides whether it is shown and is what `logging.logLevel` in host.json filters on. Loggers of
this project belong to `Host.…` categories; loggers of the app belong to the function that is running
(`Function.<name>.User`), which `function_scope` tells. Two minimum levels hold: one for what users write and for the
life of their functions (Information), one for the host's own (Warning), until host.json or the command line say
otherwise.

Source: functions-host.md 1.3, 9.4, 12.1 and 12.3.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TextIO

__all__ = [
    "LEVELS",
    "ConsoleFormatter",
    "JsonFormatter",
    "LevelRules",
    "category_of",
    "configure_logging",
    "function_scope",
    "level_name",
    "use_colours",
]

LEVELS: Mapping[str, int] = {
    "trace": 5,
    "debug": logging.DEBUG,
    "information": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "none": 100,
}
"""Azure's level names, in lower case, and Python's numbers."""

_SYSTEM = ("Microsoft.Azure.WebJobs.", "Function.", "Worker.", "Host.")
_ORCHESTRATORS = "durable_host.orchestrators."  # what `context.logger` writes to
_ALWAYS_SHOWN = ("Worker process started and initialized.", "Host started", "Host lock lease acquired by instance ID")
_OURS = (
    ("durable_host.engine", "Host.Triggers.DurableTask"),
    ("durable_host.worker", "Host.Triggers.DurableTask"),
    ("durable_host.storage", "Host.Triggers.DurableTask"),
    ("durable_host.executors", "Host.Triggers.DurableTask"),
    ("durable_host_providers", "Host.Triggers.DurableTask"),
    ("durable_host.bindings", "Host.Bindings"),
    ("durable_host.functions", "Host.Executor"),
    ("durable_host", "Host.General"),
    ("aiohttp", "Host.General"),
    ("asyncio", "Host.General"),
    ("azure_functions_worker", "Worker.Python"),
    ("azure.functions", "Worker.Python"),
)
_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {
    "message", "asctime", "event", "taskName", "category",
}  # fmt: skip
_GREY, _RED, _YELLOW, _CYAN, _GREEN, _RESET = "\033[90m", "\033[31m", "\033[33m", "\033[36m", "\033[32m", "\033[0m"

_function: ContextVar[str | None] = ContextVar("durable_host_function", default=None)


@contextmanager
def function_scope(name: str) -> Generator[None]:
    """Attribute what is logged inside, child tasks included, to the function of that name."""
    token = _function.set(name)
    try:
        yield
    finally:
        _function.reset(token)


def category_of(logger: str) -> str:
    """The category of a record from that logger, logged here and now."""
    if logger.startswith(_SYSTEM):
        return logger
    if logger.startswith(_ORCHESTRATORS):
        return f"Function.{logger[len(_ORCHESTRATORS) :]}.User"
    for prefix, category in _OURS:
        if logger == prefix or (logger.startswith(prefix) and logger[len(prefix)] == "."):
            return category
    function = _function.get()
    return "Host.General" if function is None else f"Function.{function}.User"


def level_name(level: int) -> str:
    """Azure's name of a Python level."""
    if level >= logging.CRITICAL:
        return "Critical"
    if level >= logging.ERROR:
        return "Error"
    if level >= logging.WARNING:
        return "Warning"
    if level >= logging.INFO:
        return "Information"
    return "Debug" if level >= logging.DEBUG else "Trace"


@dataclass(frozen=True, slots=True)
class LevelRules:
    """Which level a category must have to be shown. Levels are Python's numbers.

    Attributes:
        default: `logLevel.default` of host.json, over both built-in levels.
        user: `--user-log-level`, over `default` for users' categories.
        categories: level by category prefix in lower case; the longest match counts, over everything else.
        verbose: the host's own categories at Information.
    """

    default: int | None = None
    user: int | None = None
    categories: Mapping[str, int] = field(default_factory=dict[str, int])
    verbose: bool = False

    def minimum(self, category: str) -> int:
        """The least level of a category that is shown."""
        lowered = category.lower()
        best = max((each for each in self.categories if lowered.startswith(each)), key=len, default=None)
        if best is not None:
            return self.categories[best]
        if _is_user(category):
            return self.user or self.default or logging.INFO
        return self.default or (logging.INFO if self.verbose else logging.WARNING)

    def least(self) -> int:
        """The least level that any category may show, for the root logger."""
        bounds = [*self.categories.values(), self.minimum("Host.General"), self.minimum("Function.x.User")]
        return min(bounds)


def _is_user(category: str) -> bool:
    return category.startswith("Function.") or category == "Host.Function.Console" or not category.startswith(_SYSTEM)


class _CategoryFilter(logging.Filter):
    """Sets `record.category` and drops what is below the category's level."""

    def __init__(self, rules: LevelRules) -> None:
        super().__init__()
        self._rules = rules
        self._minimum: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        category: str = record.__dict__.get("category") or category_of(record.name)
        record.category = category
        minimum = self._minimum.get(category)
        if minimum is None:
            minimum = self._minimum[category] = self._rules.minimum(category)
        return record.levelno >= minimum or record.getMessage().startswith(_ALWAYS_SHOWN)


class ConsoleFormatter(logging.Formatter):
    """`[2024-01-01T00:00:00.000Z] message`, each line of a message with the time.

    Constant messages of this project's loggers are followed by their facts; the lines about functions carry theirs in
    the text, as in Azure.
    """

    def __init__(self, *, colours: bool = False) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        facts = _facts(record) if record.name.startswith("durable_host") else None
        if facts:
            text += " (" + ", ".join(f"{name}={value}" for name, value in facts.items()) + ")"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        stamp = f"[{_time(record)}]"
        lines = text.splitlines() or [""]
        if not self._colours:
            return "\n".join(f"{stamp} {_plain(line)}" for line in lines)
        colour = _colour(record.levelno)
        return "\n".join(f"{_GREY}{stamp}{_RESET} {colour}{_plain(line)}{_RESET}" for line in lines)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, category, event, message, facts, exception."""

    def format(self, record: logging.LogRecord) -> str:
        import msgspec

        entry: dict[str, object] = {
            "time": _time(record),
            "level": level_name(record.levelno),
            "category": record.__dict__.get("category") or category_of(record.name),
            "message": record.getMessage(),
        }
        event = record.__dict__.get("event")
        if event is not None:
            entry["event"] = event
        entry.update(_facts(record))
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry, enc_hook=str).decode("utf-8", "replace")


def configure_logging(
    rules: LevelRules,
    *,
    stream: TextIO | None = None,
    json: bool = False,
    colours: bool | None = None,
    enabled: bool = True,
) -> None:
    """Send all records of the process to one stream by these rules; earlier handlers of the root logger go.

    Args:
        stream: standard output by default.
        enabled: False: nothing is written.
        colours: by default where the stream is a terminal and `NO_COLOR` is not set.
    """
    target = stream if stream is not None else sys.stdout
    handler = logging.StreamHandler(target)
    handler.addFilter(_CategoryFilter(rules))
    if json:
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(ConsoleFormatter(colours=use_colours(target) if colours is None else colours))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler if enabled else logging.NullHandler())
    least = rules.least()
    if os.environ.get("PYTHON_ENABLE_DEBUG_LOGGING") == "1":
        least = min(least, logging.DEBUG)
    root.setLevel(least)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a closed pipe must not print a traceback per line


def use_colours(stream: TextIO) -> bool:
    """Whether a stream shows colours: a terminal, and nobody objects."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def _facts(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD and not name.startswith("_")}


def _time(record: logging.LogRecord) -> str:
    from datetime import UTC, datetime

    # The record's own time: taken by the logging library when the line was written.
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(record.msecs):03d}Z"


def _colour(level: int) -> str:
    if level >= logging.ERROR:
        return _RED
    if level >= logging.WARNING:
        return _YELLOW
    return _CYAN if level >= logging.INFO else _GREEN


def _plain(line: str) -> str:
    # Control characters from an app's data must not steer the operator's terminal.
    return line if line.isprintable() else "".join(each if each.isprintable() or each == "\t" else "�" for each in line)
