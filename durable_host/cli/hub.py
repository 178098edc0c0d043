"""`durable-host hub …`: make, remove and look at a task hub."""

from __future__ import annotations

import argparse
import asyncio
import sys

from durable_host.cli.console import ask, note, print_json, print_table
from durable_host.cli.context import choose, load_context, open_hub, storage_options
from durable_host.cli.views import moment, statistics_json
from durable_host.environment import system_environment
from durable_host.errors import ConfigurationError, StoreMismatchError
from durable_host.storage.contract import HubStatistics

__all__ = ["create", "delete", "info"]


def create(arguments: argparse.Namespace) -> int:
    """Make the hub ready."""

    async def run() -> int:
        async with open_hub(arguments, create=True) as hub:
            if arguments.json:
                print_json({"hub": hub.name, "provider": hub.choice.provider.name, "location": hub.location})
            else:
                sys.stdout.write(f"The task hub {hub.name!r} is ready at {hub.location}.\n")
        return 0

    return asyncio.run(run())


def delete(arguments: argparse.Namespace) -> int:
    """Remove the hub and everything in it, after a confirmation."""

    async def run() -> int:
        context = load_context(arguments)
        choice = choose(context, arguments.storage)
        options = storage_options(context, choice, hub=arguments.hub)
        opened = choice.provider.open(options, system_environment())
        if not opened.hub.traits.durable:
            raise ConfigurationError(f"The {choice.provider.name} provider keeps nothing that could be deleted.")
        if not arguments.yes:
            await _confirm(arguments, options.hub, opened.location)
        await opened.hub.delete()
        if arguments.json:
            print_json({"hub": options.hub, "deleted": True})
        else:
            sys.stdout.write(f"The task hub {options.hub!r} at {opened.location} is gone.\n")
        return 0

    return asyncio.run(run())


async def _confirm(arguments: argparse.Namespace, name: str, location: str) -> None:
    try:
        async with open_hub(arguments) as hub:
            count = sum((await hub.store.statistics()).instances.values())
    except StoreMismatchError:
        count = 0
    held = "1 instance" if count == 1 else f"{count} instances"
    question = f"Delete the task hub {name!r} at {location} with {held}?"
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{question} Add --yes to do it without being asked.")
    if not ask(question):
        raise ConfigurationError("Nothing was changed.")


def info(arguments: argparse.Namespace) -> int:
    """Show depths, ages, and what was handed back."""

    async def run() -> int:
        async with open_hub(arguments) as hub:
            statistics = await hub.store.statistics()
            if arguments.json:
                shown = statistics_json(statistics)
                print_json({"hub": hub.name, "provider": hub.choice.provider.name, "location": hub.location, **shown})
            else:
                _print(hub.name, f"{hub.choice.provider.name} at {hub.location} ({hub.choice.reason})", statistics)
        return 0

    return asyncio.run(run())


def _print(name: str, where: str, statistics: HubStatistics) -> None:
    rows = [["task hub", name], ["store", where]]
    rows += [[f"instances {status}", str(count)] for status, count in sorted(statistics.instances.items())]
    rows += [
        ["messages waiting", _with_age(statistics.inbox_waiting, statistics.oldest_message_age)],
        ["messages for later", str(statistics.inbox_delayed)],
        ["activities waiting", _with_age(statistics.activities_waiting, statistics.oldest_activity_age)],
        ["activities running", str(statistics.activities_running)],
        ["quarantined", str(statistics.quarantined)],
    ]
    width = max(len(row[0]) for row in rows)
    for label, value in rows:
        sys.stdout.write(f"{label.ljust(width)}  {value}\n")
    if statistics.handed_back:
        sys.stdout.write("\nHanded back, and tried again with growing delay:\n")
        print_table(
            ["KIND", "INSTANCE", "FUNCTION", "TIMES", "AGAIN AT"],
            [
                [each.kind, each.instance_id, each.name or "", str(each.deliveries), moment(each.visible_at)]
                for each in statistics.handed_back
            ],
        )
        note("A function that no host knows waits for a host that does; see also `durable-host functions`.")


def _with_age(count: int, age: float | None) -> str:
    return str(count) if age is None else f"{count}, the oldest for {age:.1f} s"
