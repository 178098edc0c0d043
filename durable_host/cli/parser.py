"""The arguments of every command."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from durable_host.model.status import RuntimeStatus

__all__ = ["build_parser", "parse"]

_PARSE_ERROR = 3
_AGO = re.compile(r"(\d+)(s|m|h|d|w)", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(_PARSE_ERROR, f"{self.prog}: error: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; each command sets `run` to `module:function` below `durable_host.cli`."""
    parser = _Parser(
        prog="durable-host",
        description="Durable functions anywhere: a function host with durable orchestrations.",
        epilog="Commands that look at a task hub work on its store, whether a host is running or not.",
        allow_abbrev=False,
    )
    parser.add_argument("-v", "--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _start(commands)
    _init(commands)
    functions = _command(commands, "functions", "functions:show", "list the functions of an app")
    _folder(functions)
    _keys(commands)
    _instances(commands)
    _hub(commands)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *args: object, **kwargs: object) -> NoReturn:
        from durable_host import __version__

        sys.stdout.write(f"durable-host {__version__}\n")
        parser.exit(0)


Commands = Any  # argparse keeps the type of its sub-parsers private


def _command(commands: Commands, name: str, run: str, about: str, **more: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about[0].upper() + about[1:] + ".", allow_abbrev=False, **more
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of our own errors")
    return parser


def _group(commands: Commands, name: str, about: str) -> Commands:
    parser = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".", allow_abbrev=False)
    return parser.add_subparsers(metavar="VERB", required=True)


def _folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("app_dir", metavar="APP_DIR", nargs="?", help="folder of the app, by default the current one")
    parser.add_argument("--app", metavar="APP_DIR", help="the same as an option")


def _store(parser: argparse.ArgumentParser, *, folder: bool = True) -> None:
    if folder:
        _folder(parser)
    else:
        parser.add_argument("--app", metavar="APP_DIR", help="folder of the app, by default the current one")
        parser.set_defaults(app_dir=None)
    parser.add_argument("--storage", metavar="TYPE|URL", help="provider or URL, over what host.json says")
    parser.add_argument("--hub", metavar="NAME", help="task hub, over what host.json says")


def _start(commands: Commands) -> None:
    parser = _command(commands, "start", "start:start", "run the functions of an app")
    _folder(parser)
    parser.add_argument("-p", "--port", type=_port, help="port, by default 7071; 0: any free one")
    parser.add_argument("--host", "--address", metavar="ADDRESS", help="address to listen on, by default 127.0.0.1")
    parser.add_argument("--storage", metavar="TYPE|URL", help="sqlite, memory, or a URL such as sqlite:///path")
    parser.add_argument("--reload", action="store_true", help="start again when a file of the app changes")
    parser.add_argument("--enable-auth", "--enableAuth", action="store_true", help="ask for keys on loopback, too")
    parser.add_argument("--functions", nargs="+", metavar="NAME", help="load only these functions")
    parser.add_argument("--user-log-level", type=_level, metavar="LEVEL", help="least level of what functions log")
    parser.add_argument("--verbose", action="store_true", help="show the host's own messages")
    parser.add_argument("--reload-child", help=argparse.SUPPRESS)


def _init(commands: Commands) -> None:
    parser = _command(commands, "init", "init:init", "write a working app into an empty folder")
    _folder(parser)
    parser.add_argument("--force", action="store_true", help="write into a folder that is not empty; keeps its files")


def _keys(commands: Commands) -> None:
    verbs = _group(commands, "keys", "list and change the keys that HTTP callers need")
    for name, about in (
        ("list", "list keys"),
        ("create", "make a key, or give it a new value"),
        ("delete", "delete a key"),
    ):
        parser = _command(verbs, name, f"keys:{name}_keys" if name == "list" else f"keys:{name}_key", about)
        if name != "list":
            parser.add_argument("name", metavar="NAME", help="name of the key; _master: the master key")
        if name == "create":
            parser.add_argument("--value", help="the key's value; by default a generated one")
        scope = parser.add_mutually_exclusive_group()
        scope.add_argument("--function", metavar="NAME", help="keys of one function")
        scope.add_argument("--system", action="store_true", help="keys of extensions, such as the management API")
        _store(parser)


def _instances(commands: Commands) -> None:
    verbs = _group(commands, "instances", "look at instances and act on them")

    def verb(name: str, about: str, *, many: bool = False) -> argparse.ArgumentParser:
        parser = _command(verbs, name, f"instances:{name}", about)
        if many:
            parser.add_argument("ids", metavar="ID", nargs="*" if name == "purge" else "+", help="ids of instances")
            _store(parser, folder=False)
        return parser

    listing = verb("list", "list instances")
    _store(listing)
    _filters(listing)
    listing.add_argument("--limit", type=_positive, default=50, metavar="N", help="at most this many (default 50)")
    listing.add_argument("--all", action="store_true", help="all, page by page")
    listing.add_argument("--cursor", metavar="TEXT", help="go on where an earlier list stopped")

    for name, about in (
        ("show", "show one instance"),
        ("history", "show the history of one instance"),
        ("terminate", "end an instance"),
        ("suspend", "stop running an instance until it is resumed"),
        ("resume", "go on with a suspended instance"),
        ("rewind", "run the failed calls of a failed instance again"),
        ("restart", "start the same orchestrator with the same input"),
    ):
        parser = verb(name, about)
        parser.add_argument("id", metavar="ID", help="id of the instance")
        if name in ("terminate", "suspend", "resume", "rewind"):
            parser.add_argument("--reason", help="why, for the history")
        if name == "terminate":
            parser.add_argument("--recursive", action="store_true", help="end its open children, too")
        if name == "restart":
            parser.add_argument("--same-id", action="store_true", help="under its own id, in place of the old run")
        _store(parser)

    raising = verb("raise", "raise an event in an instance")
    raising.set_defaults(run="instances:raise_event")
    raising.add_argument("id", metavar="ID", help="id of the instance")
    raising.add_argument("event", metavar="EVENT", help="name of the event")
    raising.add_argument("--data", metavar="JSON|@FILE", help="JSON text, or a file that holds it")
    _store(raising)

    purging = verb("purge", "remove instances that have ended, by id or by filter", many=True)
    _filters(purging)
    purging.add_argument("--force", action="store_true", help="remove instances that have not ended, too")
    purging.add_argument("--yes", action="store_true", help="do not ask")

    verb("release", "let quarantined instances try again", many=True)


def _filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("filters", "all must hold; times: 2026-01-31, 2026-01-31T12:00Z, or 3d (ago)")
    group.add_argument(
        "--status", type=_statuses, action="extend", default=[], metavar="S,…", help="one of these runtime statuses"
    )
    group.add_argument(
        "--name", type=_names, action="extend", default=[], metavar="N,…", help="one of these orchestrators"
    )
    group.add_argument("--prefix", default="", help="the id begins with this")
    group.add_argument("--tag", type=_tag, action="append", default=[], metavar="KEY=VALUE", help="has this tag")
    group.add_argument("--parent", metavar="ID", help="children of this instance")
    for name in ("created", "updated"):
        group.add_argument(f"--{name}-from", type=_instant, metavar="TIME", help=f"{name} not before")
        group.add_argument(f"--{name}-to", type=_instant, metavar="TIME", help=f"{name} not after")


def _hub(commands: Commands) -> None:
    verbs = _group(commands, "hub", "make, remove and look at the task hub")
    for name, about in (
        ("create", "make the task hub, or bring it up to date"),
        ("delete", "remove the task hub and everything in it"),
        ("info", "show what is in the task hub and what waits"),
    ):
        parser = _command(verbs, name, f"hub:{name}", about)
        _store(parser)
        if name == "delete":
            parser.add_argument("--yes", action="store_true", help="do not ask")


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port (0 to 65535)")
    return int(text)


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 100000")
    return int(text)


def _level(text: str) -> str:
    from durable_host.telemetry.logging import LEVELS

    if text.lower() not in LEVELS:
        names = ", ".join(each.capitalize() for each in LEVELS)
        raise argparse.ArgumentTypeError(f"{text!r} is no level ({names})")
    return text.lower()


def _statuses(text: str) -> list[RuntimeStatus]:
    known = {status.value.lower(): status for status in RuntimeStatus}
    for each in _names(text):
        if each.lower() not in known:
            names = ", ".join(sorted(status.value for status in RuntimeStatus))
            raise argparse.ArgumentTypeError(f"{each!r} is no runtime status ({names})")
    return [known[each.lower()] for each in _names(text)]


def _names(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _tag(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is no KEY=VALUE")
    return key, value


def _instant(text: str) -> datetime | timedelta:
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        problem = f"{text!r} is no time such as 2026-01-31, 2026-01-31T12:00Z or 3d (ago)"
        raise argparse.ArgumentTypeError(problem) from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse arguments, for tests and for commands that run other commands."""
    return build_parser().parse_args(argv)
