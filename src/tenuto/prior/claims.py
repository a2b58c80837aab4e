"""Work on one store by several processes: each makes what no other is making, and all end with the whole.

A claim is a lock on a small file named by what is made. It ends with its process, so nothing is ever left claimed by
the dead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar

from filelock import FileLock, Timeout

from tenuto.files import cannot_write
from tenuto.words import Stopped

POLL = 0.2
"""Seconds between looks at what others are making."""


class Piece(Protocol):
    """What is made as a whole."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the files that come of it."""


P = TypeVar("P", bound=Piece)


class Claims:
    """Claims on what is being made in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def on(self, keys: Sequence[str]) -> Iterator[bool]:
        """Whether all of these are ours inside the block. Never waits."""
        with ExitStack() as held:
            try:
                for key in keys:
                    held.enter_context(self._one(key))
            except Timeout:
                held.close()
                ours = False
            except OSError as error:
                raise cannot_write(self._folder, error) from error
            else:
                ours = True
            yield ours

    def tidy(self) -> None:
        """Remove the files of claims whose process was killed."""
        for path in self._folder.glob("*.lock"):
            with self.on([path.stem]):
                pass  # whoever lets go of a claim removes its file

    @contextmanager
    def _one(self, key: str) -> Iterator[None]:
        path = self._folder / f"{key}.lock"
        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path, timeout=0):
            try:
                yield
            finally:
                # who opened it before this line will hold a file that is gone: at worst a piece is made twice
                with suppress(OSError):
                    path.unlink()


def make_together(
    pieces: Sequence[P],
    there: Callable[[P], bool],
    make: Callable[[P], None],
    claims: Claims,
    *,
    waiting: Callable[[], None] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Return when every piece is there; those that nobody else is making are made here.

    When a process ends without having made what it claimed, that is made here too.
    waiting: called once, when there is nothing left to do but wait for others. Raises Stopped when `stop` says so.
    """
    told = False
    left = list(pieces)
    while left := [piece for piece in left if not there(piece)]:
        idle = True
        for piece in left:
            with claims.on(piece.keys) as ours:
                if ours and not there(piece):
                    make(piece)
                    idle = False
        if idle:
            if stop():
                raise Stopped("stopped while other processes were at work on the rest")
            if not told:
                waiting()
            told = True
            time.sleep(POLL)
