"""Two windows on one file: what was changed elsewhere since a page showed it is not written over."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from tenuto.words import Settings, TenutoError

WRITING = threading.Lock()
"""Held from reading a file to writing it, so that no other request writes it in between."""


class Change(Settings):
    """A change that takes a whole file's place; it counts for the file that the page shows, and for no other."""

    seen: str = ""
    """The mark of that file."""


def mark_of(file: Path) -> str:
    """A short hash of what lies there; of nothing where there is no such file."""
    try:
        data = file.read_bytes()
    except OSError:
        data = b""
    return sha256(data).hexdigest()[:16]


@contextmanager
def unchanged(file: Path, seen: str, what: str) -> Iterator[None]:
    """Inside the block the file is still the one that was seen. Raises TenutoError where it is another."""
    with WRITING:
        if mark_of(file) != seen:
            raise TenutoError(f"{what} was changed elsewhere since this page was loaded; load it again")
        yield
