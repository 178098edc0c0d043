"""The report of an orchestrator that asks for something else than history holds."""

from __future__ import annotations

from durable_host.engine.callsites import CallSite, spell_site
from durable_host.errors import NonDeterminismError
from durable_host.model.actions import Action, CreateTimer, ScheduleActivity, SendEvent, StartChild
from durable_host.model.history import EventSent, SubOrchestrationInstanceCreated, TaskScheduled, TimerCreated

__all__ = ["SchedulingEvent", "agrees", "non_determinism"]

SchedulingEvent = TaskScheduled | TimerCreated | SubOrchestrationInstanceCreated | EventSent
"""Events that record an action."""

_LONGEST_INPUT = 300


def agrees(event: SchedulingEvent, action: Action) -> bool:
    """Whether history's event records this action: kind and name, and where the code chose them, id and target.

    Due times and inputs are not compared (the reference does not, and inputs are not kept).
    """
    if type(event) is TaskScheduled:
        return type(action) is ScheduleActivity and _same(event.name, action.name)
    if type(event) is TimerCreated:
        return type(action) is CreateTimer
    if type(event) is SubOrchestrationInstanceCreated:
        return (
            type(action) is StartChild
            and _same(event.name, action.name)
            and (action.instance_id is None or action.instance_id == event.instance_id)
        )
    if type(event) is EventSent:
        return type(action) is SendEvent and _same(event.name, action.name) and event.instance_id == action.instance_id
    return False


def _same(one: str, other: str) -> bool:
    return one == other or one.lower() == other.lower()


def non_determinism(
    orchestrator: str, event: SchedulingEvent, action: Action | None, site: CallSite | None, position: str
) -> NonDeterminismError:
    """The error that names both sides.

    Args:
        action: what replay asked for under the event's id; None: nothing.
        site: where the user's code asked for it.
        position: where the code stands, told when it asked for nothing.
    """
    if action is not None:
        where = spell_site(site)
        actual = f"the code asks for {_spell_action(action)}{f' ({where})' if where else ''}"
    else:
        actual = f"the code asks for nothing under this id{f'; it stands at {position}' if position else ''}"
    return NonDeterminismError(
        f"Orchestrator '{orchestrator}' is not deterministic: history holds {_spell_event(event)} as action "
        f"{event.event_id}, but {actual}. Its code has changed since this instance began, or it decides by something "
        "that replay does not repeat (the clock, random numbers, I/O, environment or global variables). Bring the old "
        "code back for running instances, or start them anew."
    )


def _spell_event(event: SchedulingEvent) -> str:
    if isinstance(event, TaskScheduled):
        return f"the call of activity '{event.name}'{_spell_input(event.input)}"
    if isinstance(event, TimerCreated):
        return f"a timer due at {event.fire_at.isoformat()}"
    if isinstance(event, SubOrchestrationInstanceCreated):
        return (
            f"the call of orchestrator '{event.name}' with instance id {event.instance_id!r}{_spell_input(event.input)}"
        )
    return f"the event '{event.name}' sent to {event.instance_id!r}{_spell_input(event.input)}"


def _spell_action(action: Action) -> str:
    match action:
        case ScheduleActivity():
            return f"activity '{action.name}'{_spell_input(action.input)}"
        case CreateTimer():
            return f"a timer due at {action.fire_at.isoformat()}"
        case StartChild():
            chosen = "" if action.instance_id is None else f" with instance id {action.instance_id!r}"
            return f"orchestrator '{action.name}'{chosen}{_spell_input(action.input)}"
        case SendEvent():
            return f"sending the event '{action.name}' to {action.instance_id!r}{_spell_input(action.input)}"
        case _:
            return type(action).__name__


def _spell_input(text: str | None) -> str:
    if text is None:
        return ""
    return f" with input {text if len(text) <= _LONGEST_INPUT else text[:_LONGEST_INPUT] + '…'}"
