"""The whole job on an SDXL single file that answers v with zero terminal SNR, as NoobAI's do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tenuto.evaluation.comparison import Comparison
from tenuto.events import Event
from tenuto.families.layouts import LAYOUTS
from tenuto.project import load_project
from tenuto.work.compare import run_project
from tests.single_files import ldm_tensors, tiny_layout, write_single_file

PROJECT = """
[base]
model = "noob.safetensors"
[[concepts]]
name = "eyes"
images = "pictures"
trigger = "zxq eyes"
class_word = "eyes"
[prior]
per_image = 2
ratio = 0.5
store = "store"
prefix = "best quality"
[prior.sampler]
steps = 2
sampler = "euler"
[training]
steps = 4
batch = 2
save_every = 2
watch_every = 2
gradient_checkpointing = true
[training.adapter]
rank = 2
parts = ["attention", "text_encoder"]
[comparison]
seeds = [0]
prompts = 1
drift_prompts = 2
states = 2
steps = 2
weights = [0.0, 1.0]
strip_prompts = 1
curve_weights = [0.5]
curve_checkpoints = 1
curve_prompts = 1
"""


def test_the_whole_job(tiny_xl_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYOUTS, "tiny", tiny_layout(tiny_xl_folder, "sdxl"))
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    write_single_file(tmp_path / "noob.safetensors", ldm_tensors(tiny_xl_folder, "sdxl") | marks)
    (tmp_path / "pictures").mkdir()
    for number, (size, colour) in enumerate([((16, 16), "red"), ((32, 16), "green"), ((16, 16), "blue")]):
        Image.effect_noise(size, 90 + number).convert("RGB").save(tmp_path / f"pictures/{number}.png")
        (tmp_path / f"pictures/{number}.txt").write_text(f"zxq eyes, {colour} background, smile")
    (tmp_path / "project.toml").write_text(PROJECT)
    heard: list[Event] = []
    (report,) = run_project(load_project(tmp_path / "project.toml"), tmp_path / "run", heard.append)
    notes = [event.data["text"] for event in heard if event.kind == "note"]
    assert any("answers v with zero terminal SNR (from its keys v_pred and ztsnr)" in text for text in notes)
    comparison = Comparison.load(report.parent / "comparison.json")
    assert comparison.base["family"] == "sdxl"
    assert comparison.base["prediction"] == "v"
    for arm in ("plain", "held"):
        assert comparison.arms[arm]["drift"].mean is not None
    (lora,) = (tmp_path / "run").glob("**/held/**/lora.safetensors")
    names = {name.partition("_text_model")[0] for name in load_file(lora) if name.startswith("lora_te")}
    assert names == {"lora_te1", "lora_te2"}
    assert all(torch.isfinite(value).all() for value in load_file(lora).values())
