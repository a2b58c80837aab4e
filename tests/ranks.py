"""Two real processes that work together, forked from the test."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch.distributed as dist

from tenuto.cli.main import app
from tenuto.ranks import Ranks

FORK = multiprocessing.get_context("fork")


def start_ranks(work: Callable[[Ranks], object], count: int = 2) -> list[BaseProcess]:
    """Processes that do this work together; their status is 0 when it ended well."""
    meeting = Path(tempfile.mkdtemp()) / "meeting"

    def of(rank: int) -> None:
        ranks = Ranks(dist.FileStore(str(meeting), count), rank, count)
        work(ranks)
        ranks.leave()

    processes: list[BaseProcess] = [FORK.Process(target=of, args=(rank,)) for rank in range(count)]
    for process in processes:
        process.start()
    return processes


def on_ranks(work: Callable[[Ranks], object], count: int = 2) -> None:
    """Wait for such processes; all must end well."""
    processes = start_ranks(work, count)
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * count


def start_command(words: Sequence[str], folders: Sequence[Path]) -> list[BaseProcess]:
    """A command of several processes, as launchers start it, each in a folder; `said` reads what they printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def of(rank: int) -> None:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": len(folders), "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
        os.chdir(folders[rank])
        with (folders[rank] / f"errors-{rank}.txt").open("w", buffering=1) as sys.stderr:
            try:
                app(list(words))
            except SystemExit as leave:
                os._exit(int(leave.code or 0))

    processes: list[BaseProcess] = [FORK.Process(target=of, args=(rank,)) for rank in range(len(folders))]
    for process in processes:
        process.start()
    return processes


def said(folders: Sequence[Path]) -> list[str]:
    """All lines that a command's processes printed on standard error."""
    return [line for rank, own in enumerate(folders) for line in (own / f"errors-{rank}.txt").read_text().splitlines()]
