"""Readers of real pictures: a WD14-like ONNX tagger, DINOv2 and CLIP, from folders as they are downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tenuto.evaluation.convnet import ConvTagger, TaggerConfig
from tenuto.evaluation.encoders import load_clip, load_dino
from tenuto.evaluation.metrics import METRICS
from tenuto.evaluation.tables import table
from tenuto.evaluation.taggers import detector, load_tagger, read_pictures, save_convnet
from tenuto.evaluation.wd_tagger import Vocabulary
from tenuto.families.base import Base
from tenuto.project.file import load_project
from tenuto.words import TenutoError
from tenuto.work.readers import find_readers
from tests.evaluation.real_readers import ROWS, clip_folder, dino_folder, wd_folder
from tests.evaluation.test_comparison import GROUPS, SETTINGS, run

BLUE, GREEN, RED = range(3)
"""The order in which these graphs take their channels."""
SMALL = SETTINGS.model_copy(update={"seeds": (0,), "weights": (), "curve_weights": (), "curve_checkpoints": 0})
OF_REAL = ("dino_i", "clip_i", "clip_t", "pres", "div")
VOCABULARY = Vocabulary(GROUPS, ("long hair", "zxq (series)", "unheard of"), {"zxq": "zxq (series)"})


def weights(*, red: float = 0.0, city: float = 0.0) -> list[list[float]]:
    """`red` answers the red channel, `city` the green one, the first tags a bit of everything."""
    table = [[0.1] * len(ROWS) for _ in range(3)]
    table[RED][3], table[GREEN][4] = red, city
    return table


def solid(red: float, green: float, blue: float, height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.tensor([red, green, blue]).view(1, 3, 1, 1).expand(1, 3, height, width) * 2 - 1


class TestTagger:
    def test_it_is_asked_for_what_the_comparison_speaks_of(self, tmp_path: Path) -> None:
        tagger = load_tagger(wd_folder(tmp_path, weights()), vocabulary=VOCABULARY)
        assert dict(tagger.groups) == {
            "subject": ("1girl",), "hair": ("red",), "place": ("city",), "style": ("line",), "other": ("long hair",),
            "character": ("zxq (series)",), "rating": ("general", "sensitive"),
        }  # fmt: skip
        assert tagger.single == ("rating",)
        assert detector(tagger, "zxq") == "zxq"

    def test_channels_are_blue_green_red_and_not_normalised(self, tmp_path: Path) -> None:
        tagger = load_tagger(wd_folder(tmp_path, weights(red=0.8, city=0.6)), vocabulary=VOCABULARY)
        seen = read_pictures(tagger, torch.cat([solid(1, 0, 0), solid(0, 1, 0), solid(0, 0, 1)]))
        torch.testing.assert_close(seen.p("hair", "red"), torch.tensor([0.8, 0.1, 0.1]))
        torch.testing.assert_close(seen.p("place", "city"), torch.tensor([0.1, 0.6, 0.1]))

    def test_other_shapes_stand_on_white(self, tmp_path: Path) -> None:
        tagger = load_tagger(wd_folder(tmp_path, weights(red=0.9)), vocabulary=VOCABULARY)
        tall = read_pictures(tagger, solid(0, 0, 0, height=32, width=16))  # half of the square is white
        assert float(tall.p("hair", "red")) == pytest.approx(0.5 * (0.9 + 0.1 + 0.1), abs=0.03)

    def test_other_columns_are_another_tagger(self, tmp_path: Path) -> None:
        folder = wd_folder(tmp_path, weights())
        assert load_tagger(folder, vocabulary=VOCABULARY).hash != load_tagger(folder).hash

    def test_mistakes_are_told_in_a_line(self, tmp_path: Path) -> None:
        folder = wd_folder(tmp_path / "a", weights())
        (folder / "model.onnx").write_bytes(b"<html>")
        with pytest.raises(TenutoError, match=r"model\.onnx: cannot be loaded"):
            load_tagger(folder)
        (folder / "model.onnx").unlink()
        with pytest.raises(TenutoError, match=r"model\.onnx: no such file"):
            load_tagger(folder)
        with pytest.raises(TenutoError, match=r"answers 8 tags and selected_tags\.csv names 7"):
            load_tagger(wd_folder(tmp_path / "b", weights(), ROWS[:-1]))
        (folder / "selected_tags.csv").write_text("a,b\n1,2\n")
        with pytest.raises(TenutoError, match="not a tagger's list"):
            load_tagger(wd_folder(tmp_path / "c", weights()).parent / "a")


class TestEncoders:
    def test_pictures_and_words_become_directions(self, tmp_path: Path) -> None:
        dino, clip = load_dino(dino_folder(tmp_path / "dino")), load_clip(clip_folder(tmp_path / "clip"))
        pictures = torch.cat([solid(1, 0, 0, 24, 16), solid(0, 0.5, 1, 24, 16)])
        for features in (dino.see(pictures), clip.see(pictures), clip.read(["a b", "c"])):
            torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
            assert not torch.equal(features[0], features[1])
        torch.testing.assert_close(dino.see(pictures[1:]), dino.see(pictures)[1:])
        assert clip.see(pictures).shape == clip.read(["a", "b"]).shape
        assert dino.hash != clip.hash

    def test_preparation_is_the_folders_own(self, tmp_path: Path) -> None:
        folder = dino_folder(tmp_path)
        before = load_dino(folder).see(solid(1, 0, 0))
        table = json.loads((folder / "preprocessor_config.json").read_text())
        (folder / "preprocessor_config.json").write_text(json.dumps({**table, "image_mean": [0.1, 0.1, 0.1]}))
        assert not torch.allclose(load_dino(folder).see(solid(1, 0, 0)), before)

    def test_mistakes_are_told_in_a_line(self, tmp_path: Path) -> None:
        folder = dino_folder(tmp_path / "dino")
        with pytest.raises(TenutoError, match="'dinov2', which is no CLIP"):
            load_clip(folder)
        with pytest.raises(TenutoError, match=r"config\.json: cannot be read"):
            load_dino(tmp_path)
        (folder / "preprocessor_config.json").write_text("{}")
        with pytest.raises(TenutoError, match="image_mean"):
            load_dino(folder)
        plain = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        for odd in ({"size": {"longest_edge": 8}}, {"crop_size": {"shortest_edge": 8}}, {"do_resize": False}):
            (folder / "preprocessor_config.json").write_text(json.dumps({**plain, **odd}))
            with pytest.raises(TenutoError, match=next(iter(odd))):
                load_dino(folder)
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(TenutoError, match="pickles are not read"):
            load_dino(folder)


def test_a_comparison_has_their_numbers(tiny_base: Base, tmp_path: Path) -> None:
    dino, clip = load_dino(dino_folder(tmp_path / "dino")), load_clip(clip_folder(tmp_path / "clip"))
    tagger = load_tagger(wd_folder(tmp_path / "wd", weights(red=0.8, city=0.6)), vocabulary=VOCABULARY)
    result = run(tiny_base, tmp_path, SETTINGS, tagger, dino=dino, clip=clip)
    plain = result.arms["plain"]
    assert {name: plain[name].reason for name in OF_REAL if name != "div"} == dict.fromkeys(OF_REAL[:-1])
    assert plain["bake"].mean is not None
    assert all(-1 <= (plain[name].mean or 0) <= 1 for name in ("dino_i", "clip_i", "clip_t"))
    assert plain["dino_i"].detail[0].keys() == {"base", "elsewhere", "real"}
    assert "two noise seeds" in str(plain["div"].reason)  # each seed is a number of its own here
    assert "dino (dino)" in result.hashes
    again = run(tiny_base, tmp_path, SETTINGS, tagger, dino=dino, clip=clip)
    assert again.arms["plain"]["clip_t"].mean == plain["clip_t"].mean


def test_a_tagger_with_features_of_its_own_stands_in_for_dino(tiny_base: Base, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = TaggerConfig(widths=(8, 16), groups=dict(GROUPS), concepts=("eyes",))
    save_convnet(ConvTagger(config), tmp_path / "own")
    tagger = load_tagger(tmp_path / "own")
    result = run(tiny_base, tmp_path, SMALL, tagger)
    assert result.arms["plain"]["pres"].mean is not None
    assert result.arms["plain"]["pres"].detail[0]["read_by"] == "the tagger's features"
    assert "two noise seeds" in str(result.arms["plain"]["div"].reason)
    assert "comparison.dino" in str(result.arms["plain"]["dino_i"].reason)
    assert result.hashes["tagger_features (own)"] == tagger.hash
    parts = next(row["parts"] for row in table(result) if row["key"] == "pres")
    assert parts == [("read by", dict.fromkeys(("plain", "held"), "the tagger's features"))]
    named = run(tiny_base, tmp_path, SMALL, tagger, dino=load_dino(dino_folder(tmp_path / "dino")))
    assert named.arms["plain"]["pres"].detail[0]["read_by"] == "DINO"
    assert named.arms["plain"]["pres"].mean != result.arms["plain"]["pres"].mean
    assert not any(name.startswith("tagger_features") for name in named.hashes)


def test_without_them_it_says_why(tiny_base: Base, tmp_path: Path) -> None:
    result = run(tiny_base, tmp_path, SETTINGS)
    for name in OF_REAL:
        assert "encoder was named as comparison." in str(result.arms["held"][name].reason)
    assert set(OF_REAL) <= METRICS.keys()


def test_readers_are_looked_for_before_any_long_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    dino_folder(tmp_path / "encoder")
    file = tmp_path / "p.toml"

    def project(line: str) -> None:
        file.write_text(f'[[concepts]]\nname = "a"\nimages = "b"\n[comparison]\n{line}\n')

    project('dino = "encoder"')
    assert find_readers(load_project(file), tmp_path).dino == tmp_path / "encoder"
    project('tagger = "owner/not-here"')
    with pytest.raises(TenutoError, match="owner/not-here: no such folder here"):
        find_readers(load_project(file), None)
    project('clip = "nowhere"')
    with pytest.raises(TenutoError, match=r"comparison\.clip: nowhere is no folder"):
        find_readers(load_project(file), None)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("config.json", {"text_config": {"eos_token_id": 1e308}}),
        ("config.json", {"vision_config": {"num_attention_heads": [2]}}),
        ("config.json", {"dtype": "float2147483648"}),
        ("tokenizer.json", {"post_processor": {"type": "ByteLevel"}}),
        ("preprocessor_config.json", {"crop_size": {"height": 1, "width": 1}}),
    ],
)
def test_a_damaged_encoder_is_refused_when_it_is_loaded(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    folder = clip_folder(tmp_path)
    table = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(table | changes))
    with pytest.raises(TenutoError, match="cannot be loaded") as error:
        load_clip(folder)
    assert "\n" not in str(error.value)
