"""What the programs of `benchmarks.peers` work on, how each is called, and how it is watched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, final

import tomli_w
import torch
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
GIB = 2**30


class Hold(StrEnum):
    """What holds the base."""

    NOTHING = ""
    PICTURES = "prior preservation"
    """As many prior pictures an update as instance pictures."""
    OWN = "its own default"
    """What the program does where nobody asks for anything."""


@dataclass(frozen=True)
class Work:
    """What every program is asked to do."""

    batch: int
    """Instance pictures an update."""
    checkpointing: bool = False
    hold: Hold = Hold.PICTURES

    def __str__(self) -> str:
        rows = f"{self.batch} + {self.batch}" if self.hold == Hold.PICTURES else str(self.batch)
        return rows + ", held" * (self.hold == Hold.OWN) + ", checkpointing" * self.checkpointing


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
                raise Failed(f"not done after {bench.limit:.0f} s: {last_words(said)}") from None
        if not report.exists():
            raise Failed(f"ended with {process.returncode}: {last_words(said)}")
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


def last_words(said: Path) -> str:
    return said.read_text(errors="replace")[-2000:]


@final
@dataclass(frozen=True)
class Diffusers(Program):
    """train_dreambooth_lora.py and train_dreambooth_lora_sdxl.py"""

    folder: Path

    def training(self, work: Work) -> list[str]:
        count = max(PICTURES, work.batch * self.bench.updates)
        more = ["--gradient_checkpointing"] * work.checkpointing  # its loader cannot have workers: texts are on the GPU
        if self.bench.xl:
            more += ["--repeats", str(-(-count // PICTURES))]
        else:
            more += ["--pre_compute_text_embeddings"]  # the other always does
        if work.hold == Hold.PICTURES:
            more += self.classes(self.bench.class_pictures(count), count)
        return self.command(work.batch, *more)

    def classes(self, folder: str, count: int) -> list[str]:
        """The class pictures; it makes those that the folder lacks."""
        told = ["--class_data_dir", folder, "--class_prompt", CLASS, "--num_class_images", str(count)]
        return ["--with_prior_preservation", *told]

    def command(self, batch: int, *more: str) -> list[str]:
        """`--train_batch_size` counts the instance pictures alone."""
        bench = self.bench
        return [
            str(self.folder / f"train_dreambooth_lora{'_sdxl' * bench.xl}.py"),
            "--pretrained_model_name_or_path", str(bench.base), "--instance_data_dir", "pictures",
            "--instance_prompt", f"{CONCEPTS[CONCEPT].trigger}, {CLASS}",
            "--rank", str(bench.rank), "--resolution", str(bench.side),
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
        regular = work.hold == Hold.PICTURES
        command = [
            "--set", NARROW, str(self.folder / f"{'sdxl_' * bench.xl}train_network.py"),
            "--pretrained_model_name_or_path", str(self.base), "--tokenizer_cache_dir", "tokenizers",
            "--train_data_dir", "sd-train", *(["--reg_data_dir", "sd-reg"] if regular else ()),
            "--caption_extension", ".txt", "--resolution", str(bench.side),
            "--train_batch_size", str(work.batch * (2 if regular else 1)), "--cache_latents", "--sdpa",
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
        return ["-m", "tenuto", "train", self.write(work.hold), "--out", "run", *sets(changes)]

    def environment(self) -> dict[str, str]:
        return super().environment() | {"TENUTO_HOME": str(self.bench.folder / "home")}

    def write(self, hold: Hold) -> str:
        """The project: held by nothing, by the peers' own class pictures, or by prior images that are made."""
        bench, own = self.bench, CONCEPTS[CONCEPT]
        prior: dict[Hold, dict[str, Any]] = {
            Hold.NOTHING: {"ratio": 0.0, "per_image": 0},
            Hold.PICTURES: {"ratio": 1.0, "per_image": 0, "folders": [{"path": "reg", "caption": CLASS}]},
            Hold.OWN: {"per_image": 1},
        }
        project = {
            "base": {"model": str(bench.base), "device": bench.device},
            "concepts": [{"name": own.name, "images": "captioned", "trigger": own.trigger, "class_word": CLASS}],
            "data": {"buckets": {"area": bench.side**2, "max_ratio": 1.0, "upscale": True}},
            "prior": prior[hold],
            "training": {
                "steps": bench.updates, "precision": bench.precision, "save_every": 100_000, "watch_every": 0,
                "adapter": {"rank": bench.rank}, "optimizer": {"lr": 1e-4},
            },
            "arms": {"plain": False},
        }  # fmt: skip
        name = f"{hold.name.lower()}.toml"
        (bench.folder / name).write_bytes(tomli_w.dumps(project).encode())
        return name


def sets(changes: Mapping[str, object]) -> list[str]:
    return [word for name, value in changes.items() for word in ("--set", f"{name}={value}")]
