"""Loading an app folder: everything wrong is reported together, with file and line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from durable_host.errors import IndexingError
from durable_host.functions.indexing import LoadedApp, UserImportError, load_app, unload_app

Load = Callable[..., LoadedApp]
HEAD = "from durable_host import Blueprint, Context, FunctionApp, Out\napp = FunctionApp()\n"


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    def write_and_load(code: str, *, name: str = "function_app.py", head: str = HEAD, **options: object) -> LoadedApp:
        (tmp_path / name).write_text(head + dedent(code), encoding="utf-8")
        return load_app(tmp_path, **{"setting": lambda name: None, **options})  # type: ignore[arg-type]

    yield write_and_load
    unload_app(tmp_path)


def _problems(load: Load, code: str, **options: object) -> list[str]:
    with pytest.raises(IndexingError) as caught:
        load(code, **options)
    return list(caught.value.problems)


def test_functions_come_sorted_by_name_with_defaults_filled_in(load: Load) -> None:
    app = load(
        """
        @app.route()
        def b(req): ...

        @app.activity_trigger(input_name="x")
        def A(x): ...
        """
    )

    assert [each.name for each in app.functions] == ["A", "b"]
    assert app.functions[1].trigger.properties == {"authLevel": "FUNCTION", "route": "b"}


def test_all_problems_are_reported_with_file_and_line(load: Load) -> None:
    problems = _problems(
        load,
        """\
        @app.activity_trigger(input_name="missing")
        def a(present): ...

        @app.orchestration_trigger(context_name="ctx")
        def o(context): ...

        @app.route("x")
        @app.activity_trigger(input_name="req")
        def two(req): ...

        @app.function_name("none")
        def none(): ...

        @app.activity_trigger(input_name="x")
        def same(x): ...

        @app.function_name("SAME")
        @app.activity_trigger(input_name="x")
        def other(x): ...
        """,
    )

    text = "\n".join(problems)
    assert "function_app.py:3: function 'a': The binding 'missing' (activityTrigger) has no parameter" in text
    assert "function_app.py:3: function 'a': The parameter 'present' has no binding" in text
    assert "function_app.py:6: function 'o': The binding 'ctx' (orchestrationTrigger) has no parameter" in text
    assert "function_app.py:6: function 'o': The parameter 'context' has no binding" in text
    assert "function_app.py:9: function 'two': Multiple trigger bindings defined." in text
    assert "function_app.py:13: function 'none': No trigger binding specified." in text
    assert "must be unique within the function app; it is also declared at function_app.py:1" in text


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("app.function_name('9')(app.route()(lambda req: None))", "'9' is not a valid function name"),
        ("app.function_name('host')(app.route()(lambda req: None))", "'host' is not a valid function name"),
        ("@app.activity_trigger('a_b')\ndef f(a_b): ...", "The binding name a_b is invalid"),
        ("@app.route('{x:nope}')\ndef f(req): ...", "the constraint 'nope' does not exist"),
        ("@app.route('admin/x')\ndef f(req): ...", "conflicts with one or more built in routes"),
        ("@app.route(methods=['FETCH'])\ndef f(req): ...", "Can not parse str 'FETCH' to HttpMethod"),
        ("@app.route(auth_level='x')\ndef f(req): ...", "Can not parse str 'X' to AuthLevel"),
        ("@app.generic_trigger('g', type='nopeTrigger')\ndef f(g): ...", "'nopeTrigger' are not registered"),
        ("@app.route('%NOPE%')\ndef f(req): ...", "'%NOPE%' does not resolve to a value"),
        ("@app.route()\ndef f(req, context: int): ...", 'The "context" parameter is expected to be of type'),
        ("@app.route()\ndef f(req: Out): ...", "annotated as Out"),
        ("@app.route(binding_arg_name='res')\ndef f(req, res: int): ...", "is an output; annotate its parameter"),
        ("@app.route()\ndef f(req, /): ...", "can be passed by position only"),
        (
            "@app.orchestration_trigger('context')\n@app.durable_client_input('c')\ndef f(context, c): ...",
            "An orchestrator can have no bindings beside its trigger",
        ),
        ("@app.retry('often', 3)\n@app.route()\ndef f(req): ...", "the strategy 'often' does not exist"),
        ("@app.retry('fixed_delay', 3)\n@app.route()\ndef f(req): ...", "Value cannot be null"),
        ("@app.activity_trigger('x')\ndef f(x): yield x", "Only orchestrators yield"),
        ("@app.route()\ndef f(req): yield 'x'", "Only orchestrators yield"),
        ("@app.orchestration_trigger('context')\nasync def f(context): yield", "In an `async def` write `await`"),
        ("@app.activity_trigger('x')\nasync def f(x): yield", "In an `async def` write `await`"),
    ],
)
def test_mistake_is_named(load: Load, code: str, problem: str) -> None:
    assert any(problem in each for each in _problems(load, code))


def test_routes_that_conflict_name_both_functions(load: Load) -> None:
    (problem,) = _problems(
        load,
        """\
        @app.route("Items/", methods=["GET"])
        def a(req): ...
        @app.route("items")
        def b(req): ...
        """,
    )

    assert "function_app.py:5" in problem
    assert "conflicts with the route defined by function 'a' at function_app.py:3" in problem


def test_same_route_under_other_methods_is_fine(load: Load) -> None:
    app = load(
        """
        @app.route("items", methods=["GET"])
        def a(req): ...
        @app.route("items", methods=["POST"])
        def b(req): ...
        """
    )

    assert len(app.functions) == 2


def test_activities_of_one_durable_name_are_refused(load: Load) -> None:
    (problem,) = _problems(
        load,
        """
        @app.activity_trigger("x", activity="Same")
        def a(x): ...
        @app.activity_trigger("x", activity="same")
        def b(x): ...
        """,
    )

    assert "the name 'same' is also that of 'a'" in problem


def test_settings_are_put_into_properties(load: Load) -> None:
    app = load("@app.route('%WHERE%/x')\ndef f(req): ...", setting={"WHERE": "there"}.get)

    assert app.functions[0].trigger.properties["route"] == "there/x"


@pytest.mark.parametrize("name", ["AzureWebJobs.f.Disabled", "AzureWebJobs_f_Disabled"])
def test_setting_disables_a_function(load: Load, name: str) -> None:
    app = load("@app.route()\ndef f(req): ...", setting={name: "True"}.get)

    assert app.functions[0].disabled


def test_allow_list_chooses_functions_and_warns_about_strangers(load: Load) -> None:
    app = load("@app.route()\ndef f(req): ...\n@app.route()\ndef g(req): ...", functions=["F", "nope"])

    assert [each.name for each in app.functions] == ["f"]
    assert "'nope'" in app.warnings[0]


def test_plain_function_with_a_client_is_warned_about(load: Load) -> None:
    app = load("@app.route()\n@app.durable_client_input('client')\ndef f(req, client): ...")

    assert "make the function async" in app.warnings[0]


def test_retry_policy_without_effect_is_warned_about(load: Load) -> None:
    app = load("@app.retry('fixed_delay', 3, '00:00:01')\n@app.route()\ndef f(req): ...")

    assert "the retry policy has no effect" in app.warnings[0]


def test_context_parameter_is_found(load: Load) -> None:
    app = load("@app.route()\nasync def f(req, context: Context): ...")

    assert app.functions[0].context_parameter
    assert app.functions[0].is_async


def test_users_import_error_is_their_traceback_alone(load: Load) -> None:
    with pytest.raises(UserImportError) as caught:
        load("def broken():\n    raise RuntimeError('mine')\nbroken()")

    text = str(caught.value)
    assert text.startswith("Traceback (most recent call last):")
    assert "RuntimeError: mine" in text
    assert "indexing.py" not in text
    assert "importlib" not in text


@pytest.mark.parametrize(
    "decorator",
    ["route", "activity_trigger", "orchestration_trigger", "durable_client_input", "generic_trigger", "function_name"],
)
def test_decorator_without_parentheses_is_refused_where_it_stands(load: Load, decorator: str) -> None:
    with pytest.raises(UserImportError) as caught:
        load(f"@app.{decorator}\ndef forgotten(req): ...")

    lines = str(caught.value).splitlines()
    assert lines[1].strip().startswith('File "') and lines[1].endswith('function_app.py", line 3, in <module>')
    assert lines[-1].startswith("TypeError: ")
    assert not any("decorators.py" in line or "inspect.py" in line for line in lines)


def test_frames_of_the_user_below_ours_stay(load: Load) -> None:
    with pytest.raises(UserImportError) as caught:
        load(
            """
            class Level(str):
                def upper(self):
                    raise RuntimeError("deep inside")

            FunctionApp(http_auth_level=Level("anonymous"))
            """
        )

    text = str(caught.value)
    assert text.count("function_app.py") == 2 and "in upper" in text


def test_syntax_error_shows_the_line_and_no_frames_of_ours(load: Load) -> None:
    with pytest.raises(UserImportError) as caught:
        load("def broken(:")

    text = str(caught.value)
    assert "function_app.py" in text
    assert "SyntaxError" in text
    assert "indexing.py" not in text


def test_missing_module_gets_a_hint(load: Load) -> None:
    with pytest.raises(UserImportError, match=r"Cannot find module 'no_such_module'.*requirements\.txt"):
        load("import no_such_module")


def test_end_of_the_process_in_a_script_is_an_import_error(load: Load) -> None:
    with pytest.raises(UserImportError, match="SystemExit: 3"):
        load("raise SystemExit(3)")


def test_azure_import_says_what_to_change(load: Load) -> None:
    with pytest.raises(UserImportError, match="change the imports to durable_host"):
        load("import azure.functions_that_is_not_installed")


def test_two_apps_are_refused(load: Load) -> None:
    (problem,) = _problems(load, "other = FunctionApp()")

    assert "More than one FunctionApp" in problem
    assert "app, other" in problem


def test_no_app_is_refused_and_a_lone_blueprint_explained(load: Load) -> None:
    (problem,) = _problems(load, "from durable_host import Blueprint\nbp = Blueprint()", head="")

    assert "Could not find top level function app instances" in problem
    assert "app.register_functions(bp)" in problem


def test_foreign_app_object_is_named(load: Load) -> None:
    (problem,) = _problems(
        load,
        """
        class Foreign:
            def get_functions(self): ...
        Foreign.__module__ = "azure.functions.decorators.function_app"
        theirs = Foreign()
        """,
        head="",
    )

    assert "'theirs' is an app of azure.functions" in problem


def test_function_json_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "Old").mkdir()
    (tmp_path / "Old" / "function.json").write_text("{}")

    with pytest.raises(IndexingError, match=r"found function\.json in Old"):
        load_app(tmp_path)


def test_empty_folder_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(IndexingError, match="durable-host init"):
        load_app(tmp_path)


def test_other_script_name_is_taken_from_the_setting(load: Load) -> None:
    app = load(
        "@app.route()\ndef f(req): ...", name="main-app.py", setting={"PYTHON_SCRIPT_FILE_NAME": "main-app.py"}.get
    )

    assert app.script.name == "main-app.py"


def test_bad_script_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IndexingError, match="script file name"):
        load_app(tmp_path, script="../x.py")


def test_helper_modules_are_imported_anew(load: Load, tmp_path: Path) -> None:
    (tmp_path / "helper_of_app.py").write_text("NAME = 'first'")
    load("from helper_of_app import NAME\n@app.function_name(NAME)\n@app.route()\ndef f(req): ...")
    (tmp_path / "helper_of_app.py").write_text("NAME = 'second_time'")

    app = load("from helper_of_app import NAME\n@app.function_name(NAME)\n@app.route()\ndef f(req): ...")

    assert app.functions[0].name == "second_time"
