"""The whole job on single files that answer v: SD 2.x, and SDXL with zero terminal SNR, as NoobAI's do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tenuto.evaluation.comparison import Comparison
from tenuto.events import Event
from tenuto.families.layouts import LAYOUTS
from tenuto.project.file import load_project
from tenuto.work.compare import run_project
from tests.jobs import COMPARISON, CONCEPT, noise_pictures
from tests.single_files import ldm_tensors, tiny_layout, write_single_file
from tests.tiny import tiny_sd2_folder

PROJECT = f"""
{CONCEPT.format(model="model.safetensors")}
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


def whole_job(folder: Path) -> tuple[Comparison, list[str], Path]:
    """The comparison, what was noted on the way, and the held LoRA."""
    captions = [f"zxq eyes, {colour} background, smile" for colour in ("red", "green", "blue")]
    noise_pictures(folder / "pictures", [(16, 16), (32, 16), (16, 16)], captions)
    (folder / "project.toml").write_text(PROJECT)
    heard: list[Event] = []
    (report,) = run_project(load_project(folder / "project.toml"), folder / "run", heard.append)
    comparison = Comparison.load(report.parent / "comparison.json")
    for arm in ("plain", "held"):
        assert comparison.arms[arm]["drift"].mean is not None
    (lora,) = (folder / "run").glob("**/held/**/lora.safetensors")
    assert all(torch.isfinite(value).all() for value in load_file(lora).values())
    return comparison, [event.data["text"] for event in heard if event.kind == "note"], lora


def test_sd2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half precision, with the config beside it by which the web UIs knew that it answers v."""
    folder = tiny_sd2_folder(tmp_path / "folder")
    monkeypatch.setitem(LAYOUTS, "tiny", replace(tiny_layout(folder, "sd2"), sample_size_if_v=16))
    tensors = {name: value.half() for name, value in ldm_tensors(folder, "sd2").items()}
    write_single_file(tmp_path / "model.safetensors", tensors)
    (tmp_path / "model.yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
    comparison, notes, lora = whole_job(tmp_path)
    assert any("answers v (from model.yaml beside it)" in text for text in notes)
    assert (comparison.base["family"], comparison.base["prediction"]) == ("sd", "v")
    with safe_open(lora, framework="pt") as file:
        header, names = file.metadata(), set(file.keys())
    assert (header["modelspec.prediction_type"], header["modelspec.resolution"]) == ("v", "32x32")
    assert {name.partition("_text_model")[0] for name in names if name.startswith("lora_te")} == {"lora_te"}


def test_sdxl(tiny_xl_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYOUTS, "tiny", tiny_layout(tiny_xl_folder, "sdxl"))
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    write_single_file(tmp_path / "model.safetensors", ldm_tensors(tiny_xl_folder, "sdxl") | marks)
    comparison, notes, lora = whole_job(tmp_path)
    assert any("answers v with zero terminal SNR (from its keys v_pred and ztsnr)" in text for text in notes)
    assert (comparison.base["family"], comparison.base["prediction"]) == ("sdxl", "v")
    names = {name.partition("_text_model")[0] for name in load_file(lora) if name.startswith("lora_te")}
    assert names == {"lora_te1", "lora_te2"}
