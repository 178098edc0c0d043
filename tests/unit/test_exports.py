"""What `import durable_host` offers, and what it costs."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import durable_host

PROMISED = {
    "AuthLevel",
    "Blueprint",
    "Context",
    "DFApp",
    "DurableOrchestrationClient",
    "DurableOrchestrationContext",
    "FunctionApp",
    "HttpRequest",
    "HttpResponse",
    "RetryOptions",
    "TaskHubClient",
    "TaskHubWorker",
    "__version__",
}


def _typed_names() -> set[str]:
    tree = ast.parse(Path(inspect.getfile(durable_host)).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_promised_names_are_exported() -> None:
    assert set(durable_host.__all__) >= PROMISED


def test_type_checkers_see_the_same_names() -> None:
    assert _typed_names() == set(durable_host.__all__) - {"__version__"}


@pytest.mark.parametrize("name", durable_host.__all__)
def test_exported_name_can_be_loaded(name: str) -> None:
    assert getattr(durable_host, name) is not None
    assert name in dir(durable_host)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        getattr(durable_host, "nope")  # noqa: B009 - type checkers know that it is missing


def test_import_alone_loads_nothing_heavy() -> None:
    code = "import sys, durable_host; print([m for m in ('asyncio', 'aiohttp', 'msgspec') if m in sys.modules])"
    root = Path(inspect.getfile(durable_host)).parent.parent

    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_declaring_an_app_does_not_load_the_server() -> None:
    code = "import sys, durable_host; durable_host.FunctionApp(); print('aiohttp' in sys.modules)"
    root = Path(inspect.getfile(durable_host)).parent.parent

    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
