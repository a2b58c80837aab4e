"""Golden losses: what every method's terms are, update by update, on the tiny model.

A refactoring leaves tests/golden/tiny/ untouched. A change of method is a visible diff that its author explains:

    python -m tests.golden.losses [NAME ...]     # writes these files anew; without names, all
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from tenuto.families.base import Base
from tenuto.families.checkpoints import open_base
from tenuto.regularizers.catalogue import REGULARIZERS
from tenuto.training.loop import train
from tests.regularizers.cases import methods, run_of
from tests.steps import make_run
from tests.tiny import tiny_sd_folder

FOLDER = Path(__file__).parent / "tiny"
STEPS = 6


def losses(name: str, base: Base, folder: Path) -> list[dict[str, float]]:
    """The loss dict of every update: a method (loud, and beside what it needs), a large learning rate."""
    run = make_run(base, folder, methods(name), **{**run_of(name), "steps": STEPS, "optimizer": {"lr": 3e-3}})
    try:
        train(run)
        rows = [
            {key.removeprefix("loss."): value for key, value in entry.items() if key.startswith("loss.")}
            for entry in run.journal.read()
        ]
        return [row for row in rows if row]  # what the end of a training cost has none
    finally:
        run.adapter.detach()


def as_text(rows: list[dict[str, float]]) -> str:
    """A line per update; a term that is absent in an update is "-"."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["step " + " ".join(names)]
    for step, row in enumerate(rows, start=1):
        lines.append(" ".join([str(step), *(f"{row[name]:.6e}" if name in row else "-" for name in names)]))
    return "\n".join(lines) + "\n"


def golden(name: str) -> str:
    """What the file holds. Raises FileNotFoundError that says how it is made."""
    file = FOLDER / f"{name}.txt"
    if not file.exists():
        raise FileNotFoundError(f"{file}: a new method has none yet; run: python -m tests.golden.losses {name}")
    return file.read_text(encoding="utf-8")


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        base = open_base(str(tiny_sd_folder(Path(place) / "sd")), device="cpu")
        for name in names or REGULARIZERS:
            text = as_text(losses(name, base, Path(place) / name))
            (FOLDER / f"{name}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
