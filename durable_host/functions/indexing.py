"""From an app folder to checked functions: import `function_app.py`, find the app, check everything it declares.

All problems are reported together, each with file and line. An error of the user's own code while it is imported is
theirs: it is shown as their traceback and nothing else. Source: functions-host.md section 2.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, TracebackType

from durable_host.bindings.contract import BindingDescriptor, BindingError, FunctionInfo
from durable_host.bindings.http import http_route
from durable_host.bindings.http_types import AuthLevel
from durable_host.bindings.registry import BindingRegistry
from durable_host.bindings.routes import normalized_route
from durable_host.config.settings import resolve_percent
from durable_host.errors import IndexingError
from durable_host.functions.app import Blueprint, FunctionApp
from durable_host.functions.descriptor import Declaration, FunctionBuilder, FunctionDescriptor, source_of
from durable_host.functions.signatures import annotations_of, check_function, takes_context
from durable_host.functions.tracebacks import user_traceback

__all__ = ["DEFAULT_SCRIPT", "LoadedApp", "UserImportError", "index_app", "load_app", "unload_app"]

DEFAULT_SCRIPT = "function_app.py"
_SCRIPT = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_\-]*\.py\Z")
_HTTP = "httptrigger"
_NO_RETRY = (_HTTP, "orchestrationtrigger", "activitytrigger")


class UserImportError(IndexingError):
    """The app's own code failed while it was imported.

    The text is the user's traceback, from their first frame on, and a hint where there is one.

    Attributes:
        error: what was raised.
        hint: what to do about it, or None.
    """

    def __init__(self, error: BaseException, hint: str | None = None) -> None:
        self.error = error
        self.hint = hint
        error.__traceback__ = user_traceback(_user_frames(error.__traceback__))
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip("\n")
        super().__init__([text if hint is None else f"{text}\n\n{hint}"])


@dataclass(frozen=True, slots=True)
class LoadedApp:
    """An app whose functions passed all checks.

    Attributes:
        script: the file, such as `/app/function_app.py`.
        functions: by name, without regard to case; those switched off included.
        warnings: sentences for the log.
    """

    app: FunctionApp
    folder: Path
    script: Path
    functions: Sequence[FunctionDescriptor]
    warnings: Sequence[str] = ()


def load_app(
    folder: Path,
    *,
    script: str | None = None,
    setting: Callable[[str], str | None] = os.environ.get,
    functions: Sequence[str] | None = None,
    bindings: BindingRegistry | None = None,
) -> LoadedApp:
    """Import an app and check its functions.

    Modules of the folder that an earlier call imported are imported anew.

    Args:
        folder: becomes the first entry of `sys.path`.
        script: file name; the setting `PYTHON_SCRIPT_FILE_NAME`, else `function_app.py`, if None.
        setting: looks up app settings: `%NAME%` in binding properties, `AzureWebJobs.<function>.Disabled`.
        functions: names of the functions to load, from `functions` in host.json; None: all.

    Raises:
        UserImportError: the app's own code failed.
        IndexingError: there is no app, or its functions have problems; all of them are listed.
    """
    folder = folder.resolve()
    name = script or setting("PYTHON_SCRIPT_FILE_NAME") or DEFAULT_SCRIPT
    if not _SCRIPT.match(name):
        raise IndexingError(
            f"The script file name {name!r} is not valid: letters, digits, '_' and '-', ending in '.py' "
            "(setting PYTHON_SCRIPT_FILE_NAME)."
        )
    path = folder / name
    if not path.is_file():
        raise IndexingError(_nothing_found(folder, name))
    app = _find_app(_import(folder, path.stem), name)
    loaded = index_app(app, path, setting=setting, functions=functions, bindings=bindings)
    legacy = _legacy_folders(folder)
    if not legacy:
        return loaded
    warning = (
        f"Folders with a function.json are ignored beside {name}: {', '.join(legacy)}. Declare them with decorators."
    )
    return replace(loaded, warnings=(*loaded.warnings, warning))


def index_app(
    app: FunctionApp,
    script: Path,
    *,
    setting: Callable[[str], str | None] = os.environ.get,
    functions: Sequence[str] | None = None,
    bindings: BindingRegistry | None = None,
) -> LoadedApp:
    """Check the functions of an app that is already imported; arguments as `load_app`.

    Raises:
        IndexingError: its functions have problems; all of them are listed.
    """
    indexer = _Indexer(script.parent, setting, bindings or BindingRegistry())
    found = indexer.index(app, functions)
    if indexer.problems:
        raise IndexingError(indexer.problems)
    return LoadedApp(app, script.parent, script, tuple(found), tuple(indexer.warnings))


def unload_app(folder: Path) -> None:
    """Forget the modules imported from an app folder, and take it off `sys.path`."""
    folder = folder.resolve()
    _forget_modules(folder)
    with suppress(ValueError):
        sys.path.remove(str(folder))


# Importing.


def _import(folder: Path, stem: str) -> ModuleType:
    _forget_modules(folder)
    # Another app's module of the same name must not be taken for this one.
    sys.modules.pop(stem, None)
    entry = str(folder)
    if sys.path[:1] != [entry]:
        with suppress(ValueError):
            sys.path.remove(entry)
        sys.path.insert(0, entry)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(stem)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as error:
        raise UserImportError(error, _missing_module(error)) from None
    except BaseException as error:  # SystemExit included: a script that ends the process must not end the host silently
        raise UserImportError(error) from None


def _forget_modules(folder: Path) -> None:
    root = str(folder) + os.sep
    site = os.sep + "site-packages" + os.sep
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        # A virtual environment inside the app folder holds packages, which stay.
        if name != "__main__" and file and file.startswith(root) and site not in file[len(root) - 1 :]:
            del sys.modules[name]


def _missing_module(error: ModuleNotFoundError) -> str:
    name = error.name or ""
    if name == "azure" or name.startswith(("azure.functions", "azure.durable_functions")):
        return (
            "Apps written with azure.functions or azure.durable_functions do not run unchanged yet. The names are the "
            "same here: change the imports to durable_host, for example `from durable_host import FunctionApp`."
        )
    return (
        f"Cannot find module {name!r}. Please check the requirements.txt file for the missing module and install it "
        f"into this environment. Current sys.path: {sys.path}"
    )


def _user_frames(found: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is neither this module's nor the import system's."""
    first = found
    while found is not None:
        file = found.tb_frame.f_code.co_filename
        if file != __file__ and not file.startswith("<frozen importlib") and file != importlib.__file__:
            return found
        found = found.tb_next
    # Only the import system: a syntax error, whose place is part of the exception.
    return None if first is not None else first


# Finding the app.


def _find_app(module: ModuleType, script: str) -> FunctionApp:
    found = {name: value for name, value in vars(module).items() if isinstance(value, FunctionApp)}
    if len(found) > 1:
        raise IndexingError(
            f"{script}: More than one FunctionApp or other top level function app instances are defined: "
            f"{', '.join(found)}. Keep one; declare the other functions on a Blueprint and register it."
        )
    if found:
        return next(iter(found.values()))
    problem = f"Could not find top level function app instances in {script}."
    foreign = sorted(
        name
        for name, value in vars(module).items()
        if type(value).__module__.startswith("azure.") and hasattr(value, "get_functions")
    )
    blueprints = sorted(name for name, value in vars(module).items() if isinstance(value, Blueprint))
    if foreign:
        problem += (
            f" {', '.join(map(repr, foreign))} is an app of azure.functions, which cannot be run unchanged yet: import "
            "FunctionApp from durable_host instead; decorators and context have the same names."
        )
    elif blueprints:
        problem += (
            f" {', '.join(map(repr, blueprints))} is a Blueprint: add `app = FunctionApp()` and "
            f"`app.register_functions({blueprints[0]})`."
        )
    else:
        problem += " Add `app = FunctionApp()` and declare functions with its decorators."
    raise IndexingError(problem)


def _legacy_folders(folder: Path) -> list[str]:
    return sorted(each.parent.name for each in folder.glob("*/function.json"))


def _nothing_found(folder: Path, script: str) -> str:
    legacy = _legacy_folders(folder)
    if legacy:
        return (
            f"{folder}: found function.json in {', '.join(legacy)}, but no {script}. Functions declared by "
            f"function.json are not supported yet; declare them with decorators in {script}."
        )
    return (
        f"{folder}: there is no {script}, so there are no functions. `durable-host init` writes a working one; "
        "the setting PYTHON_SCRIPT_FILE_NAME names another file."
    )


# Checking.


class _Indexer:
    def __init__(self, folder: Path, setting: Callable[[str], str | None], bindings: BindingRegistry) -> None:
        self._folder = folder
        self._setting = setting
        self._bindings = bindings
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def index(self, app: FunctionApp, allow: Sequence[str] | None) -> list[FunctionDescriptor]:
        builders = sorted(app.builders(), key=lambda each: (each[0].name.lower(), each[0].name))
        if allow is not None:
            wanted = {name.lower() for name in allow}
            known = {builder.name.lower() for builder, _ in builders}
            for name in sorted(name for name in allow if name.lower() not in known):
                self.warnings.append(f"host.json: functions names {name!r}, which the app does not declare.")
            builders = [each for each in builders if each[0].name.lower() in wanted]
        self._check_names([builder for builder, _ in builders])
        functions: list[FunctionDescriptor] = []
        for builder, level in builders:
            sentences = list(check_function(builder))
            descriptor = None if sentences else self._describe(builder, level, sentences)
            self.problems += [f"{self._where(builder)}: {each}" for each in sentences]
            if descriptor is not None:
                functions.append(descriptor)
                self._warn(builder, descriptor)
        self._check_durable_names(functions)
        self._check_routes(functions)
        return functions

    def _describe(self, builder: FunctionBuilder, level: AuthLevel, problems: list[str]) -> FunctionDescriptor | None:
        file, line = source_of(builder.target)
        info = FunctionInfo(
            builder.name, builder.target, file, line, self._is_disabled(builder.name), builder.input_type
        )
        hints = annotations_of(builder.target)
        bindings: list[BindingDescriptor] = []
        for each in builder.bindings:
            try:
                self._bindings.find(each.type)
                bindings.append(self._binding(each, info, level, hints))
            except (BindingError, ValueError) as error:
                problems.append(f"Unable to configure binding '{each.name}' of type '{each.type}'. {error}")
        if problems:
            return None
        bindings.sort(key=lambda each: not each.is_trigger)
        return FunctionDescriptor(
            info,
            builder.durable_name,
            tuple(bindings),
            builder.retry,
            takes_context(builder),
            inspect.iscoroutinefunction(inspect.unwrap(builder.target)) or inspect.iscoroutinefunction(builder.target),
        )

    def _binding(
        self, declared: Declaration, info: FunctionInfo, level: AuthLevel, hints: dict[str, object]
    ) -> BindingDescriptor:
        properties = dict(declared.properties)
        if declared.type.lower() == _HTTP:
            properties.setdefault("authLevel", level.name)
            properties.setdefault("route", info.name)
        for name, value in properties.items():
            # A property that is the name of a setting is looked up by its provider, not replaced.
            if isinstance(value, str) and "%" in value and name not in ("connection", "connectionName"):
                properties[name] = resolve_percent(value, self._setting)
        annotation = hints.get("return" if declared.name == "$return" else declared.name)
        descriptor = BindingDescriptor(declared.name, declared.type, declared.direction, info, properties, annotation)
        if declared.type.lower() == _HTTP:
            http_route(descriptor)
        return descriptor

    def _is_disabled(self, name: str) -> bool:
        value = self._setting(f"AzureWebJobs.{name}.Disabled") or self._setting(f"AzureWebJobs_{name}_Disabled")
        return (value or "").strip().lower() in ("1", "true")

    def _warn(self, builder: FunctionBuilder, descriptor: FunctionDescriptor) -> None:
        if builder.retry is not None and descriptor.trigger.type.lower() in _NO_RETRY:
            self.warnings.append(
                f"{self._where(builder)}: the retry policy has no effect: {descriptor.trigger.type} is not retried. "
                "In orchestrators use call_activity_with_retry."
            )
        client = next((each for each in descriptor.inputs if each.type.lower() == "durableclient"), None)
        if client is not None and not descriptor.is_async:
            self.warnings.append(
                f"{self._where(builder)}: the client '{client.name}' can only be awaited; make the function async."
            )

    def _check_names(self, builders: Sequence[FunctionBuilder]) -> None:
        seen: dict[str, FunctionBuilder] = {}
        for builder in builders:
            first = seen.setdefault(builder.name.lower(), builder)
            if first is not builder:
                self.problems.append(
                    f"{self._where(builder)}: The function or proxy name '{builder.name}' must be unique within the "
                    f"function app; it is also declared at {self._place(first)}."
                )

    def _check_durable_names(self, functions: Sequence[FunctionDescriptor]) -> None:
        seen: dict[tuple[str, str], FunctionDescriptor] = {}
        for function in functions:
            kind = function.trigger.type.lower()
            if kind not in ("orchestrationtrigger", "activitytrigger"):
                continue
            first = seen.setdefault((kind, function.durable_name.lower()), function)
            if first is not function and first.name.lower() != function.name.lower():
                self.problems.append(
                    f"{self._where(function)}: the name '{function.durable_name}' is also that of '{first.name}' at "
                    f"{self._place(first)}; orchestrators could not tell them apart."
                )

    def _check_routes(self, functions: Sequence[FunctionDescriptor]) -> None:
        seen: list[tuple[str, frozenset[str], FunctionDescriptor]] = []
        for function in functions:
            if function.trigger.type.lower() != _HTTP:
                continue
            template, methods, _ = http_route(function.trigger)
            route, own = normalized_route(template), frozenset(methods)
            for other_route, other, first in seen:
                if route == other_route and (not own or not other or own & other):
                    self.problems.append(
                        f"{self._where(function)}: The route specified conflicts with the route defined by function "
                        f"'{first.name}' at {self._place(first)}: {template!r}."
                    )
            seen.append((route, own, function))

    def _where(self, function: FunctionBuilder | FunctionDescriptor) -> str:
        return f"{self._place(function)}: function '{function.name}'"

    def _place(self, function: FunctionBuilder | FunctionDescriptor) -> str:
        file, line = source_of(function.target)
        if not file:
            return "<unknown>"
        path = Path(file)
        with suppress(ValueError):
            path = path.relative_to(self._folder)
        return f"{path}:{line}"
