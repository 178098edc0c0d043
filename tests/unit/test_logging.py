from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest

from durable_host.telemetry.logging import LevelRules, category_of, configure_logging, function_scope, use_colours


@pytest.fixture(autouse=True)
def _restore_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising
    logging.captureWarnings(False)


def _lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_a_users_record_belongs_to_the_function_that_runs() -> None:
    assert category_of("my.module") == "Host.General"
    with function_scope("hello"):
        assert category_of("my.module") == "Function.hello.User"
        assert category_of("durable_host.engine.pump") == "Host.Triggers.DurableTask"
    assert category_of("Function.hello") == "Function.hello"
    assert category_of("durable_hosting") == "Host.General"


async def test_child_tasks_inherit_the_function() -> None:
    async def child() -> str:
        return category_of("root")

    with function_scope("outer"):
        assert await asyncio.create_task(child()) == "Function.outer.User"


def test_users_see_information_and_the_host_warnings() -> None:
    stream = io.StringIO()
    configure_logging(LevelRules(), stream=stream)

    logging.getLogger("durable_host.engine").info("quiet")
    logging.getLogger("durable_host.engine").warning("loud")
    logging.getLogger("Function.hello").info("Executing")
    logging.getLogger("Function.hello").debug("detail")
    logging.getLogger("Host.Startup").info("Worker process started and initialized.")

    assert [line.split("] ", 1)[1] for line in _lines(stream)] == [
        "loud",
        "Executing",
        "Worker process started and initialized.",
    ]


@pytest.mark.parametrize(
    ("rules", "category", "level"),
    [
        (LevelRules(verbose=True), "Host.General", logging.INFO),
        (LevelRules(default=logging.ERROR), "Host.General", logging.ERROR),
        (LevelRules(default=logging.ERROR), "Function.a.User", logging.ERROR),
        (LevelRules(default=logging.ERROR, user=logging.DEBUG), "Function.a.User", logging.DEBUG),
        (LevelRules(categories={"host": 40, "host.triggers.durabletask": 10}), "Host.Triggers.DurableTask", 10),
        (LevelRules(categories={"host": 40, "host.triggers.durabletask": 10}), "Host.General", 40),
        (LevelRules(categories={"function.a": 100}, user=10), "Function.A.User", 100),
    ],
)
def test_the_most_specific_rule_decides(rules: LevelRules, category: str, level: int) -> None:
    assert rules.minimum(category) == level


def test_console_lines_carry_the_time_and_the_facts() -> None:
    stream = io.StringIO()
    configure_logging(LevelRules(), stream=stream)

    logging.getLogger("durable_host.engine").warning(
        "reply dropped\nsecond line", extra={"event": "reply_dropped", "instance_id": "i1"}
    )

    first, second = _lines(stream)
    assert first.endswith("Z] reply dropped")
    assert second.endswith("Z] second line (instance_id=i1)")
    assert len(first.split("]")[0]) == len("[2024-01-01T00:00:00.000Z")


def test_colours_follow_the_level_and_control_characters_are_defused() -> None:
    stream = io.StringIO()
    configure_logging(LevelRules(), stream=stream, colours=True)

    logging.getLogger("Function.f").error("bad \x1b[2J text")

    assert "\x1b[31mbad �[2J text\x1b[0m" in stream.getvalue()


def test_no_color_and_pipes_switch_colours_off(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert use_colours(Terminal())
    assert not use_colours(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not use_colours(Terminal())


def test_json_lines_hold_category_event_and_exception() -> None:
    stream = io.StringIO()
    configure_logging(LevelRules(), stream=stream, json=True)

    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("durable_host.http").exception("failed", extra={"event": "oops", "thing": object})

    entry = json.loads(stream.getvalue())
    assert (entry["level"], entry["category"], entry["event"], entry["message"]) == (
        "Error",
        "Host.General",
        "oops",
        "failed",
    )
    assert "ValueError: no" in entry["exception"]
    assert entry["thing"] == "<class 'object'>"


def test_a_closed_stream_does_not_disturb_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    configure_logging(LevelRules(), stream=stream)
    stream.close()

    logging.getLogger("Function.f").info("nobody hears this")

    assert capsys.readouterr().err == ""
