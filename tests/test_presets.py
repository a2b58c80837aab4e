"""Every preset is a whole project file, and [base] takes what single files need."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenuto.data.bank import Bank
from tenuto.data.dataset import Concept, Item
from tenuto.prior.prompts import derive_prompts
from tenuto.project.file import load_project
from tenuto.project.settings import Project
from tenuto.words import Size, TenutoError

FOLDER = Path(__file__).parent.parent / "presets"
PREFIXES = {
    "sd15": "",
    "nai": "masterpiece, best quality",
    "illustrious": "masterpiece, best quality",
    "noobai-vpred": "masterpiece, best quality, newest",
    "pony": "score_9, score_8_up",
}


def test_there_is_one_for_each() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == PREFIXES.keys()


@pytest.mark.parametrize("name", PREFIXES)
def test_a_preset_is_a_project(name: str) -> None:
    path = FOLDER / f"{name}.toml"
    project = load_project(path)
    assert path.read_text().startswith("# ")
    assert project.base.model.endswith(".safetensors")
    assert project.ratios() == {"my-character": 0.05}, "held as any project that names no method"
    assert project.prior_sampler().steps == 8
    assert (project.base.clip_skip == 2) == (name == "nai")
    assert (project.base.prediction, project.base.zero_terminal_snr) == (
        ("v", True) if name == "noobai-vpred" else ("auto", None)
    )


@pytest.mark.parametrize("name", PREFIXES)
def test_prior_prompts_begin_with_the_quality_words(name: str, tmp_path: Path) -> None:
    own = load_project(FOLDER / f"{name}.toml").concepts[0]
    project = load_project(FOLDER / f"{name}.toml")
    concept = Concept(own.name, own.kind, own.trigger, own.class_word, Path(own.images))
    caption = "zxq girl, smile, beach"
    item = Item("a", tmp_path / "a.png", caption, own.name, Size(512, 512), Size(512, 512))
    (prompt,) = derive_prompts([item], concept, Bank.bundled(), project.prior_of(own))
    assert prompt.text.startswith(PREFIXES[name])
    assert "zxq" not in prompt.text


def test_base_settings(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.safetensors").write_bytes(b"x")
    file = tmp_path / "project.toml"
    base = '[base]\nmodel = "models/a.safetensors"\nvae = "models/vae.safetensors"\n'
    file.write_text(base + '[[concepts]]\nname = "c"\nimages = "p"\n')
    read = load_project(file).base
    assert read.model == str(tmp_path / "models" / "a.safetensors")
    assert read.vae == str(tmp_path / "models" / "vae.safetensors")
    assert (read.prediction, read.zero_terminal_snr) == ("auto", None)
    told = load_project(file, ["base.prediction=v", "base.zero_terminal_snr=true"])
    assert (told.base.prediction, told.base.zero_terminal_snr) == ("v", True)
    assert Project.model_validate(told.model_dump()) == told
    with pytest.raises(TenutoError, match="prediction"):
        load_project(file, ["base.prediction=x0"])
