"""Starting the page: where it listens, for whom, and on which folders."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from tenuto.web.login import Login
from tenuto.words import TenutoError

SHORTEST = 8
"""Characters of a password."""


def serve(
    folders: Sequence[Path],
    *,
    host: str,
    port: int,
    user: str | None,
    password: Callable[[], str],
    tell: Callable[[str], None],
) -> None:
    """Serve until interrupted. Raises TenutoError before that when it may not or cannot listen.

    password: asked only where there is a user. Runs that were started go on when the page ends.
    """
    local = is_loopback(host)
    if not local and user is None:
        raise TenutoError(f"--host {host}: others could use this machine; give --login USER as well")
    from tenuto.web.app import make_app  # with all that it needs: a refusal comes first
    from tenuto.web.roots import Roots

    roots = Roots.of(folders)
    login = Login.of(user, _checked(password())) if user is not None else None
    listening = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    tell(f"http://{shown}:{listening.getsockname()[1]}/  (Ctrl-C ends the page; runs go on)")
    app = make_app(roots, login=login, local=local)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        limit_concurrency=64,
        timeout_graceful_shutdown=2,
    )
    uvicorn.Server(config).run(sockets=[listening])


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked(password: str) -> str:
    if len(password) < SHORTEST:
        raise TenutoError(f"the password has fewer than {SHORTEST} characters; choose a longer one")
    return password


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        opened = socket.socket(family, socket.SOCK_STREAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen(128)
        return opened
    except (OSError, OverflowError) as error:
        raise TenutoError(f"{host}:{port}: cannot listen there ({error}); choose another --port") from error
