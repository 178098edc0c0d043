from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from durable_host.engine.admit import admit
from durable_host.engine.index import HistoryIndex
from durable_host.model.history import (
    ExecutionResumed,
    ExecutionRewound,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    GenericEvent,
    HistoryEvent,
    OrchestratorCompleted,
    OrchestratorStarted,
    ParentInstance,
    SubOrchestrationInstanceCompleted,
)
from durable_host.model.ids import DispatchId, ExecutionId, InstanceId, MessageId, forwarded_id, postponed_id
from durable_host.model.messages import Message
from durable_host.model.status import RuntimeStatus

from .engine_values import (
    EXECUTION,
    T0,
    at,
    completed,
    ended,
    episode,
    failed,
    message,
    raised,
    scheduled,
    started,
)

OTHER = "f" * 32
PARENT = ParentInstance(
    instance_id=InstanceId("p"), execution_id=ExecutionId("pe"), task_id=3, dispatch_id=DispatchId("first")
)


def running(*events: HistoryEvent) -> HistoryIndex:
    return HistoryIndex(episode(started(), *events))


def test_reply_to_an_open_task_is_new_and_keeps_its_message_id() -> None:
    admission = admit(running(scheduled(0)), [message(completed(0), "r")], max_deferrals=5)

    assert [event.message_id for event in admission.new] == ["r"]
    assert admission.consumed == ["r"]


def test_event_that_was_sent_again_waits_for_the_generation_that_lacks_it() -> None:
    taken = replace(raised("item"), message_id=MessageId("item-1"))
    again = message(raised("item"), forwarded_id(MessageId("item-1"), at(3)), execution=None)

    early = admit(running(taken), [again], max_deferrals=5)
    welcome = admit(running(), [again], max_deferrals=5)
    stale = admit(running(taken), [replace(again, deliveries=6)], max_deferrals=5)

    assert (early.new, early.deferred, early.consumed) == ([], [again.id], [])
    assert [event.message_id for event in welcome.new] == ["item-1"]
    assert (stale.new, stale.deferred, stale.consumed) == ([], [], [again.id])


def test_call_to_go_on_waits_for_its_generation() -> None:
    call = message(GenericEvent(timestamp=T0, data="continue"), "c", execution=OTHER)

    assert admit(running(), [call], max_deferrals=5).deferred == ["c"]


def test_second_reply_to_the_same_task_is_dropped() -> None:
    index = HistoryIndex([*episode(started(), scheduled(0)), *episode(completed(0))])

    admission = admit(index, [message(completed(0), "again")], max_deferrals=5)

    assert admission.new == []
    assert admission.consumed == ["again"]


def test_two_replies_to_one_task_in_one_inbox_count_once() -> None:
    admission = admit(running(scheduled(0)), [message(completed(0), "a"), message(completed(0), "b")], max_deferrals=5)

    assert [event.message_id for event in admission.new] == ["a"]
    assert admission.consumed == ["a", "b"]


def test_reply_whose_dispatch_id_history_does_not_know_is_dropped() -> None:
    admission = admit(running(scheduled(0, "real")), [message(completed(0, "ghost"))], max_deferrals=5)

    assert admission.new == []
    assert admission.consumed == ["m"]


def test_reply_of_another_kind_under_the_same_action_id_is_dropped() -> None:
    index = HistoryIndex(episode(started(), scheduled(0)))

    wrong = SubOrchestrationInstanceCompleted(timestamp=at(2), task_id=0, dispatch_id=DispatchId("d0"))
    admission = admit(index, [message(wrong)], max_deferrals=5)

    assert admission.new == []
    assert admission.consumed == ["m"]


def test_reply_ahead_of_its_request_is_deferred_then_dropped() -> None:
    index = running(scheduled(0))

    early = admit(index, [message(completed(1), deliveries=5)], max_deferrals=5)
    late = admit(index, [message(completed(1), deliveries=6)], max_deferrals=5)

    assert early.deferred == ["m"]
    assert early.consumed == []
    assert late.consumed == ["m"]
    assert [each.message.id for each in late.dropped] == ["m"]


def test_reply_to_an_older_execution_is_dropped() -> None:
    admission = admit(running(scheduled(0)), [message(completed(0), execution=OTHER)], max_deferrals=5)

    assert admission.new == []
    assert admission.consumed == ["m"]


def test_event_with_a_known_message_id_is_taken_once() -> None:
    first = admit(running(), [message(raised("go"), "ev", execution=None)], max_deferrals=5)
    index = running(*first.new)

    again = admit(index, [message(raised("go"), "ev", execution=None)], max_deferrals=5)

    assert again.new == []
    assert again.consumed == ["ev"]


def test_event_sent_again_for_later_and_its_repetition_are_one_event() -> None:
    index = HistoryIndex(episode(started()))

    admission = admit(index, [message(raised("go"), "m1:later"), message(raised("go"), "m1")], max_deferrals=12)

    assert [event.message_id for event in admission.new] == ["m1"]
    assert admission.consumed == ["m1:later", "m1"]


def test_event_that_the_previous_generation_took_is_not_taken_again() -> None:
    carried = ExecutionStarted(
        timestamp=T0,
        instance_id=InstanceId("i"),
        execution_id=ExecutionId(OTHER),
        name="Chain",
        seen=(MessageId("ev"),),
    )
    index = HistoryIndex(episode(carried))

    admission = admit(index, [message(raised("go"), "ev", execution=None)], max_deferrals=5)

    assert admission.new == []
    assert admission.consumed == ["ev"]


def test_start_comes_first_whatever_the_order_of_arrival() -> None:
    inbox = [message(raised("go"), "ev", execution=None), message(started(), "start")]

    admission = admit(HistoryIndex(), inbox, max_deferrals=5)

    assert [type(event).__name__ for event in admission.new] == ["ExecutionStarted", "EventRaised"]
    assert admission.start is admission.new[0]
    assert sorted(admission.consumed) == ["ev", "start"]


def test_second_delivery_of_the_start_changes_nothing() -> None:
    index = HistoryIndex(episode(started(message_id="start")))

    admission = admit(index, [message(started(), "start")], max_deferrals=5)

    assert admission.start is None
    assert admission.new == []
    assert admission.consumed == ["start"]


def test_start_for_an_instance_that_lives_is_dropped() -> None:
    admission = admit(running(), [message(started(OTHER), "other")], max_deferrals=5)

    assert admission.start is None
    assert admission.consumed == ["other"]
    assert len(admission.dropped) == 1


def test_start_that_may_replace_a_running_instance_does() -> None:
    replacing = started(OTHER, replaceable=(RuntimeStatus.RUNNING,))

    admission = admit(running(scheduled(0)), [message(replacing, "new")], max_deferrals=5)

    assert admission.start is not None
    assert admission.start.execution_id == OTHER
    assert admission.replaced


def test_start_replaces_an_ended_instance() -> None:
    index = HistoryIndex(episode(started(), ended()))

    admission = admit(index, [message(started(OTHER, replaceable=(RuntimeStatus.COMPLETED,)), "new")], max_deferrals=5)

    assert admission.start is not None
    assert not admission.replaced


def child(dispatch: str, execution: str) -> ExecutionStarted:
    parent = ParentInstance(
        instance_id=PARENT.instance_id,
        execution_id=PARENT.execution_id,
        task_id=PARENT.task_id,
        dispatch_id=DispatchId(dispatch),
    )
    return started(execution, parent=parent, generation=None)


def test_child_start_with_the_same_link_and_dispatch_id_is_a_duplicate() -> None:
    index = HistoryIndex(episode(child("first", EXECUTION)))

    admission = admit(index, [message(child("first", OTHER))], max_deferrals=5)

    assert admission.start is None
    assert admission.consumed == ["m"]


def test_ghost_child_makes_the_recorded_child_wait_and_then_gives_way() -> None:
    start = message(child("second", OTHER))

    while_running = admit(HistoryIndex(episode(child("first", EXECUTION))), [start], max_deferrals=5)
    after_its_end = admit(HistoryIndex(episode(child("first", EXECUTION), ended())), [start], max_deferrals=5)

    assert while_running.deferred == ["m"]
    assert after_its_end.start is not None
    assert after_its_end.start.execution_id == OTHER


def test_child_start_under_an_id_in_use_answers_the_parent() -> None:
    admission = admit(running(), [message(child("first", OTHER))], max_deferrals=5)

    assert [refusal.parent.dispatch_id for refusal in admission.refusals] == ["first"]
    assert admission.consumed == ["m"]


def test_everything_for_an_ended_instance_is_consumed() -> None:
    index = HistoryIndex(episode(started(), scheduled(0), ended()))

    admission = admit(index, [message(completed(0), "a"), message(raised("go"), "b", execution=None)], max_deferrals=5)

    assert admission.new == []
    assert admission.consumed == ["a", "b"]
    assert admission.deferred == []


def test_rewind_of_a_failed_instance_is_recognised_and_of_a_completed_child_repeats_its_reply() -> None:
    request = message(ExecutionRewound(timestamp=at(5), parent=PARENT), "rw", execution=None)

    of_failed = admit(HistoryIndex(episode(started(), ended(RuntimeStatus.FAILED))), [request], max_deferrals=5)
    of_completed = admit(HistoryIndex(episode(started(), ended())), [request], max_deferrals=5)

    assert of_failed.rewind is not None
    assert of_completed.rewind is None
    assert of_completed.repeat == (request, PARENT)


def test_child_that_was_rewound_and_has_ended_repeats_its_reply_to_the_same_request() -> None:
    request = message(ExecutionRewound(timestamp=at(5), parent=PARENT), "rw", execution=None)
    marker = GenericEvent(timestamp=at(5), data="again", message_id=MessageId("rw"))

    admission = admit(HistoryIndex(episode(started(), marker, ended())), [request], max_deferrals=5)

    assert admission.rewind is None
    assert admission.repeat == (request, PARENT)


def test_parents_rewind_of_a_child_that_still_runs_is_recorded_once() -> None:
    request = message(ExecutionRewound(timestamp=at(5), reason="again", parent=PARENT), "rw", execution=None)

    first = admit(running(), [request], max_deferrals=5)
    again = admit(running(*first.new), [request], max_deferrals=5)

    assert first.new == [GenericEvent(timestamp=at(5), data="again", message_id=MessageId("rw"))]
    assert again.new == []
    assert again.consumed == ["rw"]


def test_rewind_of_an_instance_that_is_gone_answers_the_parent() -> None:
    request = message(ExecutionRewound(timestamp=at(5), parent=PARENT), "rw", execution=None)

    admission = admit(HistoryIndex(), [request], max_deferrals=5)

    assert len(admission.refusals) == 1
    assert admission.consumed == ["rw"]


def test_suspending_twice_records_one_event() -> None:
    inbox = [
        message(ExecutionSuspended(timestamp=at(4)), "a", execution=None),
        message(ExecutionSuspended(timestamp=at(5)), "b", execution=None),
        message(ExecutionResumed(timestamp=at(6)), "c", execution=None),
        message(ExecutionResumed(timestamp=at(7)), "d", execution=None),
    ]

    admission = admit(running(), inbox, max_deferrals=5)

    assert [event.message_id for event in admission.new] == ["a", "c"]
    assert admission.consumed == ["a", "b", "c", "d"]


@pytest.mark.parametrize("in_one_episode", [False, True])
@pytest.mark.parametrize(
    ("arrives", "stands"),
    [("s4 r5", False), ("r5 s4", False), ("r4 s5", True), ("s5 r4", True), ("s6 r5 s4", True), ("r5 s4 s6", True)],
)
def test_of_suspensions_that_were_sent_again_the_last_one_raised_counts(
    arrives: str, stands: bool, in_one_episode: bool
) -> None:
    kinds = {"s": ExecutionSuspended, "r": ExecutionResumed}
    inbox = [
        message(kinds[each[0]](timestamp=at(int(each[1]))), postponed_id(MessageId(each)), execution=None)
        for each in arrives.split()
    ]
    index = running()

    for part in [inbox] if in_one_episode else [[each] for each in inbox]:
        admission = admit(index, part, max_deferrals=5)
        assert admission.consumed == [each.id for each in part]
        index.extend(admission.new)

    assert index.suspended is stands


def test_nothing_is_recorded_after_a_termination() -> None:
    inbox = [
        message(ExecutionTerminated(timestamp=at(4)), "end", execution=None),
        message(raised("late"), "late", execution=None),
    ]

    admission = admit(running(), inbox, max_deferrals=5)

    assert [event.message_id for event in admission.new] == ["end"]
    assert admission.consumed == ["end", "late"]


def test_reply_kept_by_an_amended_event_is_not_taken_again() -> None:
    old = failed(0, "first")
    amended = GenericEvent(timestamp=at(2), message_id=MessageId("old"), original=old, reason="Rewound: TaskFailed")
    index = HistoryIndex([*episode(started(), scheduled(0, "first")), *episode(amended)])

    admission = admit(index, [message(failed(0, "first"), "old")], max_deferrals=5)

    assert admission.new == []
    assert admission.consumed == ["old"]


def test_reply_to_a_reopened_request_is_deferred() -> None:
    taken = GenericEvent(timestamp=at(1), event_id=0, original=scheduled(0), reason="Rewound: TaskScheduled")
    index = HistoryIndex(episode(started(), taken))

    admission = admit(index, [message(completed(0, "again"))], max_deferrals=5)

    assert admission.deferred == ["m"]


# Properties.

_events = st.one_of(
    st.builds(completed, st.integers(0, 4), st.sampled_from([None, "ghost"])),
    st.builds(failed, st.integers(0, 4)),
    st.builds(raised, st.sampled_from(["go", "stop"])),
    st.just(ExecutionSuspended(timestamp=at(4))),
    st.just(ExecutionResumed(timestamp=at(4))),
    st.just(ExecutionTerminated(timestamp=at(4))),
    st.just(started()),
    st.just(started(OTHER)),
)


@st.composite
def inboxes(draw: st.DrawFn) -> list[Message]:
    events = draw(st.lists(_events, max_size=8))
    return [
        message(event, f"m{draw(st.integers(0, 5))}", execution=draw(st.sampled_from([EXECUTION, None, OTHER])))
        for event in events
    ]


@given(inboxes())
def test_every_message_has_exactly_one_fate(inbox: list[Message]) -> None:
    admission = admit(running(scheduled(0), scheduled(1), scheduled(2)), inbox, max_deferrals=5)

    consumed, deferred = set(admission.consumed), set(admission.deferred)
    assert consumed | deferred == {each.id for each in inbox}
    assert {event.message_id for event in admission.new} <= consumed


@given(inboxes())
def test_admitting_again_what_was_committed_adds_nothing(inbox: list[Message]) -> None:
    past = episode(started(), scheduled(0), scheduled(1), scheduled(2))
    first = admit(HistoryIndex(past), inbox, max_deferrals=5)
    if first.start is not None:
        past = []
    index = HistoryIndex(
        [*past, OrchestratorStarted(timestamp=at(5)), *first.new, OrchestratorCompleted(timestamp=at(5))]
    )

    taken = {event.message_id for event in first.new}
    again = admit(index, [each for each in inbox if each.id in taken], max_deferrals=5)

    # Message ids are unique in a store; where the strategy repeats one, its other bearer may be new.
    assert [event for event in again.new if event in first.new] == []
