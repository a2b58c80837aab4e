"""The tagger network and its folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tenuto.evaluation.convnet import ConvTagger, TaggerConfig
from tenuto.evaluation.encoders import Encoder
from tenuto.evaluation.taggers import detector, load_tagger, read_pictures, save_convnet
from tenuto.words import TenutoError

CONFIG = TaggerConfig(
    widths=(8, 16),
    groups={"hair color": ("red", "blue"), "hat": ("crown", "cap", "bow")},
    several=("hat",),
    concepts=("crazy eyes",),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_convnet(ConvTagger(CONFIG), tmp_path / "tagger")
    return tmp_path / "tagger"


def test_reads_what_was_saved(folder: Path) -> None:
    tagger = load_tagger(folder)
    pixels = torch.rand(3, 3, 16, 24) * 2 - 1
    seen = read_pictures(tagger, pixels, batch=2)
    assert len(seen) == 3
    assert tagger.single == ("hair color",)
    torch.testing.assert_close(seen.probabilities["hair color"].sum(dim=1), torch.ones(3))
    assert seen.probabilities["hat"].shape == (3, 3)
    assert seen.p("concepts", "crazy eyes").shape == (3,)
    torch.testing.assert_close(
        read_pictures(tagger, pixels[:1]).p("concepts", "crazy eyes"), seen.p("concepts", "crazy eyes")[:1]
    )
    assert not seen.probabilities["hat"].is_inference()


def test_what_it_reads_its_answers_from_makes_it_an_encoder(folder: Path) -> None:
    tagger = load_tagger(folder)
    assert isinstance(tagger, Encoder)
    pixels = torch.rand(3, 3, 16, 24) * 2 - 1
    features = tagger.see(pixels)
    assert (tagger.name, len(tagger.hash) > 0, len(features)) == ("tagger", True, 3)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(tagger.see(pixels[1:]), features[1:])


def test_default_size_is_small() -> None:
    config = TaggerConfig(groups={"a": tuple(map(str, range(60)))}, concepts=("b",))
    assert sum(p.numel() for p in ConvTagger(config).parameters()) <= 1_500_000


def test_learns_a_colour() -> None:
    torch.manual_seed(0)
    net = ConvTagger(CONFIG)
    truth = {
        "hair color": torch.tensor([0, 1, -1]),
        "hat": torch.zeros(3, 3),
        "concepts": torch.tensor([[1.0], [0.0], [0.0]]),
    }
    pixels = torch.stack([torch.full((3, 8, 8), v) for v in (-1.0, 1.0, 0.0)])
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    first = net.loss(net(pixels), truth).item()
    for _ in range(30):
        optimizer.zero_grad()
        net.loss(net(pixels), truth).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert net.loss(net(pixels), truth).item() < first / 4


def test_detector_is_found_in_any_spelling(folder: Path) -> None:
    tagger = load_tagger(folder)
    assert detector(tagger, "Crazy-Eyes") == "crazy eyes"
    assert detector(tagger, "jar") is None


def test_refusals(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TenutoError, match="no tagger here"):
        load_tagger(tmp_path / "nowhere")
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(TenutoError, match=r"model\.safetensors"):
        load_tagger(folder)
    (folder / "tagger.json").write_text(json.dumps({"kind": "pickle"}))
    with pytest.raises(TenutoError, match="kind 'pickle' is not known"):
        load_tagger(folder)
    (folder / "tagger.json").write_text("[")
    with pytest.raises(TenutoError, match=r"tagger\.json"):
        load_tagger(folder)
    (folder / "tagger.json").write_text(json.dumps({"kind": "convnet", "groups": {}, "colour": 1}))
    with pytest.raises(TenutoError, match="colour"):
        load_tagger(folder)


@pytest.mark.parametrize("text", ["[" * 50_000, '{"kind": ["convnet"]}', '{"kind": 1}', "[1]"])
def test_a_damaged_description_is_one_line(text: str, folder: Path) -> None:
    (folder / "tagger.json").write_text(text)
    with pytest.raises(TenutoError, match=r"tagger\.json"):
        load_tagger(folder)
