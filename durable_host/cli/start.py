"""`durable-host start`: run the functions of an app until a signal ends it."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import msgspec

from durable_host.cli.console import complain
from durable_host.cli.context import AppContext, choose, load_context, storage_options
from durable_host.cli.generation import Generation
from durable_host.config.host_json import LoggingOptions
from durable_host.errors import ConfigurationError
from durable_host.telemetry.logging import LEVELS, LevelRules, configure_logging, use_colours

if TYPE_CHECKING:
    from durable_host.host import Host, HostConfig

__all__ = ["address_of", "start"]

logger = logging.getLogger("Host.Startup")

DEFAULT_ADDRESS = "127.0.0.1"
DEFAULT_PORT = 7071

_CI = ("CI", "CONTINUOUS_INTEGRATION", "BUILD_NUMBER", "RUN_ID")


def start(arguments: argparse.Namespace) -> int:
    """Start a host; with `--reload`, one after another."""
    if arguments.reload and arguments.reload_child is None:
        from durable_host.cli.reload import supervise

        return supervise(arguments)
    generation = None if arguments.reload_child is None else Generation.inherited(arguments.reload_child)
    context = load_context(arguments)
    _set_up_logging(arguments, context)
    address, port = address_of(arguments, context)
    hostname = context.settings.get("WEBSITE_HOSTNAME") or ""
    _export(context, port)
    # Imported here: the command line's other verbs need no web server.
    from durable_host.host import HostConfig
    from durable_host.http.server import DEFAULT_BODY_LIMIT, HttpOptions

    choice = choose(context, arguments.storage)
    # Hosts of one app share a hub, two apps must not: the folder tells them apart, unless an id is set.
    identity = context.settings.get("AzureFunctionsWebHost__hostid") or str(context.folder)
    options = storage_options(context, choice, app=identity, worker=True)
    config = HostConfig(
        folder=context.folder,
        host_json=context.host_json,
        settings=context.settings,
        choice=choice,
        storage=options,
        http=HttpOptions(
            host=address,
            port=port,
            enable_auth=arguments.enable_auth,
            hostname=hostname,
            body_limit=_size(context, "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT", DEFAULT_BODY_LIMIT),
            rpc=context.host_json.durable.local_rpc is not False,
        ),
        functions=tuple(arguments.functions) if arguments.functions else context.host_json.functions,
    )
    _say_configuration(context)
    for remark in (*context.remarks, *context.host_json.warnings):
        logger.warning("%s", remark)
    if choice.ignored:
        names = ", ".join(f"storageProvider.{each}" for each in choice.ignored)
        logger.warning("host.json: %s: settings of Azure Storage, without effect on %s.", names, choice.provider.name)
    if generation is not None and choice.provider.name == "memory":
        logger.warning("With memory as storage each reload begins with an empty hub; use sqlite to keep instances.")
    with asyncio.Runner() as runner:
        code = runner.run(_serve(arguments, config, generation))
        _leave_soon(code)
    return code


async def _serve(arguments: argparse.Namespace, config: HostConfig, generation: Generation | None) -> int:
    from durable_host.host import Host

    host = Host(config, sockets=generation.sockets if generation is not None else ())
    signals = _Signals(asyncio.get_running_loop())
    signals.install()
    try:
        if not await _loaded(host, generation):
            return 0  # the supervisor is gone, or wants another version
        signals.graceful = True
        async with host:
            _say_ready(arguments, host)
            if generation is not None:
                generation.ready()
            await _until_told(signals, host, generation)
            if not arguments.json and host.failure is None and generation is None:
                sys.stdout.write("\nStopping. Press Ctrl-C again to exit at once.\n")
                sys.stdout.flush()
    finally:
        signals.no_more_grace()
    if host.failure is not None:
        complain(host.failure)
        return 1
    return 0


async def _loaded(host: Host, generation: Generation | None) -> bool:
    try:
        if generation is None:
            await host.listen()  # first, so that a port in use is known before the app is imported
            host.load()
            return True
        host.load()
        return await generation.loaded()
    except Exception:
        await host.stop()
        raise


class _Signals:
    """SIGINT and SIGTERM: the first one stops the host, the second one ends the process.

    Handlers of the interpreter, not of the event loop: they run although an orchestrator spins on the loop's thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stop = asyncio.Event()
        self.graceful = False
        self._loop = loop
        self._count = 0

    def install(self) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, self._handle)

    def no_more_grace(self) -> None:
        """The host has stopped; whatever still keeps the process is ended by the next signal."""
        self._count = max(self._count, 1)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count > 1:
            os._exit(130 if number == signal.SIGINT else 143)
        if not self.graceful:
            raise KeyboardInterrupt
        self._loop.call_soon_threadsafe(self.stop.set)


async def _until_told(signals: _Signals, host: Host, generation: Generation | None) -> None:
    waits: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(signals.stop.wait()),
        asyncio.ensure_future(host.failed.wait()),
    ]
    if generation is not None:
        waits.append(asyncio.ensure_future(generation.abandoned()))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


def _leave_soon(code: int) -> None:
    # A plain function in a pool cannot be stopped, and the interpreter would wait for its thread.
    timer = threading.Timer(1.0, os._exit, (code,))
    timer.daemon = True
    timer.start()


def address_of(arguments: argparse.Namespace, context: AppContext) -> tuple[str, int]:
    """Address and port: of the command line, else of local.settings.json, else loopback and 7071.

    Raises:
        ConfigurationError: the address is no IP address.
    """
    address = arguments.host or context.local.address or DEFAULT_ADDRESS
    if address != "localhost":
        try:
            ipaddress.ip_address(address.strip("[]"))
        except ValueError:
            raise ConfigurationError(
                f"Invalid --host value '{address}'. Expected an IP address, for example 127.0.0.1 or 0.0.0.0."
            ) from None
    port = arguments.port if arguments.port is not None else context.local.port
    return ("127.0.0.1" if address == "localhost" else address.strip("[]")), DEFAULT_PORT if port is None else port


def _set_up_logging(arguments: argparse.Namespace, context: AppContext) -> None:
    options: LoggingOptions = context.host_json.logging
    chosen = arguments.user_log_level or (context.settings.get("FUNCTIONS_USER_LOG_LEVEL") or "").lower() or None
    if chosen is not None and chosen not in LEVELS:
        raise ConfigurationError(f"FUNCTIONS_USER_LOG_LEVEL is {chosen!r}; it must be one of {', '.join(LEVELS)}.")
    rules = LevelRules(
        default=None if options.default is None else LEVELS[options.default.lower()],
        user=None if chosen is None else LEVELS[chosen],
        categories={name.lower(): LEVELS[level.lower()] for name, level in options.levels.items()},
        verbose=arguments.verbose or any(os.environ.get(name) for name in _CI),
    )
    configure_logging(rules, json=arguments.json, enabled=options.console)


def _say_configuration(context: AppContext) -> None:
    read = context.host_json
    if read.path is None:
        logger.info("No host configuration file found. The defaults hold.")
        return
    logger.info("Reading host configuration file '%s'", read.path)
    if logger.isEnabledFor(logging.INFO):
        # Well-known keys only: others may hold secrets.
        shown = msgspec.json.format(msgspec.json.encode(read.document), indent=2).decode()
        logger.info("Host configuration file read:\n%s", shown)


def _export(context: AppContext, port: int) -> None:
    os.environ.setdefault("AZURE_FUNCTIONS_ENVIRONMENT", "Development")
    os.environ.setdefault("WEBSITE_HOSTNAME", f"localhost:{port}")
    os.environ.update({"AzureWebJobsScriptRoot": str(context.folder), "FUNCTIONS_CORETOOLS_ENVIRONMENT": "True"})


def _size(context: AppContext, name: str, default: int) -> int:
    text = context.settings.get(name)
    if text is None:
        return default
    if not text.strip().isascii() or not text.strip().isdigit() or int(text) < 1:
        raise ConfigurationError(f"{name} is {text!r}; it must be a positive number of bytes.")
    return int(text)


def _say_ready(arguments: argparse.Namespace, host: Host) -> None:
    logger.info("Worker process started and initialized.", extra={"event": "initialized"})
    from durable_host import __version__

    choice = host.config.choice
    kind = choice.provider.name
    storage = kind if host.location in ("", kind) else f"{kind} at {host.location}"
    if arguments.json:
        facts = {
            "event": "started",
            "address": host.server.origin,
            "storage": storage,
            "reason": choice.reason,
            "functions": [each.name for each in host.functions()],
        }
        logger.info("Host started", extra=facts)
        return
    out = sys.stdout
    # Not before the app is loaded: an import error is shown as the user's traceback and nothing else.
    out.write(f"\ndurable-host {__version__}\n\nTask hub {host.config.storage.hub}: {storage} ({choice.reason}).\n")
    functions = [each for each in host.functions() if not each.disabled]
    if functions:
        out.write("\nFunctions:\n\n")
        yellow, reset = ("\033[33m", "\033[0m") if use_colours(out) else ("", "")
        for each in sorted(functions, key=lambda view: view.name.lower()):
            out.write(f"\t{yellow}{each.name}{reset}: {_described(each.bindings, each.route, host.server.port)}\n\n")
    else:
        out.write("\nNo functions were found.\n\n")
    for each in host.functions():
        if each.disabled:
            out.write(f"Function {each.name} is disabled.\n")
    out.write(f"Listening on {host.server.origin}.")
    out.write(" Callers need keys: see `durable-host keys list`.\n" if host.server.demands_keys else "\n")
    if not arguments.verbose:
        out.write("For detailed output, run durable-host with the --verbose flag.\n")
    out.write("\n")
    out.flush()


def _described(bindings: Sequence[Mapping[str, object]], route: str | None, port: int) -> str:
    kinds = [str(each.get("type", "")) for each in bindings]
    if route is None:
        return next((each for each in kinds if each.lower().endswith("trigger")), "no trigger")
    methods: list[str] = []
    for each in bindings:
        declared = each.get("methods")
        if isinstance(declared, (list, tuple)):
            methods += [str(method).upper() for method in cast("Sequence[object]", declared)]
    shown = f"[{','.join(methods)}] " if methods else ""
    return f"{shown}http://localhost:{port}/{route.lstrip('/')}"
