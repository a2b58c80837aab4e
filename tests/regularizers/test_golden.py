"""Golden losses: see tests/golden/losses.py for how the files are made anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenuto.families.base import Base
from tenuto.regularizers.catalogue import REGULARIZERS
from tests.golden.losses import as_text, golden, losses

NEAR = {"rel": 2e-2, "abs": 1e-7}
"""Holds on other CPUs and versions of torch: Adam's first steps turn last bits of a gradient into a step's sign."""


@pytest.mark.parametrize("name", REGULARIZERS)
def test_losses_are_as_they_were(name: str, tiny_base: Base, tmp_path: Path) -> None:
    before = golden(name).splitlines()
    now = as_text(losses(name, tiny_base, tmp_path)).splitlines()
    assert now[0] == before[0]
    for new, old in zip(now[1:], before[1:], strict=True):
        for a, b in zip(new.split(), old.split(), strict=True):
            assert a == b or float(a) == pytest.approx(float(b), **NEAR), f"{before[0]}: {old} became {new}"
