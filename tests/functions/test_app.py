"""FunctionApp, Blueprint and the decorators made from the table."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from durable_host.bindings.http_types import AuthLevel, HttpRequest
from durable_host.functions import decorators
from durable_host.functions.app import Blueprint, DFApp, FunctionApp
from durable_host.functions.decorators import TABLE, DecoratorApi
from durable_host.functions.descriptor import FunctionBuilder
from durable_host.model.names import function_name


def _only(app: FunctionApp) -> FunctionBuilder:
    (found,) = app.builders()
    return found[0]


def _stubs() -> dict[str, ast.FunctionDef]:
    tree = ast.parse(Path(inspect.getfile(decorators)).read_text(encoding="utf-8"))
    api = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "DecoratorApi")
    block = next(node for node in api.body if isinstance(node, ast.If))
    return {node.name: node for node in block.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", sorted(TABLE))
def test_stub_and_generated_decorator_agree(name: str) -> None:
    stub = _stubs()[name].args
    generated = inspect.signature(getattr(DecoratorApi, name)).parameters

    names = [each.arg for each in stub.args] + ([stub.kwarg.arg] if stub.kwarg else [])
    defaults = [ast.literal_eval(each) for each in stub.defaults]
    assert names == list(generated)
    assert defaults == [each.default for each in generated.values() if each.default is not inspect.Parameter.empty]


def test_every_stub_has_a_row() -> None:
    assert set(_stubs()) == set(TABLE)


def test_decorated_function_stays_the_users_own() -> None:
    app = FunctionApp()

    def greet(name: str) -> str:
        return f"Hello {name}!"

    assert app.activity_trigger(input_name="name")(greet) is greet
    assert greet("Tokyo") == "Hello Tokyo!"


def test_order_of_decorators_does_not_matter() -> None:
    def decorate(*decorators: Callable[[FunctionApp], Callable[[Any], Any]]) -> FunctionBuilder:
        app = FunctionApp()

        async def start(req: object, client: object) -> None: ...

        for each in decorators:
            each(app)(start)
        return _only(app)

    first = decorate(
        lambda app: app.durable_client_input("client"), lambda app: app.route("a"), lambda app: app.function_name("X")
    )
    second = decorate(
        lambda app: app.function_name("X"), lambda app: app.route("a"), lambda app: app.durable_client_input("client")
    )

    assert first.name == second.name == "X"
    assert {each.type for each in first.bindings} == {each.type for each in second.bindings}


def test_wrapper_between_decorators_is_the_same_function() -> None:
    app = FunctionApp()

    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        async def wrapper(**kwargs: Any) -> Any:
            return await function(**kwargs)

        return wrapper

    @app.route("a")
    @logged
    @app.durable_client_input("client")
    async def start(req: object, client: object) -> None: ...

    builder = _only(app)
    assert builder.target is start
    assert len(builder.bindings) == 3


def test_function_is_called_by_its_registered_name() -> None:
    app = FunctionApp()

    @app.function_name("Hello")
    @app.activity_trigger(input_name="name")
    def hello(name: str) -> None: ...

    @app.orchestration_trigger(context_name="context", orchestration="Chain")
    def chain(context: object) -> None: ...

    assert function_name(hello) == "Hello"
    assert function_name(chain) == "Chain"


def test_route_declares_trigger_and_output() -> None:
    app = FunctionApp()

    @app.route("start/{name}", methods=["post", "GET"], auth_level=AuthLevel.ANONYMOUS)
    def start(req: object) -> None: ...

    trigger, output = _only(app).bindings
    assert (trigger.type, trigger.name, trigger.direction) == ("httpTrigger", "req", "in")
    assert dict(trigger.properties) == {"methods": ["POST", "GET"], "authLevel": "ANONYMOUS", "route": "start/{name}"}
    assert (output.type, output.name, output.direction) == ("http", "$return", "out")


def test_generic_binding_keeps_further_properties_in_camel_case() -> None:
    app = FunctionApp()

    @app.generic_trigger("g", type="customTrigger", data_type="string", foo_bar=1, baz=[1])
    def run(g: object) -> None: ...

    (binding,) = _only(app).bindings
    assert (binding.type, dict(binding.properties)) == (
        "customTrigger",
        {"dataType": "STRING", "fooBar": 1, "baz": [1]},
    )


def test_blueprint_brings_its_functions_even_those_declared_later() -> None:
    app = DFApp(http_auth_level="anonymous")
    blueprint = Blueprint()
    app.register_blueprint(blueprint)

    @blueprint.route("a")
    def late(req: object) -> None: ...

    ((builder, level),) = app.builders()
    assert builder.name == "late"
    assert level is AuthLevel.ANONYMOUS


def test_blueprint_registered_twice_brings_its_functions_once() -> None:
    app, blueprint = FunctionApp(), Blueprint()

    @blueprint.route("x")
    def f(req: HttpRequest) -> str:
        return ""

    app.register_functions(blueprint)
    app.register_functions(blueprint)

    assert len(app.builders()) == 1


def test_blueprint_may_have_a_level_of_its_own() -> None:
    app = FunctionApp()
    blueprint = Blueprint(http_auth_level=AuthLevel.ADMIN)
    app.register_functions(blueprint)

    @blueprint.route("a")
    def f(req: object) -> None: ...

    assert app.builders()[0][1] is AuthLevel.ADMIN


def test_app_cannot_be_registered_in_an_app() -> None:
    with pytest.raises(TypeError, match="functions can not be type of FunctionRegister!"):
        FunctionApp().register_functions(FunctionApp())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_unknown_level_names_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"Can not parse str 'x' to AuthLevel.*ANONYMOUS"):
        FunctionApp(http_auth_level="x")


def test_class_cannot_be_decorated() -> None:
    with pytest.raises(TypeError, match="Unsupported type for function app decorator found"):
        FunctionApp().activity_trigger("x")(int)
