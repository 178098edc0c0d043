"""Fan-out and fan-in: compress every file of a folder, a few at a time, then add up what it saved."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import durable_host as df

app = df.FunctionApp(http_auth_level=df.AuthLevel.ANONYMOUS)

HERE = Path(__file__).resolve().parent


@dataclass
class Work:
    source: str
    target: str


@dataclass
class Packed:
    name: str
    before: int
    after: int


@dataclass
class Summary:
    files: list[Packed]
    before: int
    after: int


@app.activity_trigger(input_name="folder")
def list_files(folder: str) -> list[str]:
    root = (HERE / folder).resolve()
    if not root.is_relative_to(HERE):
        raise ValueError(f"{folder!r} lies outside of the app folder")
    return sorted(str(path.relative_to(HERE)) for path in root.rglob("*") if path.is_file())


@app.activity_trigger(input_name="work")
def pack(work: Work) -> Packed:
    # An activity may run more than once. Writing beside the target and moving it makes a second run harmless.
    content = (HERE / work.source).read_bytes()
    target = HERE / work.target / f"{work.source}.gz"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    partial.write_bytes(gzip.compress(content, mtime=0))
    partial.replace(target)
    return Packed(work.source, before=len(content), after=target.stat().st_size)


@app.orchestration_trigger(context_name="context")
async def pack_folder(context: df.DurableOrchestrationContext) -> Summary:
    files = await context.call_activity(list_files, context.get_input(str))
    target = f".packed/{context.instance_id}"
    packed = await context.map(pack, [Work(file, target) for file in files], concurrency=4)
    return Summary(packed, sum(each.before for each in packed), sum(each.after for each in packed))


@app.route(route="packs", methods=["POST"])
@app.durable_client_input(client_name="client")
async def start(req: df.HttpRequest, client: df.DurableOrchestrationClient) -> df.HttpResponse:
    instance_id = await client.start_new(pack_folder, client_input=req.get_json()["folder"])
    return client.create_check_status_response(req, instance_id)
