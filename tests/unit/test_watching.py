from __future__ import annotations

import os
from pathlib import Path

from durable_host.cli.watching import changes, snapshot


def _app(folder: Path) -> Path:
    for name in ("function_app.py", "lib/deep/x.py", "data.txt", ".venv/a.py", "env2/pyvenv.cfg", "env2/lib/b.py"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    return folder


def test_python_files_and_configuration_count_but_not_environments(tmp_path: Path) -> None:
    app = _app(tmp_path)
    (app / "host.json").write_text("{}")

    seen = snapshot(app, host_json=None)

    assert sorted(Path(each).relative_to(app).as_posix() for each in seen) == [
        "function_app.py",
        "host.json",
        "lib/deep/x.py",
    ]


def test_more_files_and_folders_can_be_watched(tmp_path: Path) -> None:
    app = _app(tmp_path / "app")
    (app / "lib" / "table.csv").write_text("x")
    above = tmp_path / "host.json"
    above.write_text("{}")

    seen = snapshot(app, host_json=above, files=["data.txt"], directories=["lib"])

    assert {Path(each).name for each in seen} == {"function_app.py", "x.py", "data.txt", "table.csv", "host.json"}


def test_changes_are_told_apart(tmp_path: Path) -> None:
    app = _app(tmp_path)
    before = snapshot(app, host_json=None)

    (app / "new.py").write_text("")
    (app / "lib" / "deep" / "x.py").unlink()
    (app / "function_app.py").write_text("longer")
    os.utime(app / "function_app.py", ns=(1, 1))

    happened = [(kind, Path(path).name) for kind, path in changes(before, snapshot(app, host_json=None))]
    assert happened == [("Changed", "function_app.py"), ("Deleted", "x.py"), ("Created", "new.py")]
    assert changes(before, before) == []


def test_a_folder_that_is_gone_is_no_error(tmp_path: Path) -> None:
    assert snapshot(tmp_path / "nowhere", host_json=tmp_path / "nothing.json") == {}
