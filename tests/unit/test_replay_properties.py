"""Any history replays to the same actions, however it is fed; orchestrators and histories are drawn by hypothesis.

`Script` does the comparing: each of its steps is taken by a session, by a cold replay and by a replay of the whole.
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from durable_host.engine.context import DurableOrchestrationContext as Context
from durable_host.engine.replay import Replay
from durable_host.engine.tasks import Task
from durable_host.errors import TaskFailedError, WaitTimeoutError
from durable_host.model.actions import CompleteOrchestration, CreateTimer, ScheduleActivity, StartChild
from durable_host.model.history import ExecutionResumed, ExecutionSuspended, HistoryEvent
from durable_host.model.retry import RetryOptions
from tests.unit.scripted import EXECUTION, INSTANCE, Script

Code = Generator[Task[Any], Any, Any]
Step = tuple[str, int]

KINDS = [
    "activity", "retried", "child", "timer", "long timer", "cancelled", "wait", "timed wait", "all", "any", "settled",
    "map", "detached", "send", "status", "uuid", "nested",
]  # fmt: skip
PROGRAMS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3)), max_size=7)
HAPPENINGS = st.lists(st.tuples(st.integers(0, 99), st.booleans(), st.integers(1, 4)), max_size=40)


def program(steps: list[Step]) -> Any:
    """An orchestrator that takes these steps; it decides by what it learns, as real ones do."""

    def make(context: Context, kind: str, n: int) -> Task[Any]:
        match kind:
            case "activity":
                return context.call_activity(f"activity{n}", n)
            case "retried":
                return context.call_activity(
                    "flaky", n, retry=RetryOptions(1000, n + 1, backoff_coefficient=2, jitter=0.5)
                )
            case "child":
                return context.call_sub_orchestrator("child", n, instance_id=f"child{n}" if n else None)
            case "timer":
                return context.create_timer(timedelta(seconds=n))
            case "long timer":
                return context.create_timer(timedelta(days=4 * n))
            case "wait":
                return context.wait_for_external_event(f"event{n % 2}")
            case "timed wait":
                return context.wait_for_external_event(f"EVENT{n % 2}", timeout=timedelta(seconds=n), default="late")
            case "all":
                return context.when_all([context.call_activity("member", at) for at in range(n)])
            case "any":
                return context.when_any([context.create_timer(timedelta(hours=1)), context.call_activity("member", n)])
            case "settled":
                return context.when_all_settled([context.call_activity("member", at) for at in range(n)])
            case "map":
                return context.map("item", range(n + 2), concurrency=2)
            case _:
                return context.when_any(
                    [make(context, "all", n), make(context, "retried", n), make(context, "wait", n)]
                )

    def code(context: Context) -> Code:
        learned: list[Any] = []
        for kind, n in steps:
            if kind == "cancelled":
                context.create_timer(timedelta(days=9)).cancel()
            elif kind == "detached":
                learned.append(context.start_detached("detached", n))
            elif kind == "send":
                context.send_event("other", "hello", n)
            elif kind == "status":
                context.set_custom_status({"step": n, "learned": len(learned)})
            elif kind == "uuid":
                learned.append(context.new_uuid())
            else:
                try:
                    result = yield make(context, kind, n)
                except (TaskFailedError, WaitTimeoutError) as error:
                    learned.append(f"{type(error).__name__}")
                    yield context.call_activity("compensate", len(learned))
                else:
                    learned.append(str(type(result).__name__) if isinstance(result, (Task, list)) else result)  # pyright: ignore[reportUnknownArgumentType]
                    if isinstance(result, Task) and result.is_failed and n == 3:
                        raise ValueError("fails in the end")
        return [*learned, context.current_utc_datetime]

    return code


def happening(script: Script, choice: int, good: bool) -> HistoryEvent | None:
    """One of the things that could arrive now."""
    open_ids = [
        task_id
        for task_id, action in script.asked.items()
        if isinstance(action, (ScheduleActivity, CreateTimer))
        or (isinstance(action, StartChild) and not action.detached)
    ]
    if choice % 5 == 4 or not open_ids:
        if choice % 25 == 24:
            return (
                ExecutionSuspended(timestamp=script.now)
                if good
                else ExecutionResumed(timestamp=script.now, reason="go")
            )
        return script.raised(f"event{choice % 2}", choice)
    # Any request, also one that was answered before: second replies come, too.
    task_id = open_ids[choice % len(open_ids)]
    if isinstance(script.asked[task_id], CreateTimer):
        return script.fired(task_id)
    return script.completed(task_id, choice) if good else script.failed(task_id)


@settings(max_examples=150, deadline=None)
@given(PROGRAMS, HAPPENINGS)
def test_at_once_in_a_session_and_cold_the_same_actions_come_out(
    steps: list[Step], happenings: list[tuple[int, bool, int]]
) -> None:
    script = Script(program(steps))
    batch: list[HistoryEvent] = []
    for choice, good, size in happenings:
        if script.completion is not None:
            break
        event = happening(script, choice, good)
        if event is not None:
            batch.append(event)
        if len(batch) >= size:
            script.step(*batch)
            batch = []
    for _ in range(200):  # what is still open is answered in the end
        if script.completion is not None:
            break
        answers = [ExecutionResumed(timestamp=script.now), *_answers(script)]
        script.step(*answers, after=timedelta(days=1))

    assert script.completion is not None
    assert script.replay().actions == ()


def _answers(script: Script) -> list[HistoryEvent]:
    answers: list[HistoryEvent] = []
    for task_id, action in script.asked.items():
        if isinstance(action, CreateTimer):
            answers.append(script.fired(task_id))
        elif isinstance(action, ScheduleActivity) or (isinstance(action, StartChild) and not action.detached):
            answers.append(script.completed(task_id, task_id))
    return [*answers, script.raised("event0"), script.raised("event1")]


@settings(max_examples=60, deadline=None)
@given(PROGRAMS, st.data())
def test_a_history_cut_anywhere_replays_without_a_complaint(steps: list[Step], data: st.DataObject) -> None:
    """Whatever a crash leaves of the last episode: no non-determinism, and what is missing is asked for again."""
    script = Script(program(steps))
    for _ in range(200):
        if script.completion is not None:
            break
        script.step(*_answers(script), after=timedelta(days=1))
    whole = script.history
    cut = data.draw(st.integers(2, len(whole)))

    result = Replay(script.function, INSTANCE, EXECUTION).episode(whole[:cut], ())

    for action in result.actions:
        if isinstance(action, CompleteOrchestration) and action.failure is not None:
            assert action.failure.short_type != "NonDeterminismError"
    if result.session is not None:
        result.session.close()
