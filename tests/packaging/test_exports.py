"""What a module offers is listed in its `__all__`, and nothing else is."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

import durable_host
import durable_host_providers


def _modules() -> list[str]:
    names = [
        found.name
        for package in (durable_host, durable_host_providers)
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    return ["durable_host", *names]


MODULES = _modules()


def _has_code(module: ModuleType) -> bool:
    assert module.__file__ is not None
    with open(module.__file__, encoding="utf-8") as source:
        return bool(source.read().strip())


@pytest.mark.parametrize("name", MODULES)
def test_module_lists_what_it_offers(name: str) -> None:
    module = importlib.import_module(name)
    if not _has_code(module):
        return

    exported = module.__all__

    assert len(exported) == len(set(exported)), "a name is listed twice"
    assert [each for each in exported if not hasattr(module, each)] == []


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_defines_is_listed_or_private(name: str) -> None:
    module = importlib.import_module(name)
    defined = {
        each
        for each, value in vars(module).items()
        if not each.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == name
        and value.__qualname__ == each
    }

    assert defined - set(getattr(module, "__all__", ())) == set()
