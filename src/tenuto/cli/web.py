"""`tenuto web`: the page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from tenuto.cli.guard import guarded
from tenuto.cli.rooms import need
from tenuto.words import TenutoError

NEEDED = ("starlette", "uvicorn", "psutil")
"""What the extra brings."""


def web(
    root: Annotated[
        list[Path] | None,
        typer.Option(help="A folder that the page may read and write; may be given often. The first holds the runs."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 7860,
    host: Annotated[str, typer.Option(help="Where to listen; anything but loopback demands --login.")] = "127.0.0.1",
    login: Annotated[
        str | None,
        typer.Option(help="A user's name. The password: $TENUTO_WEB_PASSWORD, --password-file, or asked for."),
    ] = None,
    password_file: Annotated[Path | None, typer.Option(help="A file whose first line is the password.")] = None,
) -> None:
    """A page to work in: pictures, prior set, training, comparison. It listens on this machine alone."""
    with guarded(quiet=True):
        need("web", NEEDED, "tenuto web")
        from tenuto.web.serve import serve

        serve(
            root or [Path.cwd()],
            host=host,
            port=port,
            user=login,
            password=lambda: _password(password_file),
            tell=lambda text: typer.echo(text),
        )


def _password(file: Path | None) -> str:
    """Never on the command line, where every user of the machine can read it."""
    from tenuto.web.login import PASSWORD

    if file is not None:
        try:
            return file.read_text(encoding="utf-8").splitlines()[0].strip()
        except (OSError, IndexError, UnicodeDecodeError) as error:
            raise TenutoError(f"{file}: holds no password; write it into the first line") from error
    if PASSWORD in os.environ:
        return os.environ[PASSWORD]
    return str(typer.prompt("password", hide_input=True, confirmation_prompt=True))
