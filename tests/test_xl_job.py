"""The whole job on an SDXL single file that answers v with zero terminal SNR, as NoobAI's do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tenuto.evaluation.comparison import Comparison
from tenuto.events import Event
from tenuto.families.layouts import LAYOUTS
from tenuto.project import load_project
from tenuto.work.compare import run_project
from tests.jobs import COMPARISON, CONCEPT, noise_pictures
from tests.single_files import ldm_tensors, tiny_layout, write_single_file

PROJECT = f"""
{CONCEPT.format(model="noob.safetensors")}
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
{COMPARISON}
"""


def test_the_whole_job(tiny_xl_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYOUTS, "tiny", tiny_layout(tiny_xl_folder, "sdxl"))
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    write_single_file(tmp_path / "noob.safetensors", ldm_tensors(tiny_xl_folder, "sdxl") | marks)
    captions = [f"zxq eyes, {colour} background, smile" for colour in ("red", "green", "blue")]
    noise_pictures(tmp_path / "pictures", [(16, 16), (32, 16), (16, 16)], captions)
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
