"""Frozen components of a checkpoint that are not asked for all the time: in between they are elsewhere, or nowhere.

A GPU hands them to the memory beside it. On a CPU, where that is the same memory, the weights are let go and read again
from their files when they are asked for: a training does without its text encoders and autoencoder for hours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tenuto.files import first_line
from tenuto.words import TenutoError

MEMORY = torch.device("cpu")


@dataclass(frozen=True)
class Component:
    """A text encoder or the autoencoder, as it was read."""

    module: Any
    again: Callable[[], Any]
    """Reads it once more."""
    files: Sequence[Path]
    """Where it stands."""

    @classmethod
    def read(cls, read: Callable[[], Any], files: Sequence[Path]) -> Component:
        return cls(read(), read, files)


class Resting:
    """A component on its way to and fro. What was changed since it was read, or carries an adapter, stays in memory."""

    def __init__(self, own: Component) -> None:
        self.module: nn.Module = own.module
        self._again, self._files = own.again, own.files
        self._stamps = self._stamped()
        self._note()

    def come(self, device: torch.device) -> None:
        """To this device, whole. Raises TenutoError."""
        self.fill()
        _lie(self.module, device)

    def fill(self) -> None:
        """See that the weights are there, wherever. Raises TenutoError where the files are others by now, or gone."""
        if self.away:
            fresh = self._reread()
            with torch.no_grad():
                for weight, new in zip(self.module.parameters(), fresh.parameters(), strict=True):
                    weight.data = new.data
            self._note()

    def leave(self, device: torch.device) -> None:
        """This device, until it is asked for again."""
        if device.type != MEMORY.type:
            _lie(self.module, MEMORY)
        elif not self.away and self._as_read():
            for weight in self.module.parameters():
                weight.data = torch.full((), torch.nan, dtype=weight.dtype).expand(weight.shape)
            self._note()

    @property
    def away(self) -> bool:
        """Whether the weights are let go: each is a single number then, spread over its shape, and no number at all,
        so that nobody can work with it unawares."""
        return all(weight.untyped_storage().nbytes() == weight.element_size() for weight in self.module.parameters())

    def _note(self) -> None:
        self._known = [(weight, weight._version) for weight in self.module.parameters()]

    def _as_read(self) -> bool:
        now = [(weight, weight._version) for weight in self.module.parameters()]
        return len(now) == len(self._known) and all(
            weight is known and version == noted
            for (weight, version), (known, noted) in zip(now, self._known, strict=True)
        )

    def _reread(self) -> nn.Module:
        if self._stamped() != self._stamps:
            raise TenutoError(f"{self._files[0]}: has changed since it was opened; run the same command again")
        try:
            fresh: nn.Module = self._again()
        except (TenutoError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # the libraries raise anything where a disk fails
            raise TenutoError(
                f"{self._files[0]}: cannot be read again ({first_line(error)}); see that the disk is there and run "
                "the same command again"
            ) from error
        return fresh

    def _stamped(self) -> list[tuple[int, int]]:
        """How large the files are, and when they were changed last."""
        try:
            return [(own.st_size, own.st_mtime_ns) for own in (path.stat() for path in self._files)]
        except OSError:
            return []


def _lie(module: nn.Module, device: torch.device) -> None:
    """See that it lies on this device; a look costs nothing, moving looks at every weight."""
    place = next(module.parameters()).device
    if place.type != device.type or device.index not in (None, place.index):
        module.to(device)
