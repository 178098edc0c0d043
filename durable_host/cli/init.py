"""`durable-host init`: a working app in an empty folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from durable_host.cli.console import print_json
from durable_host.errors import ConfigurationError

__all__ = ["init"]

_FUNCTION_APP = '''"""An orchestration of three steps, and an endpoint that starts it.

    durable-host start
    curl -X POST http://localhost:7071/api/orchestrators/hello_cities
"""

from __future__ import annotations

import durable_host as df

app = df.FunctionApp(http_auth_level=df.AuthLevel.FUNCTION)


@app.activity_trigger(input_name="city")
def say_hello(city: str) -> str:
    # Activities do the work: call services, read files. They may run more than once after a crash.
    return f"Hello {city}!"


@app.orchestration_trigger(context_name="context")
async def hello_cities(context: df.DurableOrchestrationContext) -> list[str]:
    # Orchestrators decide: no clock, no random numbers, no I/O but through the context.
    return [await context.call_activity(say_hello, city) for city in ("Tokyo", "Seattle", "London")]


@app.route(route="orchestrators/{name}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def start(req: df.HttpRequest, client: df.DurableOrchestrationClient) -> df.HttpResponse:
    body = req.get_json() if req.get_body() else None
    instance_id = await client.start_new(req.route_params["name"], client_input=body)
    return client.create_check_status_response(req, instance_id)
'''

_HOST_JSON = """{
  "version": "2.0",
  "extensions": {
    "durableTask": {
      "hubName": "%s",
      "storageProvider": { "type": "sqlite" }
    }
  }
}
"""

_SETTINGS = """{
  "IsEncrypted": false,
  "Values": {
    "FUNCTIONS_WORKER_RUNTIME": "python"
  }
}
"""

_IGNORE = """.durable/
.venv/
__pycache__/
local.settings.json
"""


def init(arguments: argparse.Namespace) -> int:
    """Write the files that are not there yet."""
    if arguments.app_dir is not None and arguments.app is not None:
        raise ConfigurationError("Name the app's folder once, as APP_DIR or with --app.")
    folder = Path(arguments.app_dir or arguments.app or ".")
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"'{folder}' is a file.")
    if folder.is_dir() and not arguments.force:
        present = sorted(each.name for each in folder.iterdir() if each.name not in (".git", ".venv"))
        if present:
            raise ConfigurationError(
                f"The folder '{folder}' is not empty ({', '.join(present[:5])}{', …' if len(present) > 5 else ''}). "
                "Choose an empty one, or add --force, which keeps the files that are there."
            )
    folder.mkdir(parents=True, exist_ok=True)
    from durable_host import __version__

    files = {
        ".gitignore": _IGNORE,
        "host.json": _HOST_JSON % _hub_name(folder),
        "local.settings.json": _SETTINGS,
        "requirements.txt": f"durable-host>={__version__}\n",
        "function_app.py": _FUNCTION_APP,
    }
    written: list[str] = []
    for name, text in files.items():
        try:
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            if not arguments.json:
                sys.stdout.write(f"{name} already exists. Skipped!\n")
            continue
        written.append(name)
        if not arguments.json:
            sys.stdout.write(f"Writing {name}\n")
    if arguments.json:
        print_json({"folder": str(folder.resolve()), "written": written})
    else:
        where = "" if folder.resolve() == Path.cwd() else f" {folder}"
        sys.stdout.write(
            f"\nNow run:\n\n    durable-host start{where}\n"
            "    curl -X POST http://localhost:7071/api/orchestrators/hello_cities\n"
        )
    return 0


def _hub_name(folder: Path) -> str:
    from durable_host.config.host_json import default_hub_name

    words = "".join(each.capitalize() for each in folder.resolve().name.replace("-", "_").split("_"))
    return default_hub_name({"WEBSITE_SITE_NAME": words or "TestHubName"})
