"""Many captions at once, as the Pictures tab sends it: each kind of change, seen first, made, undone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.jobs import noise_pictures
from tests.web.server import serving

BEFORE = ["1girl, zxq, hat", "dog, zxq", "zxq, hat, dog"]
PROJECT = '[[concepts]]\nname = "c"\nimages = "some"\ntrigger = "zxq"\n'
CHANGES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "add": (
        {"tags": ["hat, sea"], "front": True},
        ["sea, 1girl, zxq, hat", "hat, sea, dog, zxq", "sea, zxq, hat, dog"],
    ),
    "remove": ({"tags": ["hat, 1girl"]}, ["zxq", "dog, zxq", "zxq, dog"]),
    "replace": ({"tags": ["hat"], "instead": ["cap, red"]}, ["1girl, zxq, cap, red", "dog, zxq", "zxq, cap, red, dog"]),
    "trigger_first": ({"tags": ["zxq"]}, ["zxq, 1girl, hat", "zxq, dog", "zxq, hat, dog"]),
}
"""Action -> what is sent with it, and the captions that come of it."""


@pytest.mark.parametrize("action", CHANGES)
def test_captions_change_as_shown_and_back(tmp_path: Path, action: str) -> None:
    folder = noise_pictures(tmp_path / "some", [(64, 64)] * 3, BEFORE)
    (tmp_path / "p.toml").write_text(PROJECT)
    sent, after = CHANGES[action]

    def captions() -> list[str]:
        return [(folder / f"{number}.txt").read_text().strip() for number in range(3)]

    changed = [(f"{n}.png", a, b) for n, (a, b) in enumerate(zip(BEFORE, after, strict=True)) if a != b]
    with serving(tmp_path) as page:
        edit = {"edit": {"action": action, **sent}}
        seen = page.post("/p/p/edit", edit).json
        assert [(own["name"], own["before"], own["after"]) for own in seen["changes"]] == changed
        assert captions() == BEFORE, "a look writes nothing"
        one = {**edit, "pictures": [str(folder / changed[0][0])], "write": True}
        assert page.post("/p/p/edit", one).json["say"] == "1 captions changed"
        assert sum(a != b for a, b in zip(captions(), BEFORE, strict=True)) == 1, "only the pictures that are shown"
        page.post("/p/p/undo")
        assert page.post("/p/p/edit", {**edit, "write": True}).json["say"] == f"{len(changed)} captions changed"
        assert captions() == after
        page.post("/p/p/undo")
        assert captions() == BEFORE
