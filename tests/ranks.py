"""Two real processes that work together, forked from the test."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch.distributed as dist

from tenuto.ranks import Ranks
from tests import children
from tests.children import AS_IS, FORK, start


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
        process.join()
    assert [process.exitcode for process in processes] == [0] * count


def start_command(
    words: Sequence[str], folders: Sequence[Path], around: AbstractContextManager[None] = AS_IS
) -> list[BaseProcess]:
    """A command of several processes, as launchers start it, each in a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"WORLD_SIZE": len(folders), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [start(words, folder, around, RANK=rank, LOCAL_RANK=rank, **job) for rank, folder in enumerate(folders)]


def said(folders: Sequence[Path]) -> list[str]:
    """All lines that a command's processes printed on standard error."""
    return [line for rank, own in enumerate(folders) for line in children.said(own, rank)]
