"""`durable-host functions`: what an app declares, without starting it."""

from __future__ import annotations

import argparse
import sys

from durable_host.cli.console import complain, note, print_json, print_table
from durable_host.cli.context import load_context
from durable_host.functions.descriptor import FunctionDescriptor
from durable_host.functions.indexing import load_app
from durable_host.functions.runtime import FunctionDescription, describe

__all__ = ["show"]


def show(arguments: argparse.Namespace) -> int:
    """List the functions of an app; problems are those that `start` would report."""
    context = load_context(arguments)
    app = load_app(context.folder, setting=context.settings.get, functions=context.host_json.functions)
    for warning in (*context.remarks, *context.host_json.warnings, *app.warnings):
        complain(warning, warning=True)
    prefix = context.host_json.http.route_prefix
    rows = [(describe(each, app, prefix), each) for each in app.functions]
    if arguments.json:
        print_json({"functions": [_entry(*row) for row in rows]})
    elif rows:
        print_table(
            ["NAME", "TRIGGER", "ROUTE", "WHERE"],
            [
                [
                    shown.name,
                    f"{shown.trigger}, disabled" if shown.disabled else shown.trigger,
                    " ".join(filter(None, [",".join(shown.methods), f"/{shown.route}" if shown.route else ""])),
                    f"{shown.script_file if same else each.info.file}:{each.info.line}",
                ]
                for shown, each in rows
                for same in [each.info.file == str(app.script)]
            ],
        )
    else:
        note("The app declares no functions.")
    sys.stdout.flush()
    return 0


def _entry(shown: FunctionDescription, function: FunctionDescriptor) -> dict[str, object]:
    level = function.trigger.text("authLevel")
    return {
        "name": shown.name,
        "trigger": shown.trigger,
        "route": None if shown.route is None else f"/{shown.route}",
        "methods": list(shown.methods) or None,
        "authLevel": None if level is None else level.lower(),
        "disabled": shown.disabled,
        "file": function.info.file,
        "line": function.info.line,
    }
