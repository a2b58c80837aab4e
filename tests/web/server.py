"""A real `tenuto web` for tests: in this process for single requests, as a process of its own to be killed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from tenuto.web.app import make_app
from tenuto.web.login import Login
from tenuto.web.roots import Roots

PAGE = {"content-type": "application/json", "x-tenuto": "page"}


@dataclass
class Reply:
    """What a request brought."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass
class Client:
    """Requests as anybody could send them."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **headers: str) -> Reply:
        return self._send(urllib.request.Request(self.url + path, headers={**self.headers, **_named(headers)}))

    def post(self, path: str, body: Any = None, **headers: str) -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body if body is not None else {}).encode()
        own = {**PAGE, **self.headers, **_named(headers)}
        request = urllib.request.Request(self.url + path, data=data, method="POST")
        for name, value in own.items():
            if value:
                request.add_header(name, value)
        return self._send(request)

    def seen(self, key: str = "p") -> str:
        """The mark of a project's file, as its pages carry it now."""
        page = self.get(f"/p/{key}/settings", accept="text/html").text
        found = re.search('data-seen="([0-9a-f]+)"', page)
        assert found, page[:500]
        return found[1]

    def _send(self, request: urllib.request.Request) -> Reply:
        opener = urllib.request.build_opener(_Stay)
        try:
            with opener.open(request, timeout=120) as answer:
                return Reply(answer.status, answer.read(), {k.lower(): v for k, v in answer.headers.items()})
        except urllib.error.HTTPError as error:
            return Reply(error.code, error.read(), {k.lower(): v for k, v in error.headers.items()})


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@contextmanager
def serving(*folders: Path, login: Login | None = None, local: bool = True) -> Iterator[Client]:
    """The page in a thread of this process, on a real socket."""
    app = make_app(Roots.of(folders), login=login, local=local)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", server_header=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Client(f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        thread.join(timeout=20)


def started(folder: Path, *more: str, port: int = 0, host: str = "127.0.0.1") -> tuple[subprocess.Popen[str], str]:
    """`tenuto web` as a process of its own: (process, address). more: further options."""
    own = ["--root", str(folder), "--port", str(port), "--host", host, *more]
    command = [sys.executable, "-m", "tenuto", "web", *own]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("http://"), line
    return process, line.split()[0].rstrip("/")
