"""What is wrong with the user's data, as values: found while reading, judged and shown by the audit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning"]
"""An error spoils the result; a warning is worth a look."""


@dataclass(frozen=True)
class Problem:
    """One finding: where, what, and what to do about it."""

    level: Level
    file: str
    """The file, folder or concept that it is about."""
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}; {self.remedy}"
