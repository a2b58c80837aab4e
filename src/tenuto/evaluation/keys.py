"""Names of readings: all that one depends on, so that what is unchanged is never read twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tenuto.adapters.info import content_hash
from tenuto.evaluation.record import FORMAT
from tenuto.evaluation.settings import ComparisonSettings
from tenuto.evaluation.wardrobe import Model
from tenuto.families.base import Base


class Keys:
    """For the readings of one comparison."""

    def __init__(self, base: Base, settings: ComparisonSettings) -> None:
        self._base, self._settings = base, settings
        self._hashes: dict[Path, str] = {}

    def of(self, model: Model, noise: int, **more: Any) -> dict[str, Any]:
        """All that a reading of this model at this noise seed depends on."""
        s, base = self._settings, self._base
        return {
            "format": FORMAT,
            "base": [base.hash, str(base.dtype)],
            "model": [self._hash(model.lora), model.strength, self._hash(model.second)],
            "noise": noise,
            "sampler": [s.sampler, s.steps, s.guidance, s.negative, s.batch],
            **more,
        }

    def _hash(self, path: Path | None) -> str | None:
        if path is None:
            return None
        if path not in self._hashes:
            self._hashes[path] = content_hash(path)  # the header may have learned of a comparison since
        return self._hashes[path]
