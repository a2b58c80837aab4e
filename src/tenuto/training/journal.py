"""The log of a training: one JSON object per update and line; TensorBoard on request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite, isnan
from pathlib import Path

from tenuto.events import Event, Listener
from tenuto.files import cannot_write, parse_json, write_text
from tenuto.words import TenutoError


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
        """All whole entries; a half-written last line, and what a power cut made unreadable, is left out."""
        try:
            lines = self.path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise TenutoError(f"{self.path}: cannot be read ({error}); mend its permissions") from error
        return [entry for line in lines if line.endswith(b"\n") and (entry := _entry(line))]

    def cut(self, update: int) -> None:
        """Forget what was logged after this update."""
        kept = [entry for entry in self.read() if entry["update"] <= update]
        if self.path.exists():
            write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in kept))


def _entry(line: bytes) -> dict[str, float]:
    """The numbers of a line; none where it is no entry."""
    try:
        found: dict[str, float] = dict(parse_json(line))
        whole = isfinite(found["update"]) and all(float(own) == own or isnan(own) for own in found.values())
        return found if whole else {}
    except (ValueError, TypeError, KeyError, OverflowError):
        return {}


def with_tensorboard(listener: Listener, folder: Path) -> Listener:
    """The same listener, with every logged number written for TensorBoard as well.

    Raises TenutoError when the extra is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TenutoError('training.tensorboard = true: not installed; pip install "tenuto[tensorboard]"') from error
    writer = SummaryWriter(str(folder))

    def listen(event: Event) -> None:
        if event.kind == "log":
            step = int(event.data["update"])
            for name, value in event.data.items():
                writer.add_scalar(name, value, step)
            writer.flush()
        listener(event)

    return listen
