"""The benchmark of full-size architectures, at tiny size."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import pytest
from benchmarks import big

from tenuto.families.layouts import LAYOUTS
from tenuto.words import Size
from tests.single_files import tiny_layout


def test_a_random_file_opens_and_trains(tiny_xl_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYOUTS, "tiny", tiny_layout(tiny_xl_folder, "sdxl"))
    monkeypatch.setattr(big, "SIZE", Size(16, 16))
    big.random_file("tiny", str(tmp_path / "a.safetensors"))
    told: queue.Queue[dict[str, Any]] = queue.Queue()
    big.one_step(str(tmp_path / "a.safetensors"), "bf16", told)
    found = told.get()
    assert found["notes"] == "tiny sdxl, answers eps (from the family's rule)"
    assert 0.1 < found["loss"] < 10
    assert found["gradient"] > 0
    assert found["peak"] > 0
