"""The dispatch id that an action's request gets, as `decide` writes it and replay checks it after a rewind."""

from __future__ import annotations

from durable_host.model.actions import ScheduleActivity, StartChild
from durable_host.model.ids import DispatchId, ExecutionId, InstanceId, dispatch_id

__all__ = ["activity_dispatch_id", "child_dispatch_id", "child_instance_id"]


def activity_dispatch_id(execution_id: ExecutionId, action: ScheduleActivity, rewinds: int) -> DispatchId:
    """Identity of an activity call."""
    return dispatch_id(execution_id, action.id, "activity", action.name, action.input, rewinds)


def child_instance_id(execution_id: ExecutionId, action: StartChild) -> InstanceId:
    """The child's instance id: the chosen one, else derived."""
    return action.instance_id or InstanceId(f"{execution_id}:{action.id}")


def child_dispatch_id(execution_id: ExecutionId, action: StartChild, rewinds: int) -> DispatchId:
    """Identity of a child's start."""
    payload = f"{child_instance_id(execution_id, action)}\n{action.input}"
    return dispatch_id(execution_id, action.id, "child", action.name, payload, rewinds)
