"""The first calls on a connection, made before anybody waits for them.

A new connection knows nothing: the driver asks for the types of the arguments, the server reads the functions and plans
their statements. That takes some 50 ms of the first calls of each connection. So one of each kind is made for an
instance of no hub, in a transaction that is undone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .connection import Connection
from .statements import Statements

__all__ = ["warm"]

_HUB = 0
_LEASE = 1 << 62
_LENGTH = 30_000_000
_TEXT = b"{}"


async def warm(connection: Connection, sql: Statements, name: str) -> None:
    """Make the first calls; `name`: of the instance, another one for each connection at one time."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await _calls(connection, sql, name)
    finally:
        await transaction.rollback()


async def _calls(connection: Connection, sql: Statements, name: str) -> None:
    first = (_HUB, _LEASE, _LENGTH)
    early, stepped = (row[0] for row in await connection.fetch(sql["take_refs"], 2))
    await connection.fetch(
        sql["start_at"], *first, early, f"{name}3", "m", None, None, _TEXT, "Pending", "e", "n", None, 0, _TEXT, None
    )
    # ref, lease, id, message, name, parent, created_at, input, execution, version, updated_at, state, ...
    await connection.fetch(
        sql["start_step"],
        *(*first, stepped, _LEASE, f"{name}4", "m", "n", None, 0, None, "e", 1, 1, 0, _TEXT, None),
        *("Running", _TEXT, f"{name}4", _TEXT, True),
    )
    starts = [[name], ["m"], [None], [None], [_TEXT], ["Pending"], ["e"], ["n"], [None], [0], [_TEXT], [None], [""]]
    ((new, _),) = await connection.fetch(
        sql["start_alone"], *first, True, f"{name}0", "m", None, None, _TEXT, "Pending", "e", "n", None, 0, _TEXT, None
    )
    answers = await connection.fetch(sql["start"], *first, 1, *starts, None, None, None)
    ref = next(answer[1] for answer in answers)
    # ref, lease, version, execution, status, version, updated_at, settled, status, state, payloads, events, ...
    await connection.fetch(
        sql["last_step"],
        *(*first, new, _LEASE, None, None, "e", "Pending", 1, 1, 0, True, "Completed", _TEXT),
        *(None, None, None, _TEXT, "m", f"{name}1", None),
    )
    # ref, lease, version, length, updated_at, state, custom status, execution, status, events, folded, activity, ...
    await connection.fetch(
        sql["step_alone"],
        *(*first, ref, _LEASE, None, None, 1, 0, _TEXT, None, "e", "Pending", _TEXT, None, None, None),
        *(1, "Running", "m", None, f"{name}5", _TEXT),
    )
    await connection.fetch(
        sql["step_carried"],
        *(*first, ref, _LEASE, 1, 1, 2, 0, _TEXT, None, "e", "Running", _TEXT, "Running", f"{name}5", f"{name}1"),
        _TEXT,
    )
    steps: Sequence[object] = (
        *([ref], [_LEASE], [1], [2], ["e"], ["Running"], [1], [3], [0], [_TEXT], [None], [f"{name}1"], ["Running"]),
        [_TEXT],
        *([ref], ["m"], [f"{name}1"], [ref], [f"{name}2"], [_TEXT], 1),
    )
    await connection.fetch(sql["step"], *first, *steps)
    await connection.fetch(
        sql["complete"], *first, [f"{name}2"], [_LEASE], None, [name], ["r"], [None], [None], [_TEXT], 0
    )
    await connection.fetch(sql["commit"], *first, *_ending(ref, name))
    await connection.fetch(sql["fetch_instances"], _HUB, 1, _LEASE, _LENGTH, [], [], [])
    await connection.fetch(sql["fetch_activities"], _HUB, 1, _LEASE, _LENGTH)


def _ending(ref: int, name: str) -> Sequence[object]:
    """The arguments of `commit` for a checkpoint that ends the instance and sends a message."""
    fence: Mapping[str, object] = {
        "ref": ref,
        "lease": _LEASE,
        "generation": 1,
        "length": 3,
        "expected": "e",
        "hold": False,
        "mode": 1,
    }
    projection = (1, 4, 0, 0, True, "Completed", "e", "n", None, _TEXT, None, None, None, False, None)
    return (
        *([value] for value in fence.values()),
        *([value] for value in projection),
        *(None, None),
        *(None, [ref], [3], [_TEXT]),
        *(None, None, None),
        *([0], None, None, None, None),
        *([f"{name}2"], None, None, None, 0),
        *([name], ["s"], [None], [None], [_TEXT]),
        *(None, None, None, None),
        *(None, None, 1),
    )
