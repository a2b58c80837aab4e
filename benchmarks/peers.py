"""Beside diffusers' DreamBooth LoRA script, in one run, alternating: seconds per step, start, memory, prior images.

    python -m benchmarks.peers --script train_dreambooth_lora.py --python PEER/bin/python [--rounds 3]

The script (examples/dreambooth in diffusers' repository) and its environment are the user's; nothing of them is part
of tenuto. Both train pocket at 64 x 64 in fp32 on one CPU thread: rank 8 on the attention layers, AdamW, B pictures and
B prior pictures an update. Both are told to keep nothing on the way. Processor seconds are counted, so that other work
on the machine hardly moves them; `start` is from the command to the end of the first step.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tomli_w
import typer
from PIL import Image

from tenuto.families.checkpoints import find_base
from tenuto.pocket.concepts import CONCEPTS, write_instances

CONCEPT, SIDE, PICTURES = "head-in-a-jar", 64, 12
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
COMPILED = ("--set", "training.compile=true")
TICK = 0.02


@dataclass(frozen=True)
class Measured:
    """Of one process: processor seconds when so many pieces were done, and the most memory it held."""

    at: Mapping[int, float]
    peak: int
    """Bytes."""

    def each(self) -> float:
        """Seconds for a piece, between the first and the last that were seen."""
        first, last = min(self.at), max(self.at)
        return (self.at[last] - self.at[first]) / (last - first)


def watched(
    command: list[str], done: Callable[[str], int], wanted: int, folder: Path, more: Mapping[str, str]
) -> Measured:
    """Run a command until `done`, told what it has printed so far, says that all is done."""
    said = folder / "said.txt"
    with said.open("w") as out:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **ONE_THREAD, **more}, stdout=out, stderr=out
        )
    at: dict[int, float] = {}
    peak = 0
    while process.poll() is None and wanted not in at:
        time.sleep(TICK)
        if count := done(said.read_text(errors="replace")):
            at.setdefault(count, _seconds(process.pid) or 0.0)
        peak = max(peak, _peak(process.pid))
    process.terminate()
    process.wait()
    if wanted not in at:
        raise SystemExit(f"{command[1]}: ended at {max(at, default=0)} of {wanted}: {said.read_text()[-2000:]}")
    return Measured(at, peak)


def _seconds(pid: int) -> float | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak(pid: int) -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


@dataclass(frozen=True)
class Bench:
    """Where both sides work."""

    folder: Path
    script: Path
    python: Path
    path: str
    batch: int

    def peer(self, *more: str, done: Callable[[str], int], wanted: int) -> Measured:
        command = [
            str(self.python), str(self.script), "--pretrained_model_name_or_path", str(find_base("pocket")),
            "--instance_data_dir", "pictures", "--class_data_dir", "class", "--with_prior_preservation",
            "--instance_prompt", f"{CONCEPTS[CONCEPT].trigger}, 1girl", "--class_prompt", "1girl", "--rank", "8",
            "--resolution", str(SIDE), "--train_batch_size", str(self.batch), "--learning_rate", "1e-4",
            "--lr_warmup_steps", "0", "--seed", "0", "--output_dir", "peer", *more,
        ]  # fmt: skip
        return watched(command, done, wanted, self.folder, {"PYTHONPATH": self.path})

    def tenuto(self, *command: str, done: Callable[[str], int], wanted: int) -> Measured:
        whole = [sys.executable, "-m", "tenuto", *command]
        return watched(whole, done, wanted, self.folder, {"TENUTO_HOME": str(self.folder / "home")})

    def files(self, name: str) -> int:
        place = self.folder / name
        return len(list(place.iterdir())) if place.exists() else 0

    # -- what is compared -----------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Twelve pictures for both; a project and its prior set for tenuto."""
        write_instances(CONCEPT, self.folder / "captioned", PICTURES)
        (self.folder / "pictures").mkdir()
        for picture in (self.folder / "captioned").glob("*.png"):
            shutil.copy(picture, self.folder / "pictures")
        (self.folder / "project.toml").write_bytes(tomli_w.dumps(self.project()).encode())
        self.tenuto("prior", "build", "project.toml", done=lambda said: int("prior images in" in said), wanted=1)

    def project(self) -> dict[str, Any]:
        own = CONCEPTS[CONCEPT]
        return {
            "base": {"model": "pocket", "device": "cpu"},
            "concepts": [{"name": own.name, "images": "captioned", "trigger": own.trigger, "class_word": "1girl"}],
            "data": {"buckets": {"max_ratio": 1.0, "upscale": True}},
            "prior": {"ratio": 1.0, "per_image": 1},
            "training": {
                "batch": self.batch, "save_every": 100_000, "watch_every": 0, "adapter": {"rank": 8},
                "optimizer": {"lr": 1e-4},
            },
            "arms": {"plain": False},
        }  # fmt: skip

    def train_peer(self, steps: int) -> Measured:
        def done(said: str) -> int:
            found = re.findall(rf"Steps:.*?\b(\d+)/{steps}\b", said)
            return int(found[-1]) if found else 0

        return self.peer("--max_train_steps", str(steps), "--num_class_images", "1", done=done, wanted=steps)

    def train_tenuto(self, steps: int, compiled: bool = False) -> Measured:
        log = self.folder / "run" / "held" / "seed-0" / "log.jsonl"
        shutil.rmtree(self.folder / "run", ignore_errors=True)

        def done(said: str) -> int:
            return len(log.read_text().splitlines()) if log.exists() else 0

        command = ("train", "project.toml", "--out", "run", "--set", f"training.steps={steps}")
        return self.tenuto(*command, *(COMPILED if compiled else ()), done=done, wanted=steps)

    def class_images(self, count: int) -> Measured:
        shutil.rmtree(self.folder / "class", ignore_errors=True)
        options = ("--num_class_images", str(count), "--max_train_steps", "1")
        found = self.peer(*options, done=lambda said: self.files("class"), wanted=count)
        for picture in (self.folder / "class").iterdir():  # the last may have been cut off with its process
            try:
                Image.open(picture).load()
            except OSError:
                picture.unlink()
        return found

    def prior_images(self, count: int, steps: int) -> Measured:
        shutil.rmtree(self.folder / "fresh", ignore_errors=True)

        def done(said: str) -> int:
            found = re.findall(r"prior images (\d+)/", said)
            return int(found[-1]) if found else 0

        changes = ("prior.store=fresh", f"prior.per_image={count // PICTURES}", f"prior.sampler.steps={steps}")
        sets = [word for change in changes for word in ("--set", change)]
        return self.tenuto("prior", "build", "project.toml", *sets, done=done, wanted=count)


def main(
    script: Annotated[Path, typer.Option(help="diffusers' train_dreambooth_lora.py")],
    python: Annotated[Path, typer.Option(help="the interpreter of its environment")],
    path: Annotated[str, typer.Option(help="PYTHONPATH of the peer")] = "",
    rounds: Annotated[int, typer.Option()] = 3,
    updates: Annotated[int, typer.Option()] = 20,
    batch: Annotated[int, typer.Option()] = 4,
    images: Annotated[int, typer.Option(help="of tenuto's: a multiple of 12, more than 16")] = 48,
    class_images: Annotated[int, typer.Option(help="of the peer's: a multiple of 4, more than 4")] = 12,
    steps: Annotated[int, typer.Option(help="of tenuto's sampler; the peer takes its pipeline's 50")] = 20,
    compiled: Annotated[
        bool, typer.Option(help="tenuto also with torch.compile: minutes before the first step")
    ] = False,
) -> None:
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(Path(place), script.resolve(), python.absolute(), path, batch)
        bench.prepare()
        taken: dict[str, list[Measured]] = {name: [] for name in ("peer", "tenuto", "compiled", "class", "prior")}
        for _ in range(rounds):
            taken["class"].append(bench.class_images(class_images))
            taken["prior"].append(bench.prior_images(images, steps))
            taken["peer"].append(bench.train_peer(updates))
            taken["tenuto"].append(bench.train_tenuto(updates))
            if compiled:
                taken["compiled"].append(bench.train_tenuto(updates, compiled=True))
    print("| | diffusers' script | tenuto | ratio |\n|---|---|---|---|")
    rows: dict[str, tuple[str, str, Callable[[Measured], float]]] = {}
    for ours, how in (("tenuto", ""), ("compiled", ", compiled")):
        if taken[ours]:
            rows[f"seconds per step{how}"] = ("peer", ours, Measured.each)
            rows[f"seconds from command to first step{how}"] = ("peer", ours, lambda own: own.at[min(own.at)])
            rows[f"peak memory of training{how}, MiB"] = ("peer", ours, lambda own: own.peak / 2**20)
    rows |= {
        f"seconds per prior image (50 steps; {steps})": ("class", "prior", Measured.each),
        "peak memory of generation, MiB": ("class", "prior", lambda own: own.peak / 2**20),
    }
    for name, (theirs, ours, value) in rows.items():
        a, b = (statistics.median(map(value, taken[own])) for own in (theirs, ours))
        print(f"| {name} | {a:.3g} | {b:.3g} | {a / b:.2f} |")


if __name__ == "__main__":
    typer.run(main)
