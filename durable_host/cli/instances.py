"""`durable-host instances …`: look at instances and act on them, directly on the store."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from durable_host.cli.console import ask, clean, note, print_json, print_table, since
from durable_host.cli.context import Hub, open_hub
from durable_host.cli.views import history_json, history_rows, instance_json, instance_lines
from durable_host.errors import ConfigurationError, InstanceNotFoundError, InvalidStateError
from durable_host.model.ids import InstanceId
from durable_host.model.instance import InstanceQuery, InstanceState
from durable_host.model.status import TERMINAL

__all__ = [
    "history",
    "list",
    "purge",
    "raise_event",
    "release",
    "restart",
    "resume",
    "rewind",
    "show",
    "suspend",
    "terminate",
]

Arguments = argparse.Namespace
_list = list


def list(arguments: Arguments) -> int:
    """List instances that match the filters."""

    async def run(hub: Hub) -> int:
        query = msgspec.structs.replace(
            _query(arguments, hub), limit=arguments.limit, cursor=arguments.cursor, with_payloads=arguments.json
        )
        found: _list[InstanceState] = []
        while True:
            try:
                page = await hub.client.query(query)
            except ValueError:
                raise ConfigurationError(
                    f"--cursor is {arguments.cursor!r}, which is not from an earlier list."
                ) from None
            found += page.instances
            if page.cursor is None or not arguments.all:
                break
            query = msgspec.structs.replace(query, cursor=page.cursor)
        if arguments.json:
            print_json({"instances": [instance_json(each) for each in found], "cursor": page.cursor})
            return 0
        now = hub.environment.clock.now()
        rows = [
            [each.instance_id, each.name, each.status.value, since(each.created_at, now), since(each.updated_at, now)]
            for each in found
        ]
        if rows:
            print_table(["ID", "NAME", "STATUS", "CREATED", "UPDATED"], rows)
        else:
            note("No instances match." if _is_filtered(arguments) else f"The hub {hub.name!r} holds no instances.")
        if page.cursor is not None:
            note(f"There are more: add --all, or --cursor {page.cursor!r}.")
        return 0

    return _run(arguments, run)


def show(arguments: Arguments) -> int:
    """Show one instance."""

    async def run(hub: Hub) -> int:
        state = await hub.client.require(arguments.id)
        if arguments.json:
            print_json(instance_json(state))
        else:
            sys.stdout.write("\n".join(instance_lines(state)) + "\n")
        return 0

    return _run(arguments, run)


def history(arguments: Arguments) -> int:
    """Show the history of one instance."""

    async def run(hub: Hub) -> int:
        events = await hub.client.history(arguments.id)
        if arguments.json:
            print_json(history_json(events))
        elif events:
            print_table(["#", "TIME", "EVENT", "ID", "WHAT"], history_rows(events))
        else:
            note(f"Instance {arguments.id!r} has not run yet.")
        return 0

    return _run(arguments, run)


def raise_event(arguments: Arguments) -> int:
    """Raise an event."""

    async def run(hub: Hub) -> int:
        data = _data(arguments.data)
        await hub.client.raise_event(arguments.id, arguments.event, data_json=data)
        return _done(arguments, f"Raised event '{arguments.event}' to instance '{arguments.id}'.")

    return _run(arguments, run)


def terminate(arguments: Arguments) -> int:
    """Ask for the end of an instance."""

    async def run(hub: Hub) -> int:
        await hub.client.terminate(arguments.id, arguments.reason, recursive=arguments.recursive)
        return _done(arguments, f"Sent a termination message to instance '{arguments.id}'.")

    return _run(arguments, run)


def suspend(arguments: Arguments) -> int:
    """Suspend an instance."""

    async def run(hub: Hub) -> int:
        await hub.client.suspend(arguments.id, arguments.reason)
        return _done(arguments, f"Sent a suspension message to instance '{arguments.id}'.")

    return _run(arguments, run)


def resume(arguments: Arguments) -> int:
    """Resume an instance."""

    async def run(hub: Hub) -> int:
        await hub.client.resume(arguments.id, arguments.reason)
        return _done(arguments, f"Sent a resume message to instance '{arguments.id}'.")

    return _run(arguments, run)


def rewind(arguments: Arguments) -> int:
    """Rewind a failed instance."""

    async def run(hub: Hub) -> int:
        await hub.client.rewind(arguments.id, arguments.reason)
        return _done(arguments, f"Sent a rewind message to instance '{arguments.id}'.")

    return _run(arguments, run)


def restart(arguments: Arguments) -> int:
    """Start the same again."""

    async def run(hub: Hub) -> int:
        made = await hub.client.restart(arguments.id, same_id=arguments.same_id)
        return _done(arguments, f"Started instance '{made}'.", instanceId=made)

    return _run(arguments, run)


def purge(arguments: Arguments) -> int:
    """Remove instances by id or by filter."""

    async def run(hub: Hub) -> int:
        filtered = _is_filtered(arguments)
        if arguments.ids and filtered:
            raise ConfigurationError("Purge by ids or by filters, not both at once.")
        if not arguments.ids and not filtered:
            raise ConfigurationError(
                "Say what to purge: ids, or filters such as --status Completed or --created-to 30d."
            )
        if arguments.ids:
            removed = await _purge_ids(hub, arguments)
        else:
            query = _query(arguments, hub)
            living = sorted(status.value for status in query.statuses - TERMINAL)
            if living and not arguments.force:
                raise ConfigurationError(
                    f"Instances with status {', '.join(living)} have not ended; add --force to purge them all the same."
                )
            if not query.statuses and not arguments.force:
                query = msgspec.structs.replace(query, statuses=TERMINAL)
            count = await _count(hub, query)
            if count and not _confirmed(arguments, f"Purge {_things(count)} of hub {hub.name!r} at {hub.location}?"):
                return 1
            removed = await hub.client.purge_by(query, force=arguments.force) if count else 0
        return _done(arguments, f"Instances deleted: {removed}", instancesDeleted=removed)

    return _run(arguments, run)


def release(arguments: Arguments) -> int:
    """Release quarantined instances."""

    async def run(hub: Hub) -> int:
        for each in arguments.ids:
            state = await hub.client.require(each, with_payloads=False)
            if state.quarantined is None:
                raise InvalidStateError(
                    each,
                    state.status.value,
                    "release",
                    f"Instance {each!r} is not quarantined; its status is {state.status.value}.",
                )
        released = await hub.client.release_quarantined(arguments.ids)
        return _done(arguments, f"Instances released: {released}", instancesReleased=released)

    return _run(arguments, run)


def _run(arguments: Arguments, command: Callable[[Hub], Awaitable[int]]) -> int:
    async def run() -> int:
        async with open_hub(arguments) as hub:
            return await command(hub)

    return asyncio.run(run())


def _done(arguments: Arguments, text: str, **facts: Any) -> int:
    if arguments.json:
        print_json(facts or {"instanceId": arguments.id})
    else:
        sys.stdout.write(clean(text) + "\n")
    return 0


def _query(arguments: Arguments, hub: Hub) -> InstanceQuery:
    now = hub.environment.clock.now()

    def at(value: datetime | timedelta | None) -> datetime | None:
        return now - value if isinstance(value, timedelta) else value

    return InstanceQuery(
        statuses=frozenset(arguments.status),
        names=frozenset(arguments.name),
        prefix=arguments.prefix,
        tags=tuple(arguments.tag),
        created_from=at(arguments.created_from),
        created_to=at(arguments.created_to),
        updated_from=at(arguments.updated_from),
        updated_to=at(arguments.updated_to),
        parent=InstanceId(arguments.parent) if arguments.parent else None,
    )


_FILTERS = (
    "status",
    "name",
    "prefix",
    "tag",
    "parent",
    "created_from",
    "created_to",
    "updated_from",
    "updated_to",
)


def _is_filtered(arguments: Arguments) -> bool:
    return any(getattr(arguments, each) for each in _FILTERS)


async def _count(hub: Hub, query: InstanceQuery) -> int:
    count = 0
    async for _ in hub.client.instances(msgspec.structs.replace(query, limit=1000, with_payloads=False)):
        count += 1
    return count


async def _purge_ids(hub: Hub, arguments: Arguments) -> int:
    for each in arguments.ids:
        state = await hub.client.get(each, with_payloads=False)
        if state is None:
            raise InstanceNotFoundError(each)
        if state.status not in TERMINAL and not arguments.force:
            raise InvalidStateError(
                each,
                state.status.value,
                "purge",
                f"Instance {each!r} has not ended ({state.status.value}); terminate it first, or add --force.",
            )
    return await hub.store.purge([InstanceId(each) for each in arguments.ids], force=arguments.force)


def _things(count: int) -> str:
    return "1 instance" if count == 1 else f"{count} instances"


def _confirmed(arguments: Arguments, question: str) -> bool:
    if arguments.yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{question} Add --yes to do it without being asked.")
    if ask(question):
        return True
    note("Nothing was changed.")
    return False


def _data(text: str | None) -> str | None:
    if text is None:
        return None
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise ConfigurationError(f"--data is {text!r}: {error.strerror}.") from None
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ConfigurationError(
            f"--data is not JSON: {error}. A text needs quotes inside the quotes, for example --data '\"yes\"'."
        ) from None
    return text
