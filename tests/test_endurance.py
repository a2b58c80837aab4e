"""The proofs of `make endure`, in little: every reader reads its example whole, and stands its first damage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from benchmarks.endurance import examples, inputs
from benchmarks.endurance.__main__ import section
from benchmarks.endurance.mutations import mutated
from benchmarks.endurance.readers import READERS

from tenuto.families.layouts import LAYOUTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("endurance")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "PLACE", place / "shared")
        patch.setattr(inputs, "SECONDS", 600.0)  # a slow machine, at its first import, is no hang
        known = set(LAYOUTS)
        examples.let_tiny_files_be_known()
        yield place
        for name in set(LAYOUTS) - known:
            del LAYOUTS[name]


@pytest.mark.parametrize("name", READERS)
def test_every_reader_reads_its_example_and_stands_damage(name: str, folder: Path) -> None:
    found = inputs.run_case(folder, f"{name}:0", folder / "case")
    assert found.ended in ("read", "refused"), found.what


def test_a_case_is_always_the_same_damage() -> None:
    path, data = Path("a.json"), b'{"a": [1, 2, {"b": "text"}], "c": 3.5}'
    made = [[mutated(path, data, Random(f"x:{number}")) for number in range(200)] for _ in range(2)]
    assert made[0] == made[1]
    assert len(set(made[0])) > 150


def test_what_was_found_is_said() -> None:
    found = {"inputs": 10_000, "read": 4_000, "refused": 5_999, "readers": {"a": {}}, "findings": {"a:1": "KeyError"},
             "date": "2026-11-24", "machine": "2 CPU cores"}  # fmt: skip
    assert "5,999 refused in one line, **1 did neither**" in section({"inputs": found})
