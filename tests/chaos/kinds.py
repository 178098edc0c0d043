"""The kinds of instances of a chaos run: how often each comes, how it is driven, and what must become of it.

What is driven depends on the seed alone. An instance's tasks have its id in their names, so that an expected output is
known beforehand, but for the ids of the runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from durable_host.model.status import RuntimeStatus

__all__ = ["KINDS", "Expected", "Kind", "Player"]


@dataclass(frozen=True, slots=True)
class Expected:
    """The end of an instance; `outputs` lists the outputs that are right, with tasks in place of tokens.

    `status` None: it is gone.
    """

    status: RuntimeStatus | None
    outputs: tuple[object, ...] = ()


class Player(Protocol):
    """What a kind may do with its instance. Calls are repeated until the store has answered."""

    random: Random

    async def start(
        self, orchestrator: str, instance_id: str, input: object, *, after: float = 0, again: bool = False
    ) -> None:
        """Start an instance, `after` so many seconds; `again`: in place of one that has ended."""
        ...

    async def wait(self, instance_id: str) -> RuntimeStatus:
        """Wait for the end."""
        ...

    async def rewind(self, instance_id: str) -> None:
        """Rewind a failed instance."""
        ...

    async def purge(self, instance_id: str) -> None:
        """Remove an instance that has ended."""
        ...

    async def raise_event(self, instance_id: str, name: str, data: object) -> None:
        """Raise an event; now and then twice with the same id, as after a cut connection."""
        ...

    async def terminate(self, instance_id: str) -> None:
        """Terminate an instance and its children."""
        ...

    async def suspend_for_a_while(self, instance_id: str) -> None:
        """Suspend an instance, and resume it until it has ended."""
        ...

    async def pause(self, most: float = 2.0) -> None:
        """Let a random time pass, often none."""
        ...

    def expect(
        self, instance_id: str, *outputs: object, status: RuntimeStatus | None = RuntimeStatus.COMPLETED
    ) -> None:
        """Note what must become of an instance."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. `weight` says how often it comes beside the others."""

    name: str
    weight: int
    play: Callable[[Player, str], Awaitable[None]]


async def _chain(player: Player, key: str) -> None:
    length = player.random.randint(1, 8)
    player.expect(key, _chain_of(key, length))
    await player.start("chain", key, [key, length])


def _chain_of(key: str, length: int) -> list[object]:
    return [f"{key}/{number}" for number in range(length)]


async def _fan(player: Player, key: str) -> None:
    width = player.random.choice((2, 5, 10, 30))
    player.expect(key, _fan_of(key, width))
    await player.start("fan", key, [key, width])


def _fan_of(key: str, width: int) -> list[object]:
    return [f"{key}/{half}{number}" for half in "ab" for number in range(width)]


async def _timers(player: Player, key: str) -> None:
    player.expect(key, [f"{key}/0", f"{key}/1", f"{key}/2", f"{key}/work", "due"])
    await player.start("timers", key, key)


async def _gate(player: Player, key: str) -> None:
    count = player.random.randint(0, 4)
    more = sorted(f"{key}/more {number}" for number in range(count))
    player.expect(
        key,
        [f"{key}/left L", f"{key}/then R", *more],
        [f"{key}/right R", f"{key}/then L", *more],
    )
    await player.start("gate", key, [key, count])
    events: list[tuple[str, Any]] = [("left", "L"), ("right", "R"), *(("more", number) for number in range(count))]
    player.random.shuffle(events)
    for name, data in events:
        await player.pause()
        await player.raise_event(key, name, data)


async def _collect(player: Player, key: str) -> None:
    count = player.random.randint(2, 6)
    player.expect(key, sorted(f"{key}/item {number}" for number in range(count)))
    await player.start("collect", key, [key, count, None])
    for number in range(count):
        await player.pause(1.0)
        await player.raise_event(key, "item", number)


async def _rounds(player: Player, key: str) -> None:
    player.expect(key, _rounds_of(key))
    await player.start("rounds", key, [key, 0, None])


def _rounds_of(key: str) -> list[object]:
    return [f"{key}/{number}{half}" for number in (0, 1, 3, 4, 5) for half in "ab"]


async def _parent(player: Player, key: str) -> None:
    depth = player.random.choice((0, 0, 1, 2))
    player.expect(key, _parent_of(key, depth))
    await player.start("parent", key, [key, depth])


def _parent_of(key: str, depth: int) -> list[object]:
    return [
        f"{key}/before",
        *_chain_of(f"{key}/chain", 3),
        *_fan_of(f"{key}/fan", 3),
        *_rounds_of(f"{key}/rounds"),
        *(_parent_of(f"{key}/parent", depth - 1) if depth else ()),
        "failed",
        f"{key}/after",
    ]


async def _failing(player: Player, key: str) -> None:
    player.expect(key, status=RuntimeStatus.FAILED)
    await player.start("failing", key, key)


async def _retrying(player: Player, key: str) -> None:
    player.expect(key, [f"{key}/soon 3", "gave up"])
    await player.start("retrying", key, key)


async def _rewound(player: Player, key: str) -> None:
    depth, failures = player.random.choice((0, 0, 1, 2)), player.random.choice((1, 2))
    inner = key + "/child" * depth
    levels = [key + "/child" * level for level in range(depth + 1)]
    before = [f"{level}/before" for level in levels]
    after = [f"{level}/after" for level in reversed(levels)]
    player.expect(key, [*before, f"{inner}/fails {failures}", *after])
    await player.start("rewound", key, [key, depth, failures])
    while await player.wait(key) is RuntimeStatus.FAILED:
        await player.rewind(key)


async def _reused(player: Player, key: str) -> None:
    lives = player.random.randint(2, 4)
    player.expect(key, [f"{key}/life {lives - 1}"])
    await player.start("once", key, f"{key}/life 0")
    for life in range(1, lives):
        await player.wait(key)
        await player.pause()
        await player.start("once", key, f"{key}/life {life}", again=True)


async def _later(player: Player, key: str) -> None:
    player.expect(key, [f"{key}/left L", f"{key}/then R"], [f"{key}/right R", f"{key}/then L"])
    await player.start("gate", key, [key, 0], after=player.random.choice((0.1, 2, 8)))
    await player.raise_event(key, "left", "L")
    await player.pause(6.0)
    await player.raise_event(key, "right", "R")


async def _purged(player: Player, key: str) -> None:
    player.expect(key, status=None)
    await player.start("chain", key, [key, 3])
    await player.wait(key)
    await player.purge(key)


async def _talking(player: Player, key: str) -> None:
    player.expect(key, ["0", "1"])
    for number in range(2):
        guest = f"{key}-guest-{number}"
        player.expect(guest, [f"{guest}/step", str(number)])
    await player.start("talking", key, None)


async def _patient(player: Player, key: str) -> None:
    player.expect(key, [f"{key}/0", f"{key}/1", f"{key}/2", f"{key}/go now"])
    await player.start("patient", key, key)
    await player.pause()
    await player.raise_event(key, "go", "now")
    await player.suspend_for_a_while(key)


async def _doomed(player: Player, key: str) -> None:
    player.expect(key, status=RuntimeStatus.TERMINATED)
    await player.start("doomed", key, key)
    await player.pause(6.0)
    await player.terminate(key)


KINDS: tuple[Kind, ...] = (
    Kind("chain", 6, _chain),
    Kind("fan", 3, _fan),
    Kind("timers", 3, _timers),
    Kind("gate", 4, _gate),
    Kind("collect", 3, _collect),
    Kind("rounds", 3, _rounds),
    Kind("parent", 2, _parent),
    Kind("failing", 1, _failing),
    Kind("retrying", 2, _retrying),
    Kind("rewound", 2, _rewound),
    Kind("reused", 2, _reused),
    Kind("later", 2, _later),
    Kind("purged", 1, _purged),
    Kind("talking", 2, _talking),
    Kind("patient", 1, _patient),
    Kind("doomed", 1, _doomed),
)
