"""Binding types and who serves them: the built-in ones, and those that installed packages contribute.

Third parties are found through the entry-point group `durable_host.bindings`; they are looked for only when an app uses
a type that is not built in, because reading the metadata of all installed packages costs more than loading an app.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, cast

from durable_host.bindings.contract import BindingError, BindingProvider

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["ENTRY_POINT_GROUP", "BindingRegistry"]

ENTRY_POINT_GROUP = "durable_host.bindings"


def _built_in() -> list[BindingProvider]:
    from durable_host.bindings.durable import DurableBindings
    from durable_host.bindings.http import HttpBindings

    return [HttpBindings(), DurableBindings()]


def _installed() -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # slow to import, rarely needed

    return entry_points(group=ENTRY_POINT_GROUP)


class BindingRegistry:
    """Finds the provider of a binding type.

    Args:
        providers: asked before any others, for apps and tests that bring their own.
        installed: where entry points come from.
    """

    def __init__(
        self,
        providers: Sequence[BindingProvider] = (),
        *,
        installed: Callable[[], Iterable[EntryPoint]] = _installed,
    ) -> None:
        self._installed = installed
        self._searched = False
        self._by_type: dict[str, BindingProvider] = {}
        self._broken: list[str] = []
        for provider in (*providers, *_built_in()):
            self._add(provider)

    def find(self, binding_type: str) -> BindingProvider:
        """The provider of a type; types compare without case.

        Raises:
            BindingError: nobody serves it; the text lists the types that exist.
        """
        found = self._by_type.get(binding_type.lower())
        if found is None and not self._searched:
            self._search()
            found = self._by_type.get(binding_type.lower())
        if found is None:
            broken = "".join(f" {each}" for each in self._broken)
            raise BindingError(
                f"The binding type(s) '{binding_type}' are not registered. Please ensure the type is correct and the "
                f"binding extension is installed. Known types: {', '.join(self.types())}.{broken}"
            )
        return found

    def types(self) -> list[str]:
        """All types, those of installed packages included."""
        if not self._searched:
            self._search()
        return sorted({each for provider in self._by_type.values() for each in provider.types})

    def _add(self, provider: BindingProvider) -> None:
        for each in provider.types:
            self._by_type.setdefault(each.lower(), provider)

    def _search(self) -> None:
        self._searched = True
        for entry in sorted(self._installed(), key=lambda each: each.name):
            try:
                loaded: object = entry.load()
                self._add(cast("BindingProvider", loaded() if callable(loaded) else loaded))
            except Exception as error:  # a broken package must not keep apps from starting that do not need it
                self._broken.append(f"Binding provider '{entry.name}' cannot be loaded: {error!r}.")
