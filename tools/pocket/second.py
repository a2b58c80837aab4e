"""The LoRA of a second character, for comparisons that ask how a LoRA goes with another one."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

from tenuto.cli.demo import SECOND, SECOND_LORA, SETTINGS, concept_table, write_set
from tenuto.cli.guard import guarded
from tenuto.cli.screen import Screen
from tenuto.project.file import make_project
from tenuto.work.prepare import prepare
from tenuto.work.train import train_all

PARTS = ["attention", "feed_forward", "convolution"]


def make(work: Path) -> None:
    """Train it as the demo trains its held LoRA, on the whole set, and put it where the demo finds it."""
    write_set(SECOND, work / "data")
    table = copy.deepcopy(SETTINGS) | {"concepts": [concept_table(SECOND, work / "data")]}
    table["arms"] = {"plain": False, "seeds": [0]}
    table["training"] |= {"save_precision": "fp16", "adapter": {"rank": 8, "parts": PARTS}}
    with guarded() as stop, Screen() as screen:
        (done,) = train_all(prepare(make_project(table, SECOND)), work / "run", screen, stop)
    SECOND_LORA.parent.mkdir(exist_ok=True)
    shutil.copy(done.lora, SECOND_LORA)
