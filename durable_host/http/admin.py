"""The admin API, as far as it means something here (http-api.md 17, functions-host.md 10): host, functions, keys.

Everything but `ping` needs the master key where keys are demanded; the site checks that before it calls.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from urllib.parse import quote, unquote

import msgspec

from durable_host.http.background import Background
from durable_host.http.control import FunctionView, HostControl
from durable_host.http.errors import first_form
from durable_host.http.key_api import KeyApi
from durable_host.http.keys import KeyRing, KeyScope
from durable_host.http.messages import NOT_FOUND, Answer, Request, empty, json_answer, text_answer

__all__ = ["AdminApi"]

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_HOST_SCOPES = {
    "keys": KeyScope.host(),
    "functionkeys": KeyScope.host(),
    "systemkeys": KeyScope.system(),
}


class _Invocation(msgspec.Struct):
    input: str | None = None


class AdminApi:
    """Answers what is below `/admin`.

    Args:
        version: of durable_host, as `/admin/host/status` shows it.
        metrics: the text of `/admin/host/metrics`; None: there are none.
        background: owns functions that are run by hand.
    """

    def __init__(
        self,
        control: HostControl,
        ring: KeyRing,
        background: Background,
        *,
        version: str,
        metrics: Callable[[], str] | None = None,
    ) -> None:
        self._control = control
        self._keys = KeyApi(ring)
        self._background = background
        self._version = version
        self._metrics = metrics

    async def handle(self, request: Request) -> Answer:
        """Answer one request whose caller may make it."""
        parts = [unquote(part, errors="replace") for part in request.path.strip("/").split("/")]
        method = request.method
        match [part.lower() for part in parts[1:3]]:
            case ["host", operation]:
                return await self._host(request, method, operation, parts[3:])
            case ["functions"] if method == "GET" and len(parts) == 2:
                return json_answer(200, [_shown(each, request) for each in self._control.functions()])
            case ["functions", _]:
                return await self._function(request, method, parts[2], parts[3:])
            case _:
                return NOT_FOUND

    async def _host(self, request: Request, method: str, operation: str, rest: list[str]) -> Answer:
        control = self._control
        match method, operation, rest:
            case "GET", "status", []:
                return json_answer(200, self._status())
            case "GET" | "POST", "ping", []:
                return Answer(200, headers=(("Cache-Control", "no-store"),))
            case "GET", "metrics", [] if self._metrics is not None:
                return text_answer(200, self._metrics(), _METRICS_TYPE)
            case "POST", "drain", []:
                if not control.draining:
                    self._background.start(control.drain(), "drain")
                return empty(202)
            case "GET", "drain", [status] if status.lower() == "status":
                outstanding = control.outstanding
                state = "Disabled" if not control.draining else "InProgress" if outstanding else "Completed"
                body = {"state": state, "outstandingInvocations": outstanding, "outstandingRetries": 0}
                return json_answer(200, body)
            case "POST", "resume", []:
                if not await control.resume():
                    return empty(409)
                return json_answer(200, {"state": control.state})
            case "POST", "synctriggers", []:
                return json_answer(200, {"status": "success"})
            case _, scope, [*name] if scope in _HOST_SCOPES and len(name) < 2:
                return await self._keys.handle(request, _HOST_SCOPES[scope], name[0] if name else None)
            case _:
                return NOT_FOUND

    async def _function(self, request: Request, method: str, name: str, rest: list[str]) -> Answer:
        found = next((each for each in self._control.functions() if each.name.lower() == name.lower()), None)
        if found is None:
            return NOT_FOUND
        match method, [part.lower() for part in rest[:1]], rest[1:]:
            case "GET", [], []:
                return json_answer(200, _shown(found, request))
            case "GET", ["status"], []:
                return json_answer(200, {"errors": list(found.errors)} if found.errors else {})
            case "POST", [], []:
                return self._invoke(found, request.body)
            case "PUT" | "DELETE", [], []:
                return empty(405)  # the code comes from the app folder and is not edited over HTTP
            case _, ["keys"], [*key] if len(key) < 2:
                return await self._keys.handle(request, KeyScope.function(found.name), key[0] if key else None)
            case _:
                return NOT_FOUND

    def _invoke(self, function: FunctionView, body: bytes) -> Answer:
        try:
            given = msgspec.json.decode(body, type=_Invocation)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return first_form(400, f'The body has to be {{"input": "text"}}: {error}')
        self._background.start(self._control.invoke(function.name, given.input or ""), f"invoke {function.name}")
        return empty(202)

    def _status(self) -> dict[str, object]:
        control = self._control
        status: dict[str, object] = {
            "id": control.host_id,
            "state": control.state,
            "version": self._version,
            "versionDetails": f"durable_host {self._version}",
            "platformVersion": "",
            "instanceId": control.instance_id,
            "computerName": platform.node(),
            "processUptime": int(control.uptime * 1000),
            "functionAppContentEditingState": "NotAllowed",
        }
        if control.errors:
            status["errors"] = list(control.errors)
        return status


def _shown(function: FunctionView, request: Request) -> dict[str, object]:
    base = f"{request.scheme}://{request.host}"
    script = function.script_file
    return {
        "name": function.name,
        "script_root_path_href": f"{base}/admin/vfs/",
        "script_href": f"{base}/admin/vfs/{quote(script)}",
        "config_href": None,
        "test_data_href": None,
        "href": f"{base}/admin/functions/{quote(function.name)}",
        "invoke_url_template": None if function.route is None else f"{base}/{function.route}",
        "language": "python",
        "config": {
            "name": function.name,
            "entryPoint": function.entry_point or function.name,
            "scriptFile": script,
            "language": "python",
            "functionDirectory": "",
            "bindings": [dict(binding) for binding in function.bindings],
        },
        "files": None,
        "test_data": None,
        "isDisabled": function.disabled,
        "isDirect": True,
        "isProxy": False,
    }
