"""What the page refuses: other sites, other folders, other people, too much, and nonsense."""

from __future__ import annotations

import asyncio
import http.client
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from PIL import Image
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Message

from tenuto.web.app import routes
from tenuto.web.core import TABS, Answer, Call, action
from tenuto.web.guard import LARGEST
from tenuto.web.login import TRIES, Login
from tenuto.web.views.start import Nothing
from tests.web.server import PAGE, Client, serving, started

PROJECT = """
[base]
model = "pocket"
[[concepts]]
name = "c"
images = "{images}"
trigger = "zxq"
[training]
steps = 1
"""
CHANGES: dict[str, dict[str, Any]] = {
    "caption": {"picture": "s.png", "text": "x"},
    "edit": {"edit": {"action": "add", "tags": ["x"]}},
    "undo": {},
    "numbers": {"ratio": 1.0},
    "start": {"what": "run"},
    "settings": {"values": {}},
    "method": {"name": "max_norm"},
    "use": {"arm": "held"},
    "against": {"second_prompt": "x"},
    "concept": {"kind": "style", "images": "pictures", "name": "another"},
    "concept/remove": {"name": "c"},
}
"""Every change of a project, as the page sends it."""


def addresses(method: str) -> list[str]:
    """Every address of the page that takes this method, for the project p."""
    some = [own for own in routes() if isinstance(own, Route) and method in (own.methods or ())]
    return [own.path.replace("{seed:int}", "0").format(key="p", arm="held") for own in some]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one project, and secrets beside it."""
    whole = tmp_path_factory.mktemp("whole")
    pictures = whole / "work" / "pictures"
    pictures.mkdir(parents=True)
    Image.new("RGB", (64, 64), "red").save(pictures / "a.png")
    (pictures / "a.txt").write_text("zxq, 1girl")
    (whole / "work" / "p.toml").write_text(PROJECT.format(images="pictures"))
    (whole / "work" / "notes.png").write_text("a text, no picture")
    (whole / "secret").mkdir()
    Image.new("RGB", (64, 64), "blue").save(whole / "secret" / "s.png")
    (whole / "secret" / "s.txt").write_text("the secret caption")
    (whole / "work" / "link.png").symlink_to(whole / "secret" / "s.png")
    (whole / "work" / "linked").symlink_to(whole / "secret")
    return whole


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Client]:
    with serving(folder / "work") as client:
        yield client


@pytest.mark.parametrize(
    "path",
    [
        "../secret/s.png", "..%2fsecret%2fs.png", "link.png", "linked/s.png", "/etc/hostname", "~/x.png",
        "pictures/../../secret/s.png", "p.toml", "pictures/a.txt", "notes.png", "pictures", "a\0b.png", "x" * 5000,
        "x" * 5000 + ".png", "x" * 300 + ".png",
    ],
)  # fmt: skip
def test_no_file_but_pictures_below_the_roots(page: Client, path: str) -> None:
    reply = page.get(f"/picture?path={quote(path, safe='%')}")
    assert reply.status == 400
    assert "image" not in reply.headers["content-type"]
    assert page.get("/picture?path=pictures/a.png").headers["content-type"] == "image/webp"


@pytest.mark.parametrize("path", ["..", "../secret", "linked", "/", "/etc"])
def test_folders_are_listed_below_the_roots_only(page: Client, path: str) -> None:
    reply = page.get(f"/browse?path={quote(path)}")
    assert reply.status == 400
    listed = page.get("/browse?path=.").json
    assert [own["name"] for own in listed["entries"]] == ["pictures"], "links that lead out are not shown"


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/%2e%2e/app.py", "/p/..%2f..%2fsecret/pictures", "/p/../pictures"]
)
def test_no_way_out_of_the_addresses(page: Client, path: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(page.url).netloc, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status in (400, 404)
    assert b"import" not in answer.read()


def test_a_project_that_names_other_folders_is_not_shown(page: Client, folder: Path) -> None:
    (folder / "work" / "out.toml").write_text(PROJECT.format(images=(folder / "secret").as_posix()))
    for view in (*(name for name, _ in TABS), "live", "live?prior=1", "live?curves=1", "report", "lora/held/0"):
        reply = page.get(f"/p/out/{view}", accept="text/html")
        assert (view, reply.status) == (view, 400)
        assert "outside the folders" in reply.text
        assert "the secret caption" not in reply.text
    home = page.get("/", accept="text/html").text
    assert "outside the folders" in home
    assert "s.png" not in home
    for name, body in CHANGES.items():
        reply = page.post(f"/p/out/{name}", body)
        assert (name, reply.status) == (name, 400)
        assert "outside the folders" in reply.json["error"]
    (folder / "work" / "out.toml").unlink()
    new = {"name": "n", "kind": "concept", "images": "../secret", "model": "pocket"}
    assert "outside" in page.post("/new", new).json["error"]
    away = {**new, "images": "pictures", "model": str(folder / "secret")}
    assert "outside" in page.post("/new", away).json["error"]
    assert not (folder / "work" / "runs" / "n").exists(), "a refusal leaves nothing behind"
    before = (folder / "work" / "p.toml").read_text()
    for setting in ("images", "masks", "test_images"):
        values = {"seen": page.seen(), "values": {f"concepts.0.{setting}": str(folder / "secret")}}
        assert "outside" in page.post("/p/p/settings", values).json["error"]
    assert (folder / "work" / "p.toml").read_text() == before


def test_links_lead_no_project_out(page: Client, folder: Path) -> None:
    work = folder / "work"
    (work / "others").mkdir()
    shutil.copy(work / "pictures" / "a.png", work / "others" / "a.png")
    (work / "others" / "a.txt").symlink_to(folder / "secret" / "s.txt")
    (work / "caption.toml").write_text(PROJECT.format(images="others"))
    (work / "away.toml").write_text(PROJECT.format(images="pictures"))
    (work / "runs").mkdir(exist_ok=True)
    (work / "runs" / "away").symlink_to(folder / "secret")
    try:
        for tab, _ in TABS:
            reply = page.get(f"/p/caption/{tab}", accept="text/html")
            assert reply.status == 400
            assert "outside the folders" in reply.text
            assert "the secret caption" not in reply.text
            assert "no such project" in page.get(f"/p/away/{tab}", accept="text/html").text
    finally:
        for own in ("caption.toml", "away.toml", "runs/away"):
            (work / own).unlink()


@pytest.mark.parametrize("way", ["sample_prompts", "config_file", "dataset_config", "train_data_dir", "link"])
def test_an_import_reads_nothing_outside(page: Client, folder: Path, way: str) -> None:
    hidden = folder / "secret" / "hidden"
    (hidden / "7_zxq").mkdir(parents=True, exist_ok=True)
    (hidden / "prompts.txt").write_text("a hidden prompt")
    (hidden / "options.toml").write_text('output_name = "a hidden name"')
    (hidden / "data.toml").write_text('[[datasets]]\n[[datasets.subsets]]\nimage_dir = "a hidden folder"')
    link = folder / "work" / "link.txt"
    link.unlink(missing_ok=True)
    link.symlink_to(hidden / "prompts.txt")
    named = {
        "sample_prompts": ("sample_prompts", hidden / "prompts.txt"),
        "config_file": ("config_file", hidden / "options.toml"),
        "dataset_config": ("dataset_config", hidden / "data.toml"),
        "train_data_dir": ("train_data_dir", hidden),
        "link": ("sample_prompts", "link.txt"),
    }
    option, path = named[way]
    text = f'network_dim = 4\nmax_train_steps = 3\n{option} = "{path}"\n'
    reply = page.post("/import", {"file": "x.toml", "text": text})
    assert reply.status == (400 if way == "config_file" else 200), reply.text
    assert "a hidden" not in reply.text
    assert "7_zxq" not in reply.text


def test_other_sites_are_refused(page: Client) -> None:
    edit = {"edit": {"action": "add", "tags": ["x"]}, "write": True}
    assert page.post("/p/p/edit", edit, origin="http://evil.example").status == 403
    assert page.post("/p/p/edit", edit, origin="null").status == 403
    assert page.post("/p/p/edit", edit, origin="http://[").status == 403, "no address at all"
    assert page.post("/p/p/edit", edit, sec_fetch_site="cross-site").status == 403
    assert page.post("/p/p/edit", edit, x_tenuto="").status == 403
    assert page.post("/p/p/edit", edit, content_type="text/plain").status == 403
    assert page.post("/p/p/edit", edit, content_type="application/x-www-form-urlencoded").status == 403
    assert page.get("/", host="evil.example").status == 421, "DNS rebinding"
    own = page.post("/p/p/edit", {**edit, "write": False}, origin=page.url, sec_fetch_site="same-origin")
    assert own.status == 200
    assert own.json["count"] == 1


@pytest.mark.parametrize("path", addresses("POST"))
def test_no_change_is_taken_from_another_site(page: Client, folder: Path, path: str) -> None:
    before = (folder / "work" / "p.toml").read_bytes()
    sent = CHANGES.get(path.removeprefix("/p/p/"), {})
    for marks in (
        {"origin": "http://evil.example"},
        {"sec_fetch_site": "cross-site"},
        {"x_tenuto": ""},
        {"content_type": "text/plain"},
    ):
        assert page.post(path, sent, **marks).status == 403, marks
        assert page.get(path, accept="text/html").status in (200, 400, 405), "a link changes nothing"
    assert (folder / "work" / "p.toml").read_bytes() == before
    assert not (folder / "work" / "runs" / ".jobs").exists(), "nothing was started"


def test_every_change_of_a_project_is_tried_here() -> None:
    own = {path.removeprefix("/p/p/") for path in addresses("POST") if path.startswith("/p/p/")}
    assert own == CHANGES.keys()


def test_answers_are_shut_against_other_sites(page: Client) -> None:
    headers = page.get("/").headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


def test_too_much_is_refused(page: Client) -> None:
    connection = http.client.HTTPConnection(urlsplit(page.url).netloc, timeout=60)
    connection.request("POST", "/import", headers={**PAGE, "content-length": str(LARGEST + 1)})
    assert connection.getresponse().status == 413
    connection = http.client.HTTPConnection(urlsplit(page.url).netloc, timeout=60)
    pieces = (b" " * (1 << 20) for _ in range(LARGEST // (1 << 20) + 2))
    headers = {**PAGE, "transfer-encoding": "chunked"}
    try:
        connection.request("POST", "/import", body=pieces, headers=headers, encode_chunked=True)
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # the door was shut while it was still being sent


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"edit": 3}', b'{"unknown": 1}']
)
def test_nonsense_is_refused_in_one_line(page: Client, body: bytes) -> None:
    for path in addresses("POST"):
        reply = page.post(path, body)
        assert reply.status == 400, (path, reply.text)
        assert "\n" not in reply.json["error"]
        assert "Traceback" not in reply.text


def test_a_fault_of_the_page_is_not_blamed_on_the_request() -> None:
    def broken(call: Call, body: Nothing) -> Answer:
        raise ValueError("a fault")

    async def receive() -> Message:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    studio = SimpleNamespace(state=SimpleNamespace(studio=None))
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b"", "app": studio}
    with pytest.raises(ValueError, match="a fault"):
        asyncio.run(action(broken, Nothing)(Request(scope, receive)))


@pytest.mark.parametrize("size", ["0", "-3", "x", "1e3"])
def test_a_picture_has_a_size(page: Client, size: str) -> None:
    assert "size" in page.get(f"/picture?path=pictures/a.png&size={size}").json["error"]


def test_what_is_no_file_breaks_no_page(page: Client, folder: Path) -> None:
    link = folder / "work" / "gone.safetensors"
    link.symlink_to(folder / "work" / "nowhere")
    (folder / "work" / "aside").symlink_to(folder / "secret")
    inside = folder / "work" / "models" / "mine"
    inside.mkdir(parents=True)
    (inside / "model_index.json").write_text("{}")
    try:
        reply = page.get("/new", accept="text/html")
        assert reply.status == 200
        assert "models/mine" in reply.text, "what cannot be used ends no search"
    finally:
        link.unlink(), (folder / "work" / "aside").unlink(), shutil.rmtree(inside.parent)
    long = {"name": "long", "kind": "concept", "images": "pictures", "model": "x" * 5000}
    assert "no checkpoint" in page.post("/new", long).json["error"]
    assert page.post("/p/p/against", {"other_base": "x" * 5000}).status == 400
    assert page.post("/new", {**long, "images": "x" * 5000}).status == 400
    shutil.rmtree(folder / "work" / "runs" / "long", ignore_errors=True)


def test_a_dropped_file_is_text_of_a_config(page: Client, folder: Path) -> None:
    for name in ("x.safetensors", "x.ckpt", "x.py", "x", "../../x.exe"):
        assert "no config" in page.post("/import", {"file": name, "text": "{}"}).json["error"]
    assert page.post("/import", {"file": "x.json", "text": "\0\0"}).status == 400
    assert page.post("/import", {"file": "x.json", "text": "\ud800"}).status == 400, "no text at all"
    assert page.post("/import", {"file": "x" * 400 + ".json", "text": "{}"}).status == 400
    assert not list(folder.glob("work/.dropped-*")), "nothing stays"
    assert page.post("/import", {"path": "../secret/s.txt"}).status == 400


def test_numbers_are_bounded(page: Client) -> None:
    wish = {"per_image": 10**9, "ratio": 1.0, "weight": 1.0}
    assert page.post("/p/p/numbers", wish).status == 400
    assert page.post("/p/p/numbers", {**wish, "per_image": 1, "ratio": 1e300}).status == 400
    assert page.post("/p/p/numbers", {**wish, "per_image": 1, "ratio": float("nan")}).status == 400


def test_nobody_without_the_password(folder: Path) -> None:
    with serving(folder / "work", login=Login.of("ann", "a long password"), local=False) as page:
        assert page.get("/picture?path=pictures/a.png").status == 401
        for path in set(addresses("GET")) - {"/login"}:
            assert page.get(path).status == 401, path
            assert page.get(path, accept="text/html").status == 303, path
        for path in set(addresses("POST")) - {"/login"}:
            assert page.post(path, CHANGES.get(path.removeprefix("/p/p/"), {})).status == 401, path
        first = page.get("/p/p/prior?x=1", accept="text/html")
        assert (first.status, first.headers["location"]) == (303, "/login?next=/p/p/prior%3Fx%3D1")
        assert page.get("/login", accept="text/html").status == 200
        assert page.get("/static/app.css").status == 200
        wrong = page.post("/login", {"user": "ann", "password": "another"})
        assert wrong.status == 400
        assert "set-cookie" not in wrong.headers
        right = page.post("/login?next=//evil.example", {"user": "ann", "password": "a long password"})
        assert right.json == {"go": "/"}, "never to another site"
        for away in ("/%5cevil.example", "/%09/evil.example", "/%0a/evil.example", "/a%09b", "http://evil.example", ""):
            own = page.post(f"/login?next={away}", {"user": "ann", "password": "a long password"})
            assert own.json == {"go": "/"}
        here = page.post("/login?next=/p/p/prior%3Fx%3D1", {"user": "ann", "password": "a long password"})
        assert here.json == {"go": "/p/p/prior?x=1"}
        cookie = right.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        inside = Client(page.url, {"cookie": cookie.split(";")[0]})
        assert inside.get("/p/p/live").status == 200
        assert "a long password" not in inside.get("/", accept="text/html").text
        assert Client(page.url, {"cookie": cookie.split(";")[0] + "x"}).get("/p/p/live").status == 401
        inside.post("/logout")
        assert inside.get("/p/p/live").status == 401
        for _ in range(TRIES):
            page.post("/login", {"user": "ann", "password": "guess"})
        late = page.post("/login", {"user": "ann", "password": "a long password"})
        assert "wait" in late.json["error"], "guessing makes it deaf for a while"


def test_the_network_needs_a_login(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tenuto", "web", "--root", str(tmp_path), "--host", "0.0.0.0", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "--login" in done.stderr


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None; sys.argv = ['tenuto', 'web']; "
        "from tenuto.cli.main import entry; entry()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == 'error: tenuto web: uvicorn not installed; pip install "tenuto[web]"'


def test_it_says_where_it_listens(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
    process, address = started(tmp_path, host="::1")
    try:
        assert address.startswith("http://[::1]:")
        assert Client(address).get("/").status == 200
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
