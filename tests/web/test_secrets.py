"""The password stays with the server: no run, no log and no page gets it."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest
import uvicorn
from typer.testing import CliRunner

from tenuto.cli.main import app
from tenuto.web.core import TABS
from tenuto.web.jobs import Job
from tenuto.web.login import PASSWORD
from tenuto.web.serve import SHORTEST
from tests.jobs import plain_pictures, until
from tests.web.server import Client, started
from tests.web.test_jobs import PROJECT

SECRET = "correct horse battery"


def test_no_run_and_no_page_is_told_the_password(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_pictures(tmp_path / "pictures", [(16, 16)] * 2)
    (tmp_path / "p.toml").write_text(PROJECT.format(model=tiny_folder))
    monkeypatch.setenv(PASSWORD, SECRET)
    server, url = started(tmp_path, "--root", str(tiny_folder), "--login", "ann")
    try:
        page = Client(url)
        assert page.post("/p/p/start", {"what": "train"}).status == 401
        cookie = page.post("/login", {"user": "ann", "password": SECRET}).headers["set-cookie"].split(";")[0]
        page = Client(url, {"cookie": cookie})
        assert page.post("/p/p/start", {"what": "train"}).status == 200
        (noted,) = (tmp_path / "runs" / ".jobs").glob("*.json")
        run = psutil.Process(Job.model_validate_json(noted.read_text()).pid)
        assert run.environ().get("PATH"), "it can be looked at"
        assert not [name for name, value in run.environ().items() if name == PASSWORD or SECRET in value]
        assert SECRET not in " ".join(run.cmdline())
        until(lambda: list((tmp_path / "runs" / "p").rglob("log.jsonl")))
        views = [
            "/",
            "/new",
            "/runs",
            "/methods",
            "/import",
            *(f"/p/p/{name}" for name, _ in TABS),
            "/p/p/live?curves=1",
        ]
        for view in views:
            shown = page.get(view, accept="text/html")
            assert (view, shown.status, SECRET in shown.text) == (view, 200, False)
        run.send_signal(signal.SIGINT)
        until(lambda: not run.is_running() or run.status() == psutil.STATUS_ZOMBIE)
        written = [file for file in (tmp_path / "runs").rglob("*") if file.is_file()]
        assert {"terminal.log", "events.jsonl"} <= {file.name for file in written}
        assert not [file for file in written if SECRET.encode() in file.read_bytes()]
    finally:
        for left in psutil.Process(server.pid).children():
            left.kill()
        server.send_signal(signal.SIGINT)
        server.wait(60)


def web(folder: Path, *more: str) -> tuple[int, str]:
    """`tenuto web` in this process: how it ended, and its one line."""
    result = CliRunner().invoke(app, ["web", "--root", str(folder), "--port", "0", "--login", "ann", *more])
    return result.exit_code, result.output


def test_the_password_comes_from_the_first_line_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[uvicorn.Config] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: served.append(server.config))
    monkeypatch.setenv(PASSWORD, "the one of the environment")
    file = tmp_path / "password"
    file.write_text(f" {SECRET} \nand a remark\n")
    code, said = web(tmp_path, "--password-file", str(file))
    assert (code, SECRET in said) == (0, False)
    login = served[0].app.state.studio.login  # type: ignore[union-attr]
    assert login.enter("ann", SECRET)
    assert not login.enter("ann", "the one of the environment"), "the file wins"
    assert SECRET not in repr(login)
    for wrong in (b"", b"\xff\xfe"):
        file.write_bytes(wrong)
        code, said = web(tmp_path, "--password-file", str(file))
        assert (code, said.count("\n")) == (1, 1)
        assert "holds no password" in said
    code, said = web(tmp_path, "--password-file", str(tmp_path / "nowhere"))
    assert (code, "holds no password" in said) == (1, True)


@pytest.mark.parametrize("way", ["file", "environment"])
def test_a_short_password_is_refused_before_anything_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    listened: list[uvicorn.Server] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: listened.append(server))
    file, short = tmp_path / "password", "x" * (SHORTEST - 1)
    file.write_text(short)
    monkeypatch.setenv(PASSWORD, short)
    more = ["--password-file", str(file)] if way == "file" else []
    code, said = web(tmp_path, *more)
    assert (code, said.count("\n"), short in said) == (1, 1, False)
    assert f"fewer than {SHORTEST} characters" in said
    assert not listened
    file.write_text(short + "x")
    monkeypatch.setenv(PASSWORD, short + "x")
    assert web(tmp_path, *more)[0] == 0
    assert len(listened) == 1
