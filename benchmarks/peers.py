"""Beside the peers' public code, in one run, by turns: seconds per step, start, memory, prior images.

    python -m benchmarks.peers --diffusers FOLDER --sd-scripts FOLDER --python PEER/bin/python [--rounds 3]

FOLDER is diffusers' `examples/dreambooth` and a checkout of sd-scripts. Both and their environments are the user's;
nothing of them is part of tenuto. Every program trains the same LoRA, on the attention layers, with AdamW, on B
pictures and as many prior pictures an update. It is told to keep nothing on the way, and to compute beforehand what it
can (latents, text). Each is a process of its own that ends at its last step (`counted.py`); where one fails, that is
said and the others go on.

On the CPU each has one thread and processor seconds are counted, so that other work on the machine hardly moves them;
on a GPU clock seconds are. The model is pocket, or `sd1` or `sdxl`: that architecture at full size with random weights.
sd-scripts knows those two only.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, final

import tomli_w
import torch
import typer
from PIL import Image

from benchmarks.big import random_file
from benchmarks.counted import WARM
from tenuto.families.checkpoints import find_base, open_base
from tenuto.families.layouts import LAYOUTS
from tenuto.pocket.concepts import CONCEPTS, write_instances

CONCEPT, CLASS, PICTURES = "head-in-a-jar", "1girl", 12
OFFLINE = {"HF_HUB_OFFLINE": "1"}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
NARROW = 'networks.lora:LoRANetwork.UNET_TARGET_REPLACE_MODULE=["CrossAttention"]'
"""sd-scripts adapts more than attention, and has no option for that."""
TOKENIZERS = ("openai_clip-vit-large-patch14", "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k")
"""Names under which sd-scripts looks for CLIP's tokenizer on the disk."""
TICK = 0.02
GIB = 2**30


@dataclass(frozen=True)
class Work:
    """What every program is asked to do."""

    batch: int
    checkpointing: bool


@dataclass(frozen=True)
class Trained:
    """Of one training."""

    each: float
    """Seconds per step."""
    start: float
    """Seconds from the command to the end of the first step."""
    peak: float
    """GiB on the device, at most; of the process, on a CPU."""
    stepping: float | None
    """GiB on a GPU while stepping, at most."""
    host: float
    """GiB of the process, at most."""


@dataclass(frozen=True)
class Bench:
    """Where all of them work, and on what."""

    folder: Path
    model: str
    device: str
    precision: str
    side: int
    rank: int
    updates: int
    limit: float
    """Seconds that a training may take."""

    @property
    def gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def xl(self) -> bool:
        return self.model == "sdxl"

    @property
    def base(self) -> Path:
        """The diffusers folder."""
        return self.folder / "base" if self.model in LAYOUTS else Path(find_base(self.model))

    @property
    def file(self) -> Path:
        """The same as a single file, where there is one."""
        return self.folder / f"{self.model}.safetensors"

    def environment(self, path: str) -> dict[str, str]:
        return {**os.environ, **OFFLINE, **({} if self.gpu else ONE_THREAD), "PYTHONPATH": path}

    # -- what is prepared -----------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Pictures of the concept and of its class in each program's own order, and the checkpoint in both forms."""
        write_instances(CONCEPT, self.folder / "captioned", PICTURES)
        for picture in (self.folder / "captioned").glob("*.png"):
            with Image.open(picture) as own:
                own.resize((self.side, self.side), Image.Resampling.NEAREST).save(picture)
        for place, caption in (("reg", CLASS), ("sd-train/50_own", None), ("sd-reg/1_class", CLASS)):
            shutil.copytree(self.folder / "captioned", self.folder / place)
            for text in (self.folder / place).glob("*.txt") if caption else ():
                text.write_text(CLASS)
        (self.folder / "pictures").mkdir()
        for picture in (self.folder / "captioned").glob("*.png"):
            shutil.copy(picture, self.folder / "pictures")
        tokenizer = (LAYOUTS["sd1"] if self.model not in LAYOUTS else LAYOUTS[self.model]).tokenizer_folder()
        for name in TOKENIZERS:
            shutil.copytree(tokenizer, self.folder / "tokenizers" / name)
        if self.model in LAYOUTS:
            random_file(self.model, str(self.file))
            write_folder(self.model, self.file, self.base)

    def class_pictures(self, count: int) -> str:
        """A folder of so many class pictures: diffusers' script begins an epoch anew when it has seen all."""
        place = self.folder / f"class-{count}"
        place.mkdir(exist_ok=True)
        own = sorted((self.folder / "pictures").iterdir())
        for number in range(count):
            if not (link := place / f"{number}.png").exists():
                os.link(own[number % len(own)], link)
        return place.name


def write_folder(form: str, file: Path, folder: Path) -> None:
    """The checkpoint of this layout in diffusers' layout."""
    layout, base = LAYOUTS[form], open_base(str(file), device="cpu", dtype=torch.bfloat16)
    parts: dict[str, Any] = {"unet": base.denoiser, "vae": getattr(base, "vae")}  # noqa: B009
    for number, encoder in enumerate(base.text_encoders.values()):
        parts["text_encoder" if not number else f"text_encoder_{number + 1}"] = encoder
    index: dict[str, Any] = {"_class_name": layout.pipeline, "scheduler": ["diffusers", "DDPMScheduler"]}
    for name, part in parts.items():
        part.to(torch.bfloat16).save_pretrained(folder / name)
        index[name] = [type(part).__module__.partition(".")[0], type(part).__name__]
        if name.startswith("text_encoder"):
            words = name.replace("text_encoder", "tokenizer")
            shutil.copytree(layout.tokenizer_folder(), folder / words)
            index[words] = ["transformers", "CLIPTokenizer"]
    (folder / "scheduler").mkdir()
    scheduler = {"_class_name": "DDPMScheduler", **layout.scheduler}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    (folder / "model_index.json").write_text(json.dumps(index))


# -- the programs ---------------------------------------------------------------------------------------------------


class Failed(Exception):
    """A program did not do its work; the message tells what it said last."""


@dataclass(frozen=True)
class Program(ABC):
    """One of those that are compared."""

    bench: Bench
    python: Path
    path: str
    """Its PYTHONPATH."""

    @abstractmethod
    def training(self, work: Work) -> list[str]:
        """The program and its arguments for `bench.updates` steps."""

    def train(self, work: Work) -> Trained:
        """In a process of its own, ended at its last step."""
        bench = self.bench
        for place in ("run", "home", "peer"):
            shutil.rmtree(bench.folder / place, ignore_errors=True)
        report, said = bench.folder / "report.json", bench.folder / "said.txt"
        report.unlink(missing_ok=True)
        counted = [str(Path(__file__).with_name("counted.py")), str(report), str(bench.updates)]
        start = time.time()
        with said.open("w") as out:
            process = subprocess.Popen(
                [str(self.python), *counted, *self.training(work)],
                cwd=bench.folder, env=self.environment(), stdout=out, stderr=out,
            )  # fmt: skip
            try:
                process.wait(timeout=bench.limit)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise Failed(f"not done after {bench.limit:.0f} s: {_last(said)}") from None
        if not report.exists():
            raise Failed(f"ended with {process.returncode}: {_last(said)}")
        told = json.loads(report.read_text())
        clock = told["wall"] if bench.gpu else told["processor"]
        device = told.get("peak", told["host"])
        return Trained(
            each=(clock[-1] - clock[WARM - 1]) / (len(clock) - WARM),
            start=clock[0] - (start if bench.gpu else 0.0),
            peak=device / GIB,
            stepping=told["stepping"] / GIB if "stepping" in told else None,
            host=told["host"] / GIB,
        )

    def environment(self) -> dict[str, str]:
        return self.bench.environment(self.path)


def _last(said: Path) -> str:
    return said.read_text(errors="replace")[-2000:]


@final
@dataclass(frozen=True)
class Diffusers(Program):
    """train_dreambooth_lora.py and train_dreambooth_lora_sdxl.py"""

    folder: Path

    def training(self, work: Work) -> list[str]:
        count = max(PICTURES, work.batch * self.bench.updates)
        more = ["--gradient_checkpointing"] * work.checkpointing + ["--dataloader_num_workers", "4"] * self.bench.gpu
        classes = ["--class_data_dir", self.bench.class_pictures(count), "--num_class_images", str(count)]
        if self.bench.xl:
            more += ["--repeats", str(-(-count // PICTURES))]
        else:
            more += ["--pre_compute_text_embeddings"]  # the other always does
        return self.command(work.batch, *classes, *more)

    def command(self, batch: int, *more: str) -> list[str]:
        """`--train_batch_size` counts the instance pictures alone."""
        bench = self.bench
        return [
            str(self.folder / f"train_dreambooth_lora{'_sdxl' * bench.xl}.py"),
            "--pretrained_model_name_or_path", str(bench.base), "--instance_data_dir", "pictures",
            "--with_prior_preservation", "--instance_prompt", f"{CONCEPTS[CONCEPT].trigger}, {CLASS}",
            "--class_prompt", CLASS, "--rank", str(bench.rank), "--resolution", str(bench.side),
            "--train_batch_size", str(batch), "--learning_rate", "1e-4", "--lr_warmup_steps", "0", "--seed", "0",
            "--max_train_steps", str(bench.updates), "--output_dir", "peer",
            "--mixed_precision", "bf16" if bench.precision == "bf16" else "no", *more,
        ]  # fmt: skip


@final
@dataclass(frozen=True)
class SdScripts(Program):
    """train_network.py and sdxl_train_network.py"""

    folder: Path
    base: Path
    """The single file, or the diffusers folder."""

    def training(self, work: Work) -> list[str]:
        bench = self.bench
        precision = "bf16" if bench.precision == "bf16" else "no"
        command = [
            "--set", NARROW, str(self.folder / f"{'sdxl_' * bench.xl}train_network.py"),
            "--pretrained_model_name_or_path", str(self.base), "--tokenizer_cache_dir", "tokenizers",
            "--train_data_dir", "sd-train", "--reg_data_dir", "sd-reg", "--caption_extension", ".txt",
            "--resolution", str(bench.side), "--train_batch_size", str(2 * work.batch), "--cache_latents", "--sdpa",
            "--network_module", "networks.lora", "--network_dim", str(bench.rank), "--network_alpha", str(bench.rank),
            "--network_train_unet_only", "--optimizer_type", "AdamW", "--learning_rate", "1e-4",
            "--lr_scheduler", "constant", "--max_train_steps", str(bench.updates), "--mixed_precision", precision,
            "--max_data_loader_n_workers", "0", "--seed", "0", "--output_dir", "peer", "--output_name", "peer",
        ]  # fmt: skip
        if bench.xl:
            command += ["--cache_text_encoder_outputs", "--no_half_vae"]
        return command + ["--gradient_checkpointing"] * work.checkpointing


@final
@dataclass(frozen=True)
class Tenuto(Program):
    """`tenuto train`"""

    compiled: bool = False

    def training(self, work: Work) -> list[str]:
        changes = {
            "training.batch": work.batch,
            "training.gradient_checkpointing": json.dumps(work.checkpointing),
            "training.compile": json.dumps(self.compiled),
        }
        project = self.write(regular=True)
        return ["-m", "tenuto", "train", project, "--out", "run", *_sets(changes)]

    def environment(self) -> dict[str, str]:
        return super().environment() | {"TENUTO_HOME": str(self.bench.folder / "home")}

    def write(self, *, regular: bool) -> str:
        """The project, with the peers' own class pictures or with prior images to be made."""
        bench, own = self.bench, CONCEPTS[CONCEPT]
        folders = [{"path": "reg", "caption": CLASS}] if regular else []
        project = {
            "base": {"model": str(bench.base), "device": bench.device},
            "concepts": [{"name": own.name, "images": "captioned", "trigger": own.trigger, "class_word": CLASS}],
            "data": {"buckets": {"area": bench.side**2, "max_ratio": 1.0, "upscale": True}},
            "prior": {"ratio": 1.0, "per_image": 0, "folders": folders},
            "training": {
                "steps": bench.updates, "precision": bench.precision, "save_every": 100_000, "watch_every": 0,
                "adapter": {"rank": bench.rank}, "optimizer": {"lr": 1e-4},
            },
            "arms": {"plain": False},
        }  # fmt: skip
        name = "regular.toml" if regular else "made.toml"
        (bench.folder / name).write_bytes(tomli_w.dumps(project).encode())
        return name


def _sets(changes: Mapping[str, object]) -> list[str]:
    return [word for name, value in changes.items() for word in ("--set", f"{name}={value}")]


# -- prior images ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """Of one generation of pictures."""

    each: float
    """Seconds a picture, between the first and the last that were seen."""
    host: float
    """GiB of the process, at most."""


def watched(program: Program, command: list[str], done: Callable[[str], int], wanted: int) -> Made:
    """Run a command until `done`, told what it has printed so far, says that all is done."""
    bench = program.bench
    said = bench.folder / "said.txt"
    start = time.time()
    with said.open("w") as out:
        process = subprocess.Popen(
            [str(program.python), *command], cwd=bench.folder, env=program.environment(), stdout=out, stderr=out
        )
    at: dict[int, float] = {}
    peak = 0
    while process.poll() is None and wanted not in at and time.time() - start < bench.limit:
        time.sleep(TICK)
        if count := done(said.read_text(errors="replace")):
            at.setdefault(count, time.time() if bench.gpu else _seconds(process.pid))
        peak = max(peak, _peak(process.pid))
    process.kill()
    process.wait()
    if wanted not in at or len(at) < 2:
        raise Failed(f"ended at {max(at, default=0)} of {wanted}: {_last(said)}")
    first, last = min(at), max(at)
    return Made((at[last] - at[first]) / (last - first), peak / GIB)


def _seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak(pid: int) -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def class_images(program: Diffusers, count: int) -> Made:
    """The peer's pipeline takes 50 steps, on 4 pictures at once; only whole fours are counted."""
    place = program.bench.folder / "class"
    shutil.rmtree(place, ignore_errors=True)
    command = program.command(1, "--class_data_dir", "class", "--num_class_images", str(count))
    return watched(program, command, lambda said: len(list(place.iterdir())) // 4 * 4 if place.exists() else 0, count)


def prior_images(program: Tenuto, count: int, steps: int) -> Made:
    shutil.rmtree(program.bench.folder / "fresh", ignore_errors=True)
    changes = {"prior.store": "fresh", "prior.per_image": count // PICTURES, "prior.sampler.steps": steps}
    command = ["-m", "tenuto", "prior", "build", program.write(regular=False), *_sets(changes)]

    def done(said: str) -> int:
        found = re.findall(r"prior images (\d+)/", said)
        return int(found[-1]) if found else 0

    return watched(program, command, done, count)


# -- the command ----------------------------------------------------------------------------------------------------


@dataclass
class Results:
    """What was measured so far; what failed stands there by its last words."""

    out: Path | None
    began: float
    until: float
    """Seconds after which nothing new is begun."""
    taken: dict[str, list[dict[str, Any]]]

    def add(self, name: str, measure: Callable[[], Trained | Made]) -> None:
        if time.time() - self.began > self.until:
            found: dict[str, Any] = {"failed": "not begun for want of time"}
        else:
            try:
                found = asdict(measure())
            except (Failed, OSError) as error:
                found = {"failed": str(error)}
        self.taken.setdefault(name, []).append(found)
        print(f"{time.time() - self.began:.0f} s: {name}: {found}", file=sys.stderr, flush=True)
        if self.out:
            self.out.write_text(json.dumps(self.taken, indent=1))

    def of(self, name: str, field: str) -> float | None:
        found = [own[field] for own in self.taken.get(name, ()) if own.get(field) is not None]
        return statistics.median(found) if found else None


def main(
    diffusers: Annotated[Path | None, typer.Option(help="diffusers' examples/dreambooth")] = None,
    sd_scripts: Annotated[Path | None, typer.Option(help="a checkout of sd-scripts")] = None,
    python: Annotated[Path, typer.Option(help="the interpreter of the peers")] = Path(sys.executable),
    path: Annotated[str, typer.Option(help="PYTHONPATH of diffusers' script")] = "",
    sd_python: Annotated[Path | None, typer.Option(help="the interpreter of sd-scripts, if another")] = None,
    sd_path: Annotated[str, typer.Option(help="PYTHONPATH of sd-scripts")] = "",
    sd_folder: Annotated[bool, typer.Option(help="sd-scripts reads the diffusers folder, not the file")] = False,
    model: Annotated[str, typer.Option(help="pocket, sd1 or sdxl")] = "pocket",
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    precision: Annotated[str, typer.Option(help="fp32 or bf16")] = "fp32",
    side: Annotated[int, typer.Option(help="of a picture, in pixels")] = 64,
    rank: Annotated[int, typer.Option()] = 8,
    rounds: Annotated[int, typer.Option()] = 3,
    updates: Annotated[int, typer.Option(help="more than 2")] = 20,
    batch: Annotated[list[int] | None, typer.Option(help="instance pictures an update; as often as wanted")] = None,
    checkpointed: Annotated[list[int] | None, typer.Option(help="the same, with gradient checkpointing")] = None,
    compiled: Annotated[bool, typer.Option(help="tenuto also with torch.compile")] = False,
    images: Annotated[int, typer.Option(help="of tenuto's: a multiple of 12, more than 16; 0: none")] = 0,
    made: Annotated[int, typer.Option(help="of diffusers' script: a multiple of 4, more than 4")] = 12,
    steps: Annotated[int, typer.Option(help="of tenuto's sampler; the peer takes its pipeline's 50")] = 20,
    limit: Annotated[float, typer.Option(help="seconds that one program may take")] = 3600.0,
    until: Annotated[float, typer.Option(help="seconds after which nothing new is begun")] = float("inf"),
    out: Annotated[Path | None, typer.Option(help="all that was measured, as JSON")] = None,
) -> None:
    works = [Work(own, False) for own in batch or (() if checkpointed else (4,))]
    works += [Work(own, True) for own in checkpointed or ()]
    results = Results(out, time.time(), until, {})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        bench = Bench(Path(place), model, device, precision, side, rank, updates, limit)
        bench.prepare()
        own = os.environ.get("PYTHONPATH", "")
        ours = Tenuto(bench, Path(sys.executable), own)
        programs: dict[str, Program] = {"tenuto": ours}
        if compiled:
            programs["tenuto, compiled"] = Tenuto(bench, Path(sys.executable), own, compiled=True)
        if diffusers:
            programs["diffusers"] = Diffusers(bench, python.absolute(), path, diffusers.resolve())
        if sd_scripts and model in LAYOUTS:
            read = bench.base if sd_folder else bench.file
            theirs = (sd_python or python).absolute()
            programs["sd-scripts"] = SdScripts(bench, theirs, sd_path, sd_scripts.resolve(), read)
        for _ in range(rounds):
            for work in works:
                for name, program in programs.items():
                    results.add(_title(work, name), partial(program.train, work))
            if images:
                results.add("tenuto", partial(prior_images, ours, images, steps))
                peer = programs.get("diffusers")
                if isinstance(peer, Diffusers):
                    results.add("diffusers", partial(class_images, peer, made))
    show(results, works, list(programs), steps)


def _title(work: Work, program: str) -> str:
    return f"{work.batch} + {work.batch}{', checkpointing' * work.checkpointing} | {program}"


def show(results: Results, works: list[Work], programs: list[str], steps: int) -> None:
    """Markdown; ratios are to tenuto, so that above 1 it is the better."""
    print("| batch | program | s / step | to tenuto | start, s | peak, GiB | while stepping | host, GiB |")
    print("|---|---|---|---|---|---|---|---|")
    for work in works:
        ours = results.of(_title(work, "tenuto"), "each")
        for name in programs:
            title = _title(work, name)
            each = results.of(title, "each")
            ratio = each / ours if each and ours else None
            cells = [each, ratio, *(results.of(title, field) for field in ("start", "peak", "stepping", "host"))]
            print(f"| {title} | " + " | ".join("–" if cell is None else f"{cell:.3g}" for cell in cells) + " |")
    made = {name: results.of(name, "each") for name in ("diffusers", "tenuto")}
    if any(made.values()):
        print(f"\nSeconds per prior image (diffusers 50 steps, tenuto {steps}): {made}")
    failed = {name: own["failed"] for name, all_of in results.taken.items() for own in all_of if "failed" in own}
    for name, words in failed.items():
        print(f"\n{name} failed: {words}")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
