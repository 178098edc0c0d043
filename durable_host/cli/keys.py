"""`durable-host keys …`: the keys that HTTP callers need where keys are demanded."""

from __future__ import annotations

import argparse
import asyncio
import sys

from durable_host.cli.console import print_json, print_table
from durable_host.cli.context import open_hub
from durable_host.errors import ConfigurationError
from durable_host.http.keys import MASTER, KeyRing, KeyScope
from durable_host.http.keys import create_key as make_key
from durable_host.http.keys import delete_key as remove_key
from durable_host.http.keys import list_keys as read_keys

__all__ = ["create_key", "delete_key", "list_keys"]


def list_keys(arguments: argparse.Namespace) -> int:
    """Print the keys of a scope; without one, those of the host."""

    async def run() -> int:
        async with open_hub(arguments, create=True) as hub:
            rows: list[tuple[str, str, str]] = []
            if arguments.function is None and not arguments.system:
                master = await KeyRing(hub.host_state, hub.environment).master_key()
                rows.append(("master", MASTER, master or ""))
                scopes = [("host", KeyScope.host()), ("system", KeyScope.system())]
            else:
                scopes = [_scope(arguments)]
            for label, scope in scopes:
                found = await read_keys(hub.host_state, hub.environment, scope)
                rows += [(label, key.name, key.value) for key in found]
        if arguments.json:
            print_json({"keys": [{"scope": scope, "name": name, "value": value} for scope, name, value in rows]})
        else:
            print_table(["SCOPE", "NAME", "VALUE"], rows)
        return 0

    return asyncio.run(run())


def create_key(arguments: argparse.Namespace) -> int:
    """Make a key or give it a new value."""

    async def run() -> int:
        if arguments.value is not None and not arguments.value.strip():
            raise ConfigurationError("--value is empty; a key needs a value.")
        if not arguments.name.strip():
            raise ConfigurationError("The key's name is empty; a key needs a name.")
        label, scope = _scope(arguments)
        async with open_hub(arguments, create=True) as hub:
            key, new = await make_key(hub.host_state, hub.environment, scope, arguments.name, arguments.value)
        if arguments.json:
            print_json({"scope": label, "name": key.name, "value": key.value, "created": new})
        else:
            sys.stdout.write(f"{key.value}\n")
        return 0

    return asyncio.run(run())


def delete_key(arguments: argparse.Namespace) -> int:
    """Remove a key."""

    async def run() -> int:
        label, scope = _scope(arguments)
        async with open_hub(arguments) as hub:
            if not await remove_key(hub.host_state, hub.environment, scope, arguments.name):
                raise ConfigurationError(f"There is no key {arguments.name!r} in scope {label!r}.")
        if arguments.json:
            print_json({"scope": label, "name": arguments.name, "deleted": True})
        else:
            sys.stdout.write(f"Deleted key '{arguments.name}'.\n")
        return 0

    return asyncio.run(run())


def _scope(arguments: argparse.Namespace) -> tuple[str, KeyScope]:
    if arguments.function is not None:
        return arguments.function, KeyScope.function(arguments.function)
    return ("system", KeyScope.system()) if arguments.system else ("host", KeyScope.host())
