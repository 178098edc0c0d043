"""The command line: `durable-host` and `python -m durable_host`.

Exit codes: 0 success, 1 something is wrong and has been said, 3 the command line cannot be parsed, 130 interrupted.
A mistake of the user's is told in a sentence, never with a traceback; one in their code is told with theirs alone.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code.

    Args:
        argv: arguments without the program's name; None: those of the process.

    Raises:
        SystemExit: help, version, or arguments that cannot be parsed (code 3).
    """
    from durable_host.cli.parser import build_parser

    arguments = build_parser().parse_args(argv)
    module, _, function = arguments.run.partition(":")
    command: Callable[..., int] = getattr(importlib.import_module(f"durable_host.cli.{module}"), function)
    try:
        code = command(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough; Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        from durable_host.cli.console import report_error

        return report_error(error, as_json=arguments.json, debug=arguments.debug)
