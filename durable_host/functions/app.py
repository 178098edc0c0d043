"""FunctionApp and Blueprint: where an app's functions are declared."""

from __future__ import annotations

from durable_host.bindings.http_types import AuthLevel
from durable_host.functions.decorators import DecoratorApi
from durable_host.functions.descriptor import FunctionBuilder

__all__ = ["Blueprint", "DFApp", "FunctionApp"]


def _level(level: AuthLevel | str) -> AuthLevel:
    if isinstance(level, AuthLevel):
        return level
    try:
        return AuthLevel[level.upper()]
    except KeyError:
        names = [each.name for each in AuthLevel]
        raise ValueError(f"Can not parse str '{level}' to AuthLevel. Allowed values are {names}") from None


class Blueprint(DecoratorApi):
    """Functions declared apart from the app, for example in a module of their own.

    They belong to the app once it has called `register_functions` with this blueprint.

    Args:
        http_auth_level: for routes of this blueprint that name none; the app's if None.
    """

    def __init__(self, http_auth_level: AuthLevel | str | None = None) -> None:
        super().__init__()
        self.auth_level = None if http_auth_level is None else _level(http_auth_level)


class FunctionApp(DecoratorApi):
    """An app: the object that the host looks for in `function_app.py`. There is exactly one, under any name.

    Args:
        http_auth_level: for routes that name none.
    """

    def __init__(self, http_auth_level: AuthLevel | str = AuthLevel.FUNCTION) -> None:
        super().__init__()
        self.auth_level = _level(http_auth_level)
        self._blueprints: list[Blueprint] = []

    def register_functions(self, function_container: Blueprint) -> None:
        """Take over the functions of a blueprint, those declared on it later included. A second time changes nothing.

        Raises:
            TypeError: it is an app, or no blueprint at all.
        """
        if isinstance(function_container, FunctionApp):
            raise TypeError("functions can not be type of FunctionRegister! Register a Blueprint, not another app.")
        if not isinstance(function_container, Blueprint):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"register_functions takes a Blueprint of durable_host, not {function_container!r}")
        if function_container not in self._blueprints:
            self._blueprints.append(function_container)

    register_blueprint = register_functions

    def builders(self) -> list[tuple[FunctionBuilder, AuthLevel]]:
        """Everything declared so far, with the level for routes that name none; for the host."""
        found = [(builder, self.auth_level) for builder in self._builders]
        for blueprint in self._blueprints:
            level = blueprint.auth_level or self.auth_level
            found += [(builder, level) for builder in blueprint._builders]  # pyright: ignore[reportPrivateUsage]
        return found


DFApp = FunctionApp
"""Azure's name for an app with durable functions; every app of ours is one."""
