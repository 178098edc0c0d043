"""Routes: templates, constraints, precedence and methods."""

from __future__ import annotations

import pytest

from durable_host.bindings.http_types import AuthLevel, HttpRequest, HttpResponse
from durable_host.bindings.routes import Route, RouteTable, RouteTemplateError, parse_template, route_problem


async def _nothing(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


def _route(function: str, template: str, *methods: str) -> Route:
    return Route(function, methods, template, AuthLevel.FUNCTION, _nothing)


def _values(template: str, path: str) -> dict[str, str] | None:
    table = RouteTable("")
    table.add(_route("f", template))
    found = table.match("GET", path)
    return None if found is None else found.params


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [
        ("Orders", "/orders/", {}),
        ("orders/{id}", "/ORDERS/Ab%20c", {"id": "Ab c"}),
        ("orders/{id}", "/orders/a%2Fb", {"id": "a/b"}),
        ("orders/{id}", "/orders", None),
        ("orders/{id}", "/orders//", None),
        ("orders/{id?}", "/orders", {}),
        ("orders/{id?}", "/orders/1/2", None),
        ("{a=x}/{b=y}", "/", {"a": "x", "b": "y"}),
        ("{a=x}/{b?}", "/q", {"a": "q"}),
        ("files/{*rest}", "/files", {}),
        ("files/{*rest}", "/files/a/b%20c", {"rest": "a/b c"}),
        ("{name}.{kind?}", "/report.tar.gz", {"name": "report.tar", "kind": "gz"}),
        ("{name}.{kind?}", "/report", {"name": "report"}),
        ("{name}.{kind?}", "/report.", None),
        ("v{major:int}-{minor:int}", "/v1-22", {"major": "1", "minor": "22"}),
        ("v{major:int}-{minor:int}", "/v1-x", None),
        ("a{{b}}", "/a{b}", {}),
        ("{id:regex(^[0-9]{{3}}$)}", "/123", {"id": "123"}),
        ("{id:regex(^[0-9]{{3}}$)}", "/1234", None),
        ("{id:int:range(1,9)?}", "/", {}),
        ("{id:int:range(1,9)?}", "/12", None),
        ("{id:int=5}", "/", {"id": "5"}),
    ],
)
def test_template_matches_path(template: str, path: str, expected: dict[str, str] | None) -> None:
    assert _values(template, path) == expected


@pytest.mark.parametrize(
    ("constraint", "good", "bad"),
    [
        ("int", "-12", "2147483648"),
        ("long", "2147483648", "1.5"),
        ("bool", "TRUE", "1"),
        ("datetime", "2025-01-31", "2025-13-31"),
        ("decimal", "1,000.50", "1e5"),
        ("double", "1e5", "x"),
        ("float", ".5", "."),
        ("guid", "{12345678-1234-1234-1234-1234567890ab}", "1234"),
        ("minlength(2)", "ab", "a"),
        ("maxlength(2)", "ab", "abc"),
        ("length(2)", "ab", "a"),
        ("length(2,3)", "abc", "abcd"),
        ("min(3)", "3", "2"),
        ("max(3)", "3", "4"),
        ("alpha", "aB", "a1"),
        ("file", "a.txt", "a"),
        ("nonfile", "a", "a.txt"),
        ("required", "a", ""),
    ],
)
def test_constraint_filters_values(constraint: str, good: str, bad: str) -> None:
    template = f"{{value:{constraint}}}"

    assert _values(template, f"/{good}") == {"value": good}
    assert _values(template, f"/{bad}") is None


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{a:nope}", "the constraint 'nope' does not exist"),
        ("{a:int(3)}", "takes no argument"),
        ("{a:range(3)}", "takes 2 whole number(s)"),
        ("{a:regex(()}", "invalid expression"),
        ("{a}{b}", "separated by a literal"),
        ("{a}/{A}", "appears more than once"),
        ("{*a}/b", "only be the last segment"),
        ("{a", "lacks its closing brace"),
        ("a}", "closes nothing"),
        ("{}", "not a valid parameter name"),
        ("a//b", "two slashes"),
        ("{a?}-{b}", "end of its segment"),
        ("a?b", "cannot contain '?'"),
        ("{a=1?}", "cannot have a default"),
    ],
)
def test_bad_template_is_refused(template: str, problem: str) -> None:
    with pytest.raises(RouteTemplateError) as caught:
        parse_template(template)

    assert problem in str(caught.value)


def test_first_function_by_name_wins_over_a_more_specific_route() -> None:
    table = RouteTable("api")
    table.add(_route("b_special", "items/special"))
    table.add(_route("A_any", "items/{id}"))

    found = table.match("GET", "/api/items/special")

    assert found is not None
    assert found.route.function == "A_any"


def test_other_method_falls_through_to_a_later_function() -> None:
    table = RouteTable("api")
    table.add(_route("a", "items", "get"))
    table.add(_route("b", "items", "POST"))

    found = table.match("post", "/api/items")

    assert found is not None
    assert found.route.function == "b"
    assert table.match("DELETE", "/api/items") is None


def test_unused_optional_parameter_is_none_in_the_values_only() -> None:
    table = RouteTable("")
    table.add(_route("a", "x/{id?}"))

    found = table.match("GET", "/x")

    assert found is not None
    assert (found.params, found.values) == ({}, {"id": None})


def test_removed_route_is_not_found() -> None:
    table = RouteTable()
    route = _route("a", "x")
    table.add(route)

    table.remove(route)

    assert table.match("GET", "/api/x") is None


@pytest.mark.parametrize("template", ["admin/x", "Runtime", "/administer"])
def test_reserved_route_is_refused(template: str) -> None:
    assert route_problem(template) == "The specified route conflicts with one or more built in routes."


def test_request_joins_what_was_repeated_and_drops_what_is_empty() -> None:
    request = HttpRequest.received(
        "post", "http://h/x?a=1&a=2&b=&c=%C3%A9", [("X-A", "1"), ("x-a", "2"), ("Content-Type", "text/plain")], b"{}"
    )

    assert request.method == "POST"
    assert dict(request.params) == {"a": "1,2", "c": "é"}
    assert dict(request.headers) == {"x-a": "1,2", "content-type": "text/plain"}
    assert request.headers["X-A"] == "1,2"
    assert request.get_json() == {}


def test_request_without_json_says_so() -> None:
    with pytest.raises(ValueError, match="HTTP request does not contain valid JSON data"):
        HttpRequest("GET", "http://h/").get_json()


def test_multipart_body_gives_fields_and_files() -> None:
    body = (
        b'--X\r\nContent-Disposition: form-data; name="a"\r\n\r\nh\xc3\xa9\r\n'
        b'--X\r\nContent-Disposition: form-data; name="f"; filename="x.bin"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n\x00\r\n\xff\r\n--X--\r\n"
    )

    request = HttpRequest("POST", "http://h/", headers={"Content-Type": "multipart/form-data; boundary=X"}, body=body)

    assert dict(request.form) == {"a": "hé"}
    assert request.files["f"].filename == "x.bin"
    assert request.files["f"].read() == b"\x00\r\n\xff"


def test_response_keeps_several_cookies() -> None:
    response = HttpResponse("x", headers=[("Set-Cookie", "a=1"), ("set-cookie", "b=2")], status_code=201)

    assert response.headers.getlist("SET-COOKIE") == ["a=1", "b=2"]
    assert response.content_type == "text/plain; charset=utf-8"


def test_response_refuses_other_bodies() -> None:
    with pytest.raises(TypeError, match="got dict"):
        HttpResponse({"a": 1})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
