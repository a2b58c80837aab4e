"""Commands in real processes, forked from the test: they begin at once, as the test has them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

from tenuto.cli.main import app

FORK = multiprocessing.get_context("fork")
AS_IS: AbstractContextManager[None] = nullcontext()


def start(
    words: Sequence[str], folder: Path, around: AbstractContextManager[None] = AS_IS, **environment: object
) -> BaseProcess:
    """A command as a person types it in this folder, in a session of its own; `said` reads what it printed.

    around: entered in that process.
    """

    def work() -> None:
        forkserver._forkserver.__init__()  # that of the test is no child of this process
        os.setsid()
        os.environ |= {name: str(value) for name, value in environment.items()}
        os.chdir(folder)
        with _errors(folder, environment.get("RANK", 0)).open("w", buffering=1) as sys.stderr, around:
            os.dup2(sys.stderr.fileno(), 2)  # for the processes that it starts
            app(list(words))

    process: BaseProcess = FORK.Process(target=work)
    process.start()
    return process


@contextmanager
def running(words: Sequence[str], folder: Path, around: AbstractContextManager[None] = AS_IS) -> Iterator[BaseProcess]:
    """The same for as long as the block lasts: then what still runs of it is killed."""
    process = start(words, folder, around)
    try:
        yield process
    finally:
        if process.is_alive():
            with suppress(ProcessLookupError):  # it has no session yet
                os.killpg(process.ident, signal.SIGKILL)
            process.kill()
        process.join()


def said(folder: Path, rank: int = 0) -> list[str]:
    """The lines that a command printed on standard error."""
    return _errors(folder, rank).read_text().splitlines()


def _errors(folder: Path, rank: object) -> Path:
    return folder / f"errors-{rank}.txt"
