from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from durable_host.engine.decide import Rules, begin_generation, decide
from durable_host.engine.index import HistoryIndex
from durable_host.engine.project import project
from durable_host.engine.rewind import amend, plan_rewind
from durable_host.model.actions import (
    Action,
    CompleteOrchestration,
    ContinueAsNew,
    CreateTimer,
    ScheduleActivity,
    SendEvent,
    StartChild,
)
from durable_host.model.history import (
    EventRaised,
    ExecutionCompleted,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    GenericEvent,
    HistoryEvent,
    ParentInstance,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
    SubOrchestrationInstanceFailed,
    TaskFailed,
    TimerFired,
)
from durable_host.model.ids import DispatchId, ExecutionId, InstanceId, MessageId
from durable_host.model.instance import HistoryVersion
from durable_host.model.status import RuntimeStatus

from .engine_values import EXECUTION, ID, T0, at, completed, ended, episode, failed, raised, scheduled, started

EVERYTHING_KNOWN = Rules(unknown=lambda kind, name: None)
PARENT = ParentInstance(
    instance_id=InstanceId("p"), execution_id=ExecutionId("pe"), task_id=3, dispatch_id=DispatchId("link")
)


def names(events: Sequence[HistoryEvent]) -> list[str]:
    return [type(event).__name__ for event in events]


def run(*actions: Action, start: ExecutionStarted | None = None, rules: Rules = EVERYTHING_KNOWN, **changes: object):  # type: ignore[no-untyped-def]
    first = start or started()
    new: list[HistoryEvent] = [*episode(first)[:-1], *changes.get("new", ())]  # type: ignore[misc]
    index = changes.get("index", HistoryIndex())
    return decide(index, first, new, actions, rules, now=at(1), length=len(new))  # type: ignore[arg-type]


def test_events_of_an_episode_stand_in_the_order_of_action_ids() -> None:
    decision = run(
        ScheduleActivity(0, "Hello", '"Tokyo"'),
        CreateTimer(1, at(60)),
        StartChild(2, "Child"),
        SendEvent(3, InstanceId("other"), "go"),
    )

    assert names(decision.events) == [
        "TaskScheduled",
        "TimerCreated",
        "SubOrchestrationInstanceCreated",
        "EventSent",
        "OrchestratorCompleted",
    ]
    assert [event.event_id for event in decision.events[:-1]] == [0, 1, 2, 3]


def test_same_decision_in_a_repeated_episode_sends_identical_work() -> None:
    actions = (ScheduleActivity(0, "Hello", '"Tokyo"'), CreateTimer(1, at(60)), StartChild(2, "Child", "1"))

    first, second = run(*actions), run(*actions)

    assert first.activities == second.activities
    assert first.messages == second.messages


def test_other_decision_under_the_same_action_id_has_another_identity() -> None:
    one = run(ScheduleActivity(0, "Hello", '"Tokyo"'))
    other = run(ScheduleActivity(0, "Hello", '"Oslo"'))

    assert one.activities[0].dispatch_id != other.activities[0].dispatch_id


def test_rewind_gives_the_same_request_another_identity() -> None:
    before = run(ScheduleActivity(0, "Hello"))
    after = run(ScheduleActivity(0, "Hello"), new=[GenericEvent(timestamp=at(1), data="try again")])

    assert before.activities[0].dispatch_id != after.activities[0].dispatch_id


def test_child_id_and_link_derive_from_the_parents_execution() -> None:
    decision = run(StartChild(2, "Child", '"x"'))

    (start,) = decision.messages
    assert start.target == f"{EXECUTION}:2"
    assert isinstance(start.event, ExecutionStarted)
    assert start.event.parent == ParentInstance(
        instance_id=ID,
        execution_id=EXECUTION,
        task_id=2,
        name="Chain",
        dispatch_id=start.event.parent.dispatch_id if start.event.parent else None,
    )
    created = decision.events[0]
    assert isinstance(created, SubOrchestrationInstanceCreated)
    assert start.event.parent is not None
    assert created.dispatch_id == start.event.parent.dispatch_id


def test_timer_in_the_past_is_due_at_once() -> None:
    decision = run(CreateTimer(0, T0 - timedelta(hours=1)))

    assert decision.messages[0].visible_at is None
    assert isinstance(decision.messages[0].event, TimerFired)


def test_call_of_an_unknown_activity_is_recorded_and_answered_with_a_failure() -> None:
    rules = Rules(unknown=lambda kind, name: f"no {kind} {name}")

    decision = run(ScheduleActivity(0, "Nope"), rules=rules)

    assert names(decision.events) == ["TaskScheduled", "OrchestratorCompleted"]
    assert decision.activities == []
    (reply,) = decision.messages
    assert reply.target == ID
    assert isinstance(reply.event, TaskFailed)
    assert reply.event.reason == "no activity Nope"
    assert reply.event.dispatch_id == decision.events[0].dispatch_id  # type: ignore[union-attr]


def test_inputs_stay_out_of_history_unless_asked_for() -> None:
    plain = run(ScheduleActivity(0, "Hello", '"x"')).events[0]
    kept = run(ScheduleActivity(0, "Hello", '"x"'), rules=Rules(lambda kind, name: None, store_inputs=True)).events[0]

    assert plain.input is None  # type: ignore[union-attr]
    assert kept.input == '"x"'  # type: ignore[union-attr]


def test_child_that_ends_answers_its_parent_with_the_link() -> None:
    done = run(CompleteOrchestration(0, RuntimeStatus.COMPLETED, "5"), start=started(parent=PARENT))
    lost = run(CompleteOrchestration(0, RuntimeStatus.FAILED, "broken"), start=started(parent=PARENT))

    (good,), (bad,) = done.messages, lost.messages
    assert isinstance(good.event, SubOrchestrationInstanceCompleted)
    assert (good.target, good.execution_id, good.event.task_id, good.event.dispatch_id) == ("p", "pe", 3, "link")
    assert isinstance(bad.event, SubOrchestrationInstanceFailed)
    assert bad.event.reason == "broken"


def test_detached_child_answers_nobody() -> None:
    start = started(parent=PARENT, detached=True)

    assert run(CompleteOrchestration(0, RuntimeStatus.COMPLETED), start=start).messages == []


def test_recursive_termination_reaches_open_children() -> None:
    created = SubOrchestrationInstanceCreated(timestamp=at(1), event_id=0, name="Child", instance_id=InstanceId("c"))
    index = HistoryIndex(episode(started(), created))
    end = ExecutionTerminated(timestamp=at(2), reason="enough", recursive=True)

    decision = run(CompleteOrchestration(1, RuntimeStatus.TERMINATED, "enough"), index=index, new=[end])

    assert [(each.target, type(each.event).__name__) for each in decision.messages] == [("c", "ExecutionTerminated")]


def test_too_many_actions_fail_the_instance() -> None:
    rules = Rules(unknown=lambda kind, name: None, max_actions=2)

    decision = run(*[ScheduleActivity(id, "Hello") for id in range(3)], rules=rules)

    assert decision.failed_limit
    assert names(decision.events) == ["ExecutionCompleted", "OrchestratorCompleted"]
    assert decision.activities == []


def test_next_generation_begins_with_its_start_and_the_events_carried_over() -> None:
    waiting = EventRaised(timestamp=at(1), name="later", message_id=MessageId("kept"))
    taken = EventRaised(timestamp=at(1), name="now", message_id=MessageId("taken"))
    first = started(message_id="start")

    fresh = begin_generation(
        HistoryIndex(episode(first)),
        first,
        [taken, waiting],
        ContinueAsNew("2", (waiting,)),
        now=at(5),
        custom_status='"s"',
    )

    assert names(fresh) == ["OrchestratorStarted", "ExecutionStarted", "EventRaised", "OrchestratorCompleted"]
    start = fresh[1]
    assert isinstance(start, ExecutionStarted)
    assert start.execution_id != first.execution_id
    assert (start.input, start.generation, start.starts) == ("2", None, 0)
    assert start.seen == ("start", "taken")


def test_projection_of_a_prefix_never_runs_ahead_and_folds_like_the_whole() -> None:
    history: list[HistoryEvent] = [
        *episode(started(), scheduled(0)),
        *episode(ExecutionSuspended(timestamp=at(2), reason="hold"), second=2),
        *episode(completed(0), ended(result='"done"'), second=3),
    ]
    whole = project(None, history, version=HistoryVersion(0, len(history)), custom_status=None)

    for cut in range(2, len(history)):
        prefix = project(None, history[:cut], version=HistoryVersion(0, cut), custom_status=None)
        assert prefix.version is not None
        assert whole.version is not None
        assert prefix.version < whole.version
        assert prefix.updated_at <= whole.updated_at
        rest = project(prefix, history[cut:], version=HistoryVersion(0, len(history)), custom_status=None)
        assert rest == whole
    assert whole.status is RuntimeStatus.COMPLETED
    assert whole.output == '"done"'


def test_rewind_takes_failures_their_requests_and_the_completion() -> None:
    history = [
        *episode(started(), scheduled(0), scheduled(1)),
        *episode(completed(0), failed(1), ended(RuntimeStatus.FAILED, 2)),
    ]

    plan = plan_rewind(history)
    amended = dict(amend(history, plan.removed))

    assert sorted(type(history[index]).__name__ for index in amended) == [
        "ExecutionCompleted",
        "TaskFailed",
        "TaskScheduled",
    ]
    replaced = [amended.get(index, event) for index, event in enumerate(history)]
    index = HistoryIndex(replaced)
    assert index.completed is None
    assert index.reopened == {1}
    assert len(replaced) == len(history)


def test_rewinding_twice_wraps_nothing_twice() -> None:
    history = episode(started(), scheduled(0), failed(0), ended(RuntimeStatus.FAILED, 1))
    once = list(history)
    for index, event in amend(history, plan_rewind(history).removed):
        once[index] = event

    assert amend(once, plan_rewind(once).removed) == []


def test_completion_is_ignored_by_an_event_raised_before() -> None:
    index = HistoryIndex([*episode(started(), scheduled(0)), *episode(raised("go")), *episode(completed(0))])

    assert index.open == {}
    assert index.open_activities == 0
    assert isinstance(ended(), ExecutionCompleted)
