"""A prior set as other trainers take it: every picture is there, captioned, and would be used."""

from __future__ import annotations

import json
import tomllib
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from tenuto.cli.main import app
from tenuto.formats.catalogue import import_project
from tenuto.formats.exported import open_folder
from tenuto.formats.infotext import infotext
from tenuto.prior.store import PriorImage
from tenuto.words import Size, TenutoError
from tests.jobs import CONCEPT, noise_pictures

PROJECT = f"""{CONCEPT}trigger = "zxq"
class_word = "dog"
repeats = 2
[data.variation]
shuffle = true
keep_tokens = 1
[prior]
per_image = 5
store = "store"
[prior.sampler]
steps = 2
negative = "blurry, bad"
[regularizers.prior_preservation]
weight = 0.3
[training]
epochs = 6
batch = 2
[training.adapter]
rank = 2
"""


@pytest.fixture
def project(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    captions = [f"zxq, dog, plätze {i}" for i in range(3)]
    noise_pictures(tmp_path / "pictures", [(16, 16), (16, 16), (24, 16)], captions)
    file = tmp_path / "project.toml"
    file.write_text(PROJECT.format(model=tiny_folder), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return file


def call(*words: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_sd_scripts(project: Path) -> None:
    told = call("export", str(project), "--to", "sd-scripts", "-o", "out")
    assert told["pictures"] == 15
    pictures = sorted(Path("out/reg/1_dog").glob("*.png"))
    assert len(pictures) == 15
    for path in pictures:
        caption = path.with_suffix(".txt").read_text(encoding="utf-8")
        assert caption.startswith("dog, plätze")
        with Image.open(path) as picture:
            text = picture.info["parameters"]
            assert text.startswith(caption + "\nNegative prompt: blurry, bad\nSteps: 2, Sampler: DPM++ 2M")
            assert f"Size: {picture.width}x{picture.height}" in text
    config = tomllib.loads(Path("out/dataset.toml").read_text(encoding="utf-8"))
    (dataset,) = config["datasets"]
    own, reg = dataset["subsets"]
    assert (own["num_repeats"], reg["num_repeats"], reg["is_reg"]) == (6, 1, True), "2 repeats x 3, so that 18 >= 15"
    assert 3 * own["num_repeats"] >= 15
    assert (own["shuffle_caption"], own["keep_tokens"]) == (True, 1)
    assert "shuffle_caption" not in reg
    assert config["general"] == {"caption_extension": ".txt", "enable_bucket": True}
    notes = " ".join(told["notes"])
    assert "all 15 reg pictures are used, 3 of them twice" in notes
    assert "--prior_loss_weight=0.3" in notes
    assert "--max_train_epochs=2" in notes
    for picture in pictures:
        with Image.open(picture) as image:
            assert _no_upscale_bucket(image.size, dataset) == image.size, "lands in a bucket of its own size"


def _no_upscale_bucket(size: tuple[int, int], dataset: dict[str, Any]) -> tuple[int, int]:
    """sd-scripts: a picture within the area keeps its size, cut down to steps."""
    resolution, step = dataset["resolution"], dataset["bucket_reso_steps"]
    area = resolution**2 if isinstance(resolution, int) else resolution[0] * resolution[1]
    assert size[0] * size[1] <= area
    return size[0] // step * step, size[1] // step * step


def test_the_exported_config_comes_back_in(project: Path) -> None:
    call("export", str(project), "--to", "sd-scripts", "-o", "out")
    back = import_project(Path("out/dataset.toml"), Path())
    assert [own["path"] for own in back.project["prior"]["folders"]] == [str(Path("out/reg/1_dog").resolve())]
    assert "as many reg as instance rows" in " ".join(each.why for each in back.left)


def test_d8(project: Path) -> None:
    told = call("export", str(project), "--to", "d8", "-o", "out")
    pictures = sorted(Path("out/class/eyes").glob("*.png"))
    assert told["pictures"] == len(pictures) == 15
    for path in pictures:
        with Image.open(path) as picture:
            assert sha1(picture.tobytes(), usedforsecurity=False).hexdigest() == path.stem
            assert "\nNegative prompt: blurry, bad\nSteps: 2," in picture.info["parameters"]
        assert path.with_suffix(".txt").is_file()
    (concept,) = json.loads(Path("out/concepts_list.json").read_text(encoding="utf-8"))
    assert concept["num_class_images_per"] == 5
    assert (concept["instance_token"], concept["class_token"]) == ("zxq", "dog")
    back = import_project(Path("out/concepts_list.json"), Path())
    assert back.project["concepts"][0]["prior"]["per_image"] == 5


def test_a_second_export_replaces_the_first_and_nothing_else(project: Path) -> None:
    call("export", str(project), "--to", "sd-scripts", "-o", "out")
    call("export", str(project), "--to", "sd-scripts", "-o", "out", "--set", "prior.per_image=2")
    assert len(list(Path("out/reg/1_dog").glob("*.png"))) == len(list(Path("out/reg/1_dog").glob("*.txt"))) == 6
    Path("mine").mkdir()
    Path("mine/precious.txt").write_text("x")
    result = CliRunner().invoke(app, ["export", str(project), "--to", "d8", "-o", "mine"])
    assert result.exit_code == 1
    assert "name a new folder" in result.stderr
    assert Path("mine/precious.txt").read_text() == "x"
    assert "d8" in CliRunner().invoke(app, ["export", str(project), "--to", "x", "-o", "new"]).stderr


def test_infotext() -> None:
    image = PriorImage("abc", "eyes", Size(512, 768), "a dog\non grass", "", 3, "euler_a", 20, 7.0, "generated", "")
    text = infotext(image, "models/nai, v1.safetensors", "f00")
    assert text.splitlines()[-1] == (
        'Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 3, Size: 512x768, Model: "nai, v1", tenuto base: f00, '
        "tenuto image: abc, tenuto role: reg"
    )
    assert "Negative" not in text
    assert "Negative prompt: None" in infotext(image, "", "", none="None")


@pytest.mark.parametrize("record", ["[", "[]", "{}", '{"pictures": [5]}', '{"pictures": [{"root": 1, "file": 2}]}',
                                    '{"pictures": [{"root": "\\u0000", "file": "a.png"}]}', "[" * 50_000])  # fmt: skip
def test_a_folder_with_another_record_is_left_alone(record: str, tmp_path: Path) -> None:
    (tmp_path / "tenuto.json").write_text(record)
    with pytest.raises(TenutoError, match="name a new folder"):
        open_folder(tmp_path)


def test_a_record_reaches_nothing_outside_its_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    outside.write_text("x")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tenuto.json").write_text('{"pictures": [{"root": "..", "file": "outside.png"}]}')
    open_folder(tmp_path / "out")
    assert outside.exists()
