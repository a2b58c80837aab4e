"""`tenuto demo` and `tenuto pocket`: the main job on the checkpoint that ships with the package."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w

from tenuto import pocket
from tenuto.events import Event, Listener
from tenuto.files import write_text
from tenuto.pocket.concepts import CONCEPTS, write_instances, write_tests
from tenuto.pocket.world import FIELD_OF_GROUP
from tenuto.project.file import load_project
from tenuto.words import TenutoError
from tenuto.work.compare import run_project

DEMO = "head-in-a-jar"
PICTURES = 12
SECOND = "second-character"
SECOND_LORA = Path(pocket.__file__).with_name("loras") / f"{SECOND}.safetensors"
"""Ships with the package; made by `python -m tools.pocket second`."""
SETTINGS: dict[str, Any] = {
    "seed": 0,
    "base": {"model": "pocket"},
    "prior": {"sampler": {"guidance": 4.0}},
    "arms": {"seeds": [0, 1, 2], "at_once": 2},
    "training": {
        "steps": 240,
        "batch": 4,
        "save_every": 60,
        "watch_every": 60,
        "adapter": {"rank": 8, "parts": ["attention", "feed_forward"]},
        "optimizer": {"lr": 1e-3},
    },
    "comparison": {
        "seeds": [0],
        "prompts": 3,
        "drift_prompts": 6,
        "states": 4,
        "steps": 8,
        "guidance": 4.0,
        "weights": [0.0, 1.0, 2.0, 3.0],
        "strip_prompts": 3,
        "strip_seeds": 1,
        "curve_weights": [0.5],
        "curve_checkpoints": 1,
        "curve_prompts": 2,
        "loss_times": [0.2, 0.5, 0.8],
    },
}
"""Small enough for minutes on two CPU cores, large enough for three training seeds."""


def run_demo(out: Path, listener: Listener, stop: Callable[[], bool]) -> Path:
    """Write the demo's pictures and project file, say what it will cost, and run it. Returns the report."""
    file = write_demo(out)
    text = (
        "demo: one concept, plain against held, three training seeds each, then the comparison. Two CPU cores need "
        "some minutes. Ctrl-C stops, the same command goes on."
    )
    listener(Event("note", {"text": text}))
    return run_project(load_project(file), out, listener, stop)[0]


def write_demo(out: Path) -> Path:
    """The demo's pictures and its project file, which is returned."""
    write_set(DEMO, out / "data", PICTURES)
    shutil.copy(SECOND_LORA, out / "data")
    file = out / "project.toml"
    comparison = SETTINGS["comparison"] | {
        "concept_groups": concept_groups(DEMO),
        "second_lora": f"data/{SECOND_LORA.name}",
        "second_prompt": called(SECOND),
    }
    concepts = [concept_table(DEMO, Path("data"))]
    write_text(file, tomli_w.dumps(SETTINGS | {"concepts": concepts, "comparison": comparison}))
    return file


def write_set(name: str, folder: Path, count: int | None = None) -> None:
    """A ready instance set and the unbiased test set of the same concept. Raises TenutoError for an unknown name."""
    if name not in CONCEPTS:
        raise TenutoError(f"{name}: no such ready set; there are: {', '.join(CONCEPTS)}")
    try:
        write_instances(name, folder / "images", count)
        write_tests(name, folder / "tests")
    except OSError as error:
        raise TenutoError(f"{folder}: cannot hold the pictures ({error.strerror}); give another folder") from error


def concept_table(name: str, folder: Path) -> dict[str, str]:
    """[[concepts]] of a ready set that `write_set` wrote into the folder."""
    concept = CONCEPTS[name]
    return {
        "name": name,
        "kind": concept.kind,
        "images": (folder / "images").as_posix(),
        "test_images": (folder / "tests").as_posix(),
        "trigger": concept.trigger,
        "class_word": concept.class_word,
    }


def called(name: str) -> str:
    """What calls a ready set's concept in a prompt."""
    concept = CONCEPTS[name]
    return ", ".join(word for word in (concept.trigger, concept.class_word) if word)


def concept_groups(name: str) -> list[str]:
    """The tag groups that a ready set's concept itself changes or hides: no bake when they do."""
    return [group for group, field in FIELD_OF_GROUP.items() if field in CONCEPTS[name].changes]


def list_sets() -> str:
    return "\n".join(
        f"{name:18} {c.kind:10} trigger: {c.trigger:10} class word: {c.class_word or '-'}"
        for name, c in CONCEPTS.items()
    )
