"""What the simulation runs: small orchestrations, each after one thing that can go wrong.

A scenario is made anew for every run, since some activities count their attempts. All activities take a while, from
no time at all to longer than a lease.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any

from durable_host.engine.context import DurableOrchestrationContext as Context
from durable_host.errors import InstanceExistsError, InvalidStateError, TaskFailedError
from durable_host.model.history import SubOrchestrationInstanceCreated
from durable_host.model.retry import RetryOptions
from durable_host.model.status import RuntimeStatus
from durable_host.testing.oracle import Final
from durable_host.testing.simulation import Scenario, World

__all__ = ["SCENARIOS"]

Steps = Generator[Any, Any, Any]


async def _takes_time() -> None:
    chance = Random(asyncio.get_running_loop().time()).random()
    if chance < 0.6:
        return
    await asyncio.sleep(0.2 * chance if chance < 0.95 else 60.0 * chance)


async def inc(number: int) -> int:
    await _takes_time()
    return number + 1


async def echo(value: object) -> object:
    await _takes_time()
    return {"echo": value}


def _reply(name: str, value: Any) -> object:
    match name:
        case "inc":
            return value + 1
        case "echo":
            return {"echo": value}
        case "flaky":
            return {"done": value["key"]}
        case _:
            raise AssertionError(name)


@dataclass
class Flaky:
    """An activity that fails as often as its input says, counted over the whole run."""

    calls: Counter[str] = field(default_factory=Counter[str])

    def activity(self) -> Callable[..., Any]:
        async def flaky(value: dict[str, Any]) -> object:
            await _takes_time()
            self.calls[value["key"]] += 1
            if self.calls[value["key"]] <= value["fails"]:
                raise ValueError(f"{value['key']} is not ready")
            return {"done": value["key"]}

        return flaky


# One after another.


def chain() -> Scenario:
    async def steps(context: Context) -> object:
        number: int = context.get_input()
        for _ in range(5):
            number = await context.call_activity("inc", number)
        return number

    def classic(context: Context) -> Steps:
        number = context.get_input()
        context.set_custom_status("begun")
        for step in range(4):
            number = yield context.call_activity("inc", number)
            context.set_custom_status(f"step {step}")
        return number

    async def drive(world: World) -> None:
        for number in range(3):
            world.notes[await world.start(steps, number)] = number + 5
            world.notes[await world.start(classic, number)] = number + 4
            await world.pause()

    return Scenario("chain", [steps, classic], [inc], drive, _notes, _reply)


def _notes(world: World, final: Final) -> Iterable[str]:
    """Every instance that the scenario noted has the output that it noted."""
    for instance_id, wanted in world.notes.items():
        if final.output(instance_id) != wanted:
            yield f"{instance_id}: {final.status(instance_id)} {final.output(instance_id)!r} instead of {wanted!r}"


# Many at once.


def fan() -> Scenario:
    async def child(context: Context) -> object:
        return await context.call_activity("inc", context.get_input())

    def parallel(context: Context) -> Steps:
        tasks = [context.call_activity("inc", number) for number in range(context.get_input())]
        tasks.append(context.call_sub_orchestrator("child", 100))
        results = yield context.task_all(tasks)
        yield context.create_timer(context.current_utc_datetime + timedelta(seconds=30))
        more = yield context.task_all([context.call_activity("inc", number) for number in results])
        return sum(more)

    async def drive(world: World) -> None:
        for width in (3, 8):
            total = sum(range(width)) + 2 * width + 102
            world.notes[await world.start(parallel, width)] = total
            await world.pause()

    return Scenario("fan", [child, parallel], [inc], drive, _notes, _reply)


# Timers.


def timers() -> Scenario:
    def race(context: Context) -> Steps:
        work = context.call_activity("echo", "work")
        late = context.create_timer(context.current_utc_datetime + timedelta(seconds=20))
        first = yield context.task_any([work, late])
        if first is work:
            late.cancel()
            return "work"
        result = yield work
        return "late" if result == {"echo": "work"} else result

    async def patience(context: Context) -> object:
        began = context.current_utc_datetime
        await context.create_timer(began + timedelta(days=context.get_input()))
        await context.create_timer(context.current_utc_datetime + timedelta(seconds=1))
        return (context.current_utc_datetime - began) >= timedelta(days=context.get_input()) - timedelta(minutes=1)

    async def drive(world: World) -> None:
        for _ in range(3):
            await world.start(race)
        world.notes[await world.start(patience, 2)] = True
        world.notes[await world.start(patience, 14)] = True

    return Scenario("timers", [race, patience], [echo], drive, _notes, _reply)


# Children.


def children() -> Scenario:
    flaky = Flaky()

    async def leaf(context: Context) -> object:
        return await context.call_activity("flaky", context.get_input())

    def parent(context: Context) -> Steps:
        name = context.get_input()
        good = context.call_sub_orchestrator("leaf", {"key": f"{name}/a", "fails": 0})
        named = context.call_sub_orchestrator("leaf", {"key": f"{name}/b", "fails": 0}, f"{name}-named")
        results = yield context.task_all([good, named])
        try:
            yield context.call_sub_orchestrator("leaf", {"key": f"{name}/c", "fails": 99})
        except TaskFailedError:
            results.append("failed")
        retry = RetryOptions(2000, 4)
        again = yield context.call_sub_orchestrator_with_retry("leaf", retry, {"key": f"{name}/d", "fails": 2})
        return [*results, again]

    async def drive(world: World) -> None:
        for name in ("one", "two"):
            instance_id = await world.start(parent, name)
            world.notes[instance_id] = [{"done": f"{name}/a"}, {"done": f"{name}/b"}, "failed", {"done": f"{name}/d"}]
            await world.pause()

    return Scenario("children", [leaf, parent], [flaky.activity()], drive, _notes, _reply)


# External events.


def events() -> Scenario:
    def gate(context: Context) -> Steps:
        left, right = context.wait_for_external_event("left"), context.wait_for_external_event("right")
        first = yield context.task_any([left, right])
        # The decision depends on the order of arrival, so an episode that is repeated may decide otherwise.
        way = "left" if first is left else "right"
        answer = yield context.call_activity("echo", [way, first.result])
        other = yield (right if first is left else left)
        more: list[int] = []
        for _ in range(3):
            more.append((yield context.wait_for_external_event("more")))
        return [way, answer, other, sorted(more)]

    async def drive(world: World) -> None:
        found = [await world.start(gate) for _ in range(3)]
        sends = [(id, name, data) for id in found for name, data in _EVENTS]
        world.random.shuffle(sends)
        for id, name, data in sends:
            event = f"{id}/{name}/{data}"
            for _ in range(world.random.choice((1, 1, 2))):  # again with the same id, as after a cut connection
                try:
                    await world.raise_event(id, name, data, id=event)
                except InvalidStateError:  # the repetition came after the end
                    continue
                await world.pause()

    def check(world: World, final: Final) -> Iterable[str]:
        for id in world.started:
            output = final.output(id)
            if output is None:
                yield f"{id}: {final.status(id)}"
                continue
            way, answer, other, more = output
            if answer != {"echo": [way, way[0]]} or other not in ("l", "r") or more != [1, 2, 3]:
                yield f"{id}: {output!r}"

    return Scenario("events", [gate], [echo], drive, check, _reply)


_EVENTS = (("left", "l"), ("right", "r"), ("more", 1), ("more", 2), ("more", 3))


# Continue as new.


def eternal() -> Scenario:
    def collect(context: Context) -> Steps:
        seen = context.get_input()
        value = yield context.wait_for_external_event("item")
        answer = yield context.call_activity("echo", value)
        seen = [*seen, answer["echo"]]
        if len(seen) == 6:
            return sorted(seen)
        context.continue_as_new(seen)
        return None

    async def spin(context: Context) -> object:
        count: int = context.get_input()
        if count % 3 == 0:
            await context.call_activity("inc", count)
        if count == 8:
            return count
        context.continue_as_new(count + 1)
        return None

    async def drive(world: World) -> None:
        collector = await world.start(collect, [])
        world.notes[collector] = list(range(6))
        world.notes[await world.start(spin, 0)] = 8
        for number in range(6):
            for _ in range(world.random.choice((1, 1, 2))):
                try:
                    await world.raise_event(collector, "item", number, id=f"item-{number}")
                except InvalidStateError:
                    continue
            await world.pause()

    return Scenario("eternal", [collect, spin], [echo, inc], drive, _notes, _reply)


# Continue as new, with more events than one write takes.


def hoard() -> Scenario:
    def one_by_one(context: Context) -> Steps:
        seen = context.get_input()
        value = yield context.wait_for_external_event("item")
        answer = yield context.call_activity("echo", value)
        seen = [*seen, answer["echo"]]
        if len(seen) == 12:
            return sorted(seen)
        context.continue_as_new(seen)
        return None

    async def drive(world: World) -> None:
        hoarder = await world.start(one_by_one, [])
        world.notes[hoarder] = list(range(12))
        for number in range(12):
            for _ in range(world.random.choice((1, 1, 2))):
                try:
                    await world.raise_event(hoarder, "item", number, id=f"item-{number}")
                except InvalidStateError:
                    continue

    return Scenario("hoard", [one_by_one], [echo], drive, _notes, _reply)


# Suspend, resume, terminate.


def control() -> Scenario:
    def child(context: Context) -> Steps:
        # Not for ever: where nothing is atomic a parent that dies after sending its starts, and is terminated before it
        # decides again, leaves children that no history knows and nobody will terminate.
        end = context.create_timer(context.current_utc_datetime + timedelta(hours=1))
        yield context.task_any([context.wait_for_external_event("never"), end])

    def parent(context: Context) -> Steps:
        yield context.task_all([context.call_sub_orchestrator("child"), context.call_sub_orchestrator("child")])

    def patient(context: Context) -> Steps:
        number = context.get_input()
        for _ in range(3):
            number = yield context.call_activity("inc", number)
        value = yield context.wait_for_external_event("go")
        return [number, value]

    async def drive(world: World) -> None:
        async def unless_ended(call: Callable[[], Any]) -> None:
            try:
                await world.ask(call)
            except InvalidStateError:
                return

        for number in range(2):
            id = await world.start(patient, number)
            world.notes[id] = [number + 3, "now"]
            await world.pause()
            await unless_ended(lambda id=id: world.client.suspend(id, "wait"))  # type: ignore[misc]
            await world.raise_event(id, "go", "now")
            await world.pause()
            # A suspension may come in behind the resumption that was sent after it.
            for _ in range(100):
                state = await world.ask(lambda id=id: world.client.require(id))  # type: ignore[misc]
                if state.status.is_terminal:
                    break
                await unless_ended(lambda id=id: world.client.resume(id))  # type: ignore[misc]
                await world.sleep(20)
        doomed = await world.start(parent)
        await world.pause()
        await unless_ended(lambda: world.client.terminate(doomed, "enough", recursive=True))
        world.notes["doomed"] = doomed

    def check(world: World, final: Final) -> Iterable[str]:
        doomed = world.notes.pop("doomed")
        yield from _notes(world, final)
        recorded = [
            event.instance_id for event in final.histories[doomed] if isinstance(event, SubOrchestrationInstanceCreated)
        ]
        # Where nothing is atomic the children may hear of it, and answer, before their parent has recorded it.
        if final.status(doomed) not in (RuntimeStatus.TERMINATED, RuntimeStatus.FAILED):
            yield f"{doomed}: {final.status(doomed)} instead of Terminated"
        for id in recorded:
            if final.status(id) is not RuntimeStatus.TERMINATED:
                yield f"{id}: {final.status(id)} instead of Terminated"

    return Scenario("control", [child, parent, patient], [inc], drive, check, _reply)


# Rewind.


def rewind() -> Scenario:
    flaky = Flaky()

    def leaf(context: Context) -> Steps:
        first = yield context.call_activity("inc", 1)
        done = yield context.call_activity("flaky", context.get_input())
        return [first, done]

    def parent(context: Context) -> Steps:
        one = context.call_sub_orchestrator("leaf", {"key": f"{context.instance_id}/child", "fails": 1})
        two = context.call_activity("inc", 5)
        results = yield context.task_all([two, one])
        last = yield context.call_activity("inc", results[0])
        return [last, results[1]]

    async def drive(world: World) -> None:
        alone = await world.start(leaf, {"key": "alone", "fails": 2}, instance_id="alone")
        above = await world.start(parent, instance_id="above")
        world.notes[alone] = [2, {"done": "alone"}]
        world.notes[above] = [7, [2, {"done": "above/child"}]]
        for id in (alone, above):
            for _ in range(20):
                state = await world.ask(lambda id=id: world.client.wait_for_completion(id))  # type: ignore[misc]
                if state.status is not RuntimeStatus.FAILED:
                    break
                try:
                    await world.ask(lambda id=id: world.client.rewind(id, "again"))  # type: ignore[misc]
                except InvalidStateError:
                    continue
                await world.sleep(40)

    return Scenario("rewind", [leaf, parent], [inc, flaky.activity()], drive, _notes, _reply)


# Retries.


def retries() -> Scenario:
    flaky = Flaky()

    async def stubborn(context: Context) -> object:
        name: str = context.get_input()
        retry = RetryOptions(1000, 5, backoff_coefficient=2)
        # A run of the activity whose result was lost counts as a failure here, too: at least once.
        done = await context.call_activity_with_retry("flaky", retry, {"key": name, "fails": 2})
        try:
            await context.call_activity_with_retry("flaky", RetryOptions(500, 2), {"key": f"{name}!", "fails": 10**6})
        except TaskFailedError:
            return [done, "gave up"]
        return "?"

    async def drive(world: World) -> None:
        for name in ("a", "b"):
            world.notes[await world.start(stubborn, name)] = [{"done": name}, "gave up"]

    return Scenario("retries", [stubborn], [flaky.activity()], drive, _notes, _reply)


# Instances that talk to each other.


def talk() -> Scenario:
    def host(context: Context) -> Steps:
        me = context.instance_id
        for number in range(2):
            context.start_detached("guest", {"host": me, "number": number}, instance_id=f"{me}-guest-{number}")
        heard: list[int] = []
        for _ in range(2):
            heard.append((yield context.wait_for_external_event("hello")))
        for number in heard:
            context.send_event(f"{me}-guest-{number}", "thanks", number)
        done = yield context.call_activity("inc", len(heard))
        return [sorted(heard), done]

    async def guest(context: Context) -> object:
        asked: dict[str, Any] = context.get_input()
        number = await context.call_activity("inc", asked["number"])
        context.send_event(asked["host"], "hello", number - 1)
        return await context.wait_for_external_event("thanks")

    async def drive(world: World) -> None:
        for name in ("north", "south"):
            world.notes[await world.start(host, instance_id=name)] = [[0, 1], 3]
            world.notes[f"{name}-guest-0"] = 0
            world.notes[f"{name}-guest-1"] = 1

    return Scenario("talk", [host, guest], [inc], drive, _notes, _reply)


# One id, several lives.


def reuse() -> Scenario:
    async def once(context: Context) -> object:
        return await context.call_activity("echo", context.get_input())

    async def drive(world: World) -> None:
        won: list[int] = []

        async def contend(number: int) -> None:
            try:
                await world.start(once, number, instance_id="wanted")
            except InstanceExistsError:
                return
            won.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(contend(number))
        if not won:
            raise AssertionError("none of three contenders was told that it had started the instance")
        for number in range(10, 13):
            await world.ask(lambda: world.client.wait_for_completion("wanted"))
            await world.start(once, number, instance_id="wanted")
            await world.pause()
        await world.ask(lambda: world.client.wait_for_completion("wanted"))
        copy = await world.ask(lambda: world.client.restart("wanted", new_instance_id="copy"))
        world.notes["wanted"] = world.notes[copy] = {"echo": 12}

    return Scenario("reuse", [once], [echo], drive, _notes, _reply)


def lives() -> Scenario:
    async def once(context: Context) -> object:
        # Their messages come when the next life has begun, or is about to.
        for seconds in (1, 2, 3, 5):
            context.create_timer(context.current_utc_datetime + timedelta(seconds=seconds))
        await context.call_activity("echo", context.get_input())
        await context.wait_for_external_event("go")
        return context.get_input()

    async def drive(world: World) -> None:
        for number in range(6):
            await world.start(once, number, instance_id="cat")
            await world.raise_event("cat", "go", id=f"go-{number}")
            state = await world.ask(lambda: world.client.wait_for_completion("cat"))
            if state.output != str(number):
                raise AssertionError(f"life {number} is over, and its output is {state.output!r}")
            await world.pause()

    return Scenario("lives", [once], [echo], drive, _notes, _reply)


# Starts in the future.


def scheduled() -> Scenario:
    def waits(context: Context) -> Steps:
        early = yield context.wait_for_external_event("early")
        number = yield context.call_activity("inc", early)
        return number

    async def drive(world: World) -> None:
        for number, after in enumerate((timedelta(seconds=40), timedelta(hours=3), timedelta(days=10))):
            id = await world.start(waits, start_at=after)
            await world.raise_event(id, "early", number)
            world.notes[id] = number + 1
            await world.pause()

    return Scenario("scheduled", [waits], [inc], drive, _notes, _reply)


# Results that fold into the next checkpoint.


def folding() -> Scenario:
    async def quick(number: int) -> int:
        return number + 1

    async def busy(context: Context) -> object:
        number: int = context.get_input()
        for _ in range(6):
            number = await context.call_activity("quick", number)
        many = await context.task_all([context.call_activity("quick", number + each) for each in range(6)])
        heard = await context.wait_for_external_event("end")
        return [max(many), heard]

    def reply(name: str, value: Any) -> object:
        return value + 1

    async def drive(world: World) -> None:
        for number in range(3):
            id = await world.start(busy, number)
            world.notes[id] = [number + 12, "end"]
            await world.pause()
            await world.raise_event(id, "end", "end")

    return Scenario("folding", [busy], [quick], drive, _notes, reply)


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    make.__name__: make
    for make in (
        chain,
        fan,
        timers,
        children,
        events,
        eternal,
        hoard,
        control,
        rewind,
        retries,
        talk,
        reuse,
        lives,
        scheduled,
        folding,
    )
}
