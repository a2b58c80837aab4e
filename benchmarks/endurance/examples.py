"""Valid examples of every foreign file, small enough to be read in a moment. Made by the tests' own makers."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from tests.adapters.made_up import random_lora
from tests.evaluation.made_up import made_up
from tests.evaluation.real_readers import clip_folder, dino_folder, wd_folder
from tests.formats.systems import D8_CONCEPTS, D8_CONFIG, write_all
from tests.jobs import noise_pictures
from tests.single_files import ldm_tensors, tiny_layout, write_single_file
from tests.steps import make_run
from tests.tiny import tiny_sd_folder, tiny_sdxl_folder
from torch import Tensor

from tenuto.data.cache import Cache, key_of
from tenuto.data.editing import CaptionEdit, edit_captions, write_captions
from tenuto.evaluation.convnet import ConvTagger, TaggerConfig
from tenuto.evaluation.readings import Store
from tenuto.evaluation.record import Comparison
from tenuto.evaluation.sweep import ArmRecord, SweepResult, on_concept
from tenuto.evaluation.taggers import save_convnet
from tenuto.events import EventFile, note, progress, stage
from tenuto.families.checkpoints import open_base
from tenuto.families.layouts import LAYOUTS
from tenuto.families.sampling import SamplerSettings
from tenuto.files import write_json
from tenuto.prior.build import build
from tenuto.prior.plan import PriorPlan, plan_prior
from tenuto.prior.prompts import PriorPrompt
from tenuto.prior.store import PriorStore
from tenuto.project.file import load_project
from tenuto.project.settings import Project
from tenuto.training.loop import train
from tenuto.web.jobs import Job
from tenuto.words import Size, Stopped

PLACE = Path("runs/endurance/examples").absolute()
"""Where what several examples need is made once."""
UPDATES = 3
READING_KEY, READING = {"format": 1, "noise": 0}, {"gaps": [1.0, 2.0]}
CACHE_KEY = key_of("a", "picture")

PROJECT = """
seed = 3
[base]
model = "sd"
device = "cpu"
[[concepts]]
name = "eyes"
kind = "concept"
images = "pictures"
trigger = "zxq"
class_word = "1girl"
repeats = 2
[concepts.prior]
per_image = 3
[data.buckets]
max_ratio = 2.0
[data.variation]
shuffle = true
keep_tokens = 1
[prior]
prompts = "match"
ratio = 0.5
filters = ["meta"]
[prior.sampler]
sampler = "euler_a"
steps = 4
guidance = 5.0
negative = "blurry"
[regularizers.prior_preservation]
weight = 0.25
[regularizers.drift_controller]
budget = 0.1
[training]
epochs = 3
batch = 2
[training.adapter]
rank = 2
parts = ["attention"]
[training.optimizer]
name = "adamw"
lr = 1e-3
[arms]
seeds = [0, 1]
[comparison]
prompts = 1
weights = [0.0, 1.0]
"""
SWEEP = """
project = "p.toml"
about = "how many?"
seeds = [0, 1]
[settings]
"training.epochs" = 2
[axes]
"prior.per_image" = [1, 2]
"regularizers.prior_preservation.weight" = [0.1, 0.25]
[arms.none]
regularizers = {}
"""
CAPTIONS = (
    "zxq, 1girl, red hair, artist name",
    "zxq, smile, city, \\(a\\)",
    "zxq, a girl who stands in a long street.",
)
BANK = """
people = ["hair"]
[groups]
subject = ["1girl, solo", "no humans"]
hair = ["red hair", "long hair"]
place = ["beach", "forest"]
[chance]
hair = 0.5
"""


@cache
def checkpoint() -> Path:
    return tiny_sd_folder(PLACE / "sd")


@cache
def xl_checkpoint() -> Path:
    return tiny_sdxl_folder(PLACE / "xl")


# -- projects ---------------------------------------------------------------------------------------------------------


def project(folder: Path) -> None:
    for part in ("unet", "vae"):
        (folder / "sd" / part).mkdir(parents=True)
        shutil.copy(checkpoint() / part / "config.json", folder / "sd" / part)
    noise_pictures(folder / "pictures", [(16, 16), (24, 16), (16, 16)], CAPTIONS)
    (folder / "p.toml").write_text(PROJECT, encoding="utf-8")


@cache
def small_project() -> Project:
    folder = PLACE / "project"
    if not folder.is_dir():
        project(folder)
    return load_project(folder / "p.toml")


def sweep_file(folder: Path) -> None:
    project(folder)
    (folder / "ask.toml").write_text(SWEEP, encoding="utf-8")


def configs(folder: Path) -> None:
    write_all(folder)
    (folder / "options.txt").write_text("--network_dim 8 --learning_rate=1e-4 --seed 3 --max_train_epochs=2")


def d8_folder(folder: Path) -> None:
    write_all(folder)
    (folder / "model").mkdir()
    for name, value in {"db_config": {**D8_CONFIG, "model_dir": "model"}, "concepts_list": D8_CONCEPTS}.items():
        (folder / "model" / f"{name}.json").write_text(json.dumps(value))


# -- words and pictures -----------------------------------------------------------------------------------------------


def tag_lists(folder: Path) -> None:
    (folder / "captions").mkdir()
    for number, text in enumerate(CAPTIONS):
        (folder / "captions" / f"{number}.txt").write_text(text)
    rows = (
        ("1girl", 0, 9, ""),
        ("artist_name", 5, 8, ""),
        ("saber_(fate)", 4, 7, "saber,seiba"),
        ("fate", 3, 6, "fsn"),
    )
    lines = [f'{tag},{category},{count},"{aliases}"' for tag, category, count, aliases in rows]
    (folder / "danbooru.csv").write_text("\n".join(lines) + "\n")
    lines = [f"{n},{tag},{category},{count}" for n, (tag, category, count, _) in enumerate(rows)]
    (folder / "selected_tags.csv").write_text("\n".join(["tag_id,name,category,count", *lines]) + "\n")
    table = {str(n): {"tag": tag, "category": "General"} for n, (tag, *_) in enumerate(rows)}
    (folder / "tag_mapping.json").write_text(json.dumps(table))


def captioned(folder: Path) -> None:
    project(folder)
    for path in (folder / "pictures").iterdir():
        path.rename(folder / path.name)
    (folder / "pictures").rmdir()
    (folder / "p.toml").write_text(PROJECT.replace('"pictures"', '"."'), encoding="utf-8")


def bank(folder: Path) -> None:
    (folder / "bank.toml").write_text(BANK, encoding="utf-8")


def pictures(folder: Path) -> None:
    captioned(folder)
    for path in folder.glob("*.png"):
        path.unlink()
    flat = Image.effect_noise((32, 24), 60).convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6
    flat.save(folder / "0.png")
    flat.convert("RGBA").save(folder / "1.png")
    flat.quantize(16).save(folder / "2.png", transparency=3)
    Image.new("I;16", (32, 24), 900).save(folder / "3.png")
    flat.save(folder / "4.jpg", exif=turned, progressive=True)
    flat.convert("CMYK").save(folder / "5.jpg")
    flat.convert("RGBA").save(folder / "6.webp", exif=turned)
    flat.save(folder / "7.webp", save_all=True, append_images=[flat.rotate(90)])
    flat.save(folder / "8.bmp")
    for path in (*folder.glob("?.*"),):
        path.with_suffix(".txt").write_text("zxq, smile")


def masks(folder: Path) -> None:
    """Masks of their own, beside the pictures in another folder."""
    project(folder)
    (folder / "p.toml").write_text(
        PROJECT.replace('trigger = "zxq"', 'trigger = "zxq"\nmasks = "masks"'), encoding="utf-8"
    )
    (folder / "masks").mkdir()
    for path in (folder / "pictures").glob("*.png"):
        with Image.open(path) as picture:
            Image.new("L", picture.size, 128).save(folder / "masks" / path.name)


# -- weights ----------------------------------------------------------------------------------------------------------


@cache
def _shapes() -> Mapping[str, tuple[int, ...]]:
    """Some layers of the tiny checkpoint: kohya's name -> shape of the weight."""
    wanted = ("attn2.to_k", "attn1.to_q", "conv1", "mlp.fc1")
    found: dict[str, tuple[int, ...]] = {}
    for prefix, module in open_base(str(checkpoint()), device="cpu").modules().items():
        for name, layer in module.named_modules():
            if name.endswith(wanted) and len(found) < 6:
                found[f"{prefix}.{name}"] = tuple(layer.weight.shape)
    return found


def _kohya(name: str) -> str:
    prefix, _, rest = name.partition(".")
    return f"{prefix}_{rest.replace('.', '_')}"


def kohya_lora(folder: Path) -> None:
    tensors = {
        f"{_kohya(name)}.{field}": value
        for name, shape in _shapes().items()
        for field, value in random_lora(shape, rank=2).layer(torch.float16).tensors.items()
    }
    header = {"ss_network_dim": "2", "ss_network_args": '{"conv_dim": "2"}', "ss_tag_frequency": '{"a": {"b": 1}}'}
    save_file(tensors, folder / "lora.safetensors", metadata=header)


@cache
def lora() -> Path:
    """Of a layer that both tiny checkpoints have."""
    place = PLACE / "lora.safetensors"
    name = "lora_unet_down_blocks_0_resnets_0_conv1"
    layer = random_lora((8, 8, 3, 3), rank=2).layer(torch.float32)
    save_file({f"{name}.{field}": value for field, value in layer.tensors.items()}, place)
    return place


def _dotted(name: str) -> str:
    prefix, _, rest = name.partition(".")
    return f"{'unet' if prefix == 'lora_unet' else 'text_encoder'}.{rest}"


def diffusers_lora(folder: Path) -> None:
    tensors: dict[str, Tensor] = {}
    for name, shape in _shapes().items():
        own = random_lora(shape, rank=2)
        tensors |= {f"{_dotted(name)}.lora.down.weight": own.down, f"{_dotted(name)}.lora.up.weight": own.up}
    save_file({n: v.contiguous() for n, v in tensors.items()}, folder / "lora.safetensors", metadata={"format": "pt"})


def peft_lora(folder: Path) -> None:
    tensors: dict[str, Tensor] = {}
    for name, shape in _shapes().items():
        own = random_lora(shape, rank=2)
        tensors |= {f"{_dotted(name)}.lora_A.weight": own.down, f"{_dotted(name)}.lora_B.weight": own.up}
    config = {"unet.r": 2, "unet.lora_alpha": 4, "unet.alpha_pattern": {"to_q": 1.0}, "unet.use_rslora": True}
    header = {"lora_adapter_metadata": json.dumps(config)}
    save_file({n: v.contiguous() for n, v in tensors.items()}, folder / "lora.safetensors", metadata=header)


def lycoris(folder: Path) -> None:
    """LoHa, LoKr, DoRA and a Tucker-decomposed convolution."""
    tensors: dict[str, Tensor] = {}
    for number, (name, (rows, columns, *kernel)) in enumerate(_shapes().items()):
        inner = columns * (kernel[0] * kernel[1] if kernel else 1)
        own: dict[str, tuple[int, ...]]
        if kernel:
            own = {"lora_down.weight": (2, columns, 1, 1), "lora_up.weight": (rows, 2, 1, 1),
                   "lora_mid.weight": (2, 2, *kernel)}  # fmt: skip
        elif number % 3 == 0:
            own = {"hada_w1_a": (rows, 2), "hada_w2_a": (rows, 2), "hada_w1_b": (2, inner), "hada_w2_b": (2, inner)}
        elif number % 3 == 1:
            own = {"lokr_w1": (2, 2), "lokr_w2_a": (rows // 2, 2), "lokr_w2_b": (2, inner // 2)}
        else:
            own = {"lora_down.weight": (2, columns), "lora_up.weight": (rows, 2), "dora_scale": (rows, 1)}
        tensors |= {f"{_kohya(name)}.{field}": torch.rand(shape) for field, shape in own.items()}
        tensors[f"{_kohya(name)}.alpha"] = torch.tensor(2.0)
    save_file(tensors, folder / "lora.safetensors", metadata={"ss_network_module": "lycoris.kohya"})


def single_file(folder: Path) -> None:
    write_single_file(folder / "sd.safetensors", ldm_tensors(checkpoint(), "sd1"), {"modelspec.prediction_type": "v"})


def single_xl_file(folder: Path) -> None:
    write_single_file(folder / "xl.safetensors", ldm_tensors(xl_checkpoint(), "sdxl"), {"format": "pt"})


def let_tiny_files_be_known() -> None:
    """Single files of the tiny checkpoints are recognised in this process, as the tests do it."""
    layouts: Any = LAYOUTS
    layouts |= {"tiny": tiny_layout(checkpoint(), "sd1"), "tiny xl": tiny_layout(xl_checkpoint(), "sdxl")}


def checkpoint_folder(folder: Path) -> None:
    shutil.copytree(checkpoint(), folder / "sd")


def pickled(folder: Path) -> None:
    whole = {"state_dict": {"a": torch.ones(3, 3), "b": {"c": torch.zeros(2, dtype=torch.float16)}}, "epoch": 3}
    torch.save(whole, folder / "weights.pt", _use_new_zipfile_serialization=False, pickle_module=pickle)


def onnx_tagger(folder: Path) -> None:
    wd_folder(folder / "tagger", [[0.5] * 8, [0.2] * 8, [0.1] * 8])


def own_tagger(folder: Path) -> None:
    torch.manual_seed(0)
    config = TaggerConfig(widths=(8, 16), groups={"hair": ("red", "blue"), "hat": ("cap",)}, several=("hat",))
    save_convnet(ConvTagger(config), folder / "tagger")


def dino(folder: Path) -> None:
    dino_folder(folder / "dino")


def clip(folder: Path) -> None:
    clip_folder(folder / "clip")


# -- our own files ----------------------------------------------------------------------------------------------------


@cache
def prior_plan() -> PriorPlan:
    prompts = [PriorPrompt(text, f"item {n}", "c", Size(16, 16)) for n, text in enumerate(("a dog", "a cat", "trees"))]
    return plan_prior(prompts, SamplerSettings(steps=3, guidance=3), seed=0, batch=2)


def prior_store(folder: Path) -> None:
    base = open_base(str(checkpoint()), device="cpu")
    build(prior_plan(), base, PriorStore.open(base.hash, folder / "store"), states=2)
    shutil.rmtree(folder / "store" / "claims", ignore_errors=True)


def training_state(folder: Path) -> None:
    run = make_run(open_base(str(checkpoint()), device="cpu"), folder / "run", steps=UPDATES + 1, save_every=1)
    run.stop = lambda: run.done >= UPDATES
    with suppress(Stopped):
        train(run)
    run.adapter.detach()
    states = sorted((folder / "run" / "states").iterdir())
    states[0].unlink()  # so that there is no older one to fall back on


def comparison(folder: Path) -> None:
    result, _ = made_up(folder)
    for log in folder.glob("*.jsonl"):
        log.write_text("".join(log.read_text().splitlines(keepends=True)[:12]))
    few = {
        "curves": {arm: points[:8] for arm, points in result.curves.items()},
        "prompts": result.prompts[:2],
        "pictures": {arm: {"trained": rows["trained"][:1]} for arm, rows in result.pictures.items()},
    }
    result.model_copy(update=few).save(folder / "comparison.json")
    for picture in folder.rglob("pictures/*/*.png"):
        if picture.name != "trained-0.png":
            picture.unlink()


def sweep_result(folder: Path) -> None:
    place = folder / "comparison" / "c"
    place.mkdir(parents=True)
    comparison(place)
    arms = [
        ArmRecord(name=name, updates=9, pool=5, ratio={"c": 1.0}, weight={"p": 0.2}, prior_rows=3, used=3, unused=2)
        for name in ("plain", "held")
    ]
    on = {"c": on_concept(Comparison.load(place / "comparison.json"), "plain", "comparison/c")}
    SweepResult(name="ask", seeds=[0], reference="plain", arms=arms, concepts=on).save(folder / "sweep.json")


def readings(folder: Path) -> None:
    Store(folder).keep("plain-0-far", READING_KEY, lambda: READING)


def run_folder(folder: Path) -> None:
    with EventFile(folder) as listener:
        stage(listener, "prior set")
        progress(listener, "prior images", 1, 2)
        note(listener, "a note")
        progress(listener, "prior images", 2, 2)
    place = folder / "held" / "seed-0"
    place.mkdir(parents=True)
    lines = [json.dumps({"update": n, "loss.instance": 0.5, "drift": 0.1, "seconds": 1.0}) for n in (1, 2, 3)]
    (place / "log.jsonl").write_text("\n".join(lines) + "\n")
    write_json(place / "plan.json", {"updates": 9, "pool": 3, "used": {"a": 1}, "unused": []})


def queue(folder: Path) -> None:
    place = folder / "runs" / ".jobs"
    place.mkdir(parents=True)
    for number in (1, 2):
        job = Job(id=f"{number:014d}", key="p", what="run", file=str(folder / "p.toml"), folder="runs/p", state="done")
        (place / f"{job.id}.json").write_text(job.model_dump_json())


def cached(folder: Path) -> None:
    Cache(folder / "cache").put(CACHE_KEY, cached_tensors())


def cached_tensors() -> dict[str, torch.Tensor]:
    return {"latents": torch.ones(4, 2, 2)}


def exported(folder: Path) -> None:
    (folder / "reg").mkdir()
    Image.new("RGB", (16, 16)).save(folder / "reg" / "a.png")
    write_json(folder / "tenuto.json", {"base": "x", "pictures": [{"root": "reg", "file": "a.png", "id": "1"}]})


def edited(folder: Path) -> None:
    (folder / "a.txt").write_text("zxq, smile")
    Image.new("RGB", (16, 16)).save(folder / "a.png")
    edit = CaptionEdit(action="add", tags=("city",))
    write_captions(edit_captions([folder / "a.png"], edit), folder / "kept.json")
