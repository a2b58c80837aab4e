"""The log of a training: one JSON object per update and line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tenuto.files import cannot_write, write_text


class Journal:
    """Appends to a JSONL file; can be cut back to where a resumed training stands."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, entry: Mapping[str, float]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def read(self) -> list[dict[str, float]]:
        """All whole lines; a half-written last one is left out."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n") and line.strip()]

    def cut(self, update: int) -> None:
        """Forget what was logged after this update."""
        kept = [entry for entry in self.read() if entry["update"] <= update]
        if self.path.exists():
            write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in kept))
