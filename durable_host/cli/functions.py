"""`durable-host functions`: what an app declares, without starting it."""

from __future__ import annotations

import argparse
import sys

from durable_host.cli.console import complain, note, print_json, print_table
from durable_host.cli.context import load_context
from durable_host.functions.descriptor import FunctionDescriptor
from durable_host.functions.indexing import load_app

__all__ = ["show"]


def show(arguments: argparse.Namespace) -> int:
    """List the functions of an app; problems are those that `start` would report."""
    context = load_context(arguments)
    app = load_app(context.folder, setting=context.settings.get, functions=context.host_json.functions)
    for warning in (*context.remarks, *context.host_json.warnings, *app.warnings):
        complain(warning, warning=True)
    prefix = context.host_json.http.route_prefix
    rows = [_row(each, prefix) for each in app.functions]
    if arguments.json:
        keys = ("name", "trigger", "route", "methods", "authLevel", "disabled", "file", "line")
        print_json({"functions": [dict(zip(keys, row, strict=True)) for row in rows]})
    elif rows:
        print_table(
            ["NAME", "TRIGGER", "ROUTE", "WHERE"],
            [
                [
                    str(row[0]),
                    f"{row[1]}, disabled" if row[5] else str(row[1]),
                    " ".join(filter(None, [",".join(row[3]) if isinstance(row[3], list) else "", str(row[2] or "")])),
                    _where(row[6], row[7], str(context.folder)),
                ]
                for row in rows
            ],
        )
    else:
        note("The app declares no functions.")
    sys.stdout.flush()
    return 0


def _row(function: FunctionDescriptor, prefix: str) -> list[object]:
    trigger = function.trigger
    route: str | None = None
    methods: list[str] | None = None
    if trigger.type.lower() == "httptrigger":
        template = (trigger.text("route") or function.name).strip("/")
        route = "/" + "/".join(part for part in (prefix, template) if part)
        declared = trigger.properties.get("methods")
        methods = [str(each).upper() for each in declared] if isinstance(declared, (list, tuple)) else None
    level = trigger.text("authLevel")
    return [
        function.name,
        trigger.type,
        route,
        methods,
        level.lower() if level is not None else None,
        function.info.disabled,
        function.info.file,
        function.info.line,
    ]


def _where(file: object, line: object, folder: str) -> str:
    path = str(file)
    return f"{path.removeprefix(folder).lstrip('/')}:{line}"
