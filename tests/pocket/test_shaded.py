"""The second base: pocket with a difference of its weights, put together once, that draws with light and shade."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tenuto.evaluation.bench import Bench, sampler_of
from tenuto.families import shipped
from tenuto.families.base import Base
from tenuto.families.checkpoints import find_base, open_base
from tenuto.families.sampling import SamplerSettings
from tenuto.families.shipped import BASES, Shipped
from tenuto.pocket.world import render, sample_scene, tags
from tenuto.words import Size, TenutoError

NAME = "pocket-shaded"
DIFFERENCE = BASES[NAME].difference
assert DIFFERENCE is not None
SCENES = [sample_scene(Random(f"lit {seed}"), quality="best quality", style="anime coloring") for seed in range(24)]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TENUTO_HOME", str(tmp_path))
    return tmp_path


def test_the_difference_is_small_and_leaves_the_words_alone() -> None:
    assert DIFFERENCE.stat().st_size <= 15e6
    change = load_file(DIFFERENCE)
    assert {own.dtype for own in change.values()} == {torch.float16}
    assert all(name.startswith("unet.") and "attentions" not in name for name in change)
    assert all(bool(own.isfinite().all()) for own in change.values())


def test_it_is_pocket_with_the_difference_and_made_once(home: Path) -> None:
    folder = find_base(NAME)
    assert isinstance(folder, Path)
    assert folder.parent == home / "bases"
    assert [own.name for own in folder.parent.iterdir()] == [folder.name], "nothing half made is left"
    weights, before, change = (
        load_file(file)
        for file in (
            next((folder / "unet").glob("*.safetensors")),
            next((BASES["pocket"].folder / "unet").glob("*.safetensors")),
            DIFFERENCE,
        )
    )
    moved = [name for name in weights if not torch.equal(weights[name], before[name])]
    assert moved
    for name in weights:
        own = change.get(f"unet.{name}", torch.zeros(()))
        assert torch.equal(weights[name], (before[name].float() + own.float()).half()), name
    assert {f"unet.{name}" for name in moved} <= change.keys() <= {f"unet.{name}" for name in weights}
    written = (folder / "model_index.json").stat().st_mtime_ns
    assert find_base(NAME) == folder
    assert (folder / "model_index.json").stat().st_mtime_ns == written


def test_another_process_may_be_faster(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = shipped._add

    def slow(folder: Path, difference: Path) -> None:
        add(folder, difference)
        final = next(iter(home.glob("bases"))) / f"{NAME}-{shipped.hash_file(DIFFERENCE)[:16]}"
        shutil.copytree(folder, final)

    monkeypatch.setattr(shipped, "_add", slow)
    folder = find_base(NAME)
    assert isinstance(folder, Path)
    assert [own.name for own in folder.parent.iterdir()] == [folder.name]


def test_an_installation_without_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(BASES, NAME, Shipped(BASES["pocket"].folder, tmp_path / "nowhere.safetensors"))
    with pytest.raises(TenutoError, match="not in this installation"):
        find_base(NAME)


def test_a_cache_folder_that_cannot_be_written_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("TENUTO_HOME", str(home / "file"))
    with pytest.raises(TenutoError, match=r"file cannot hold it .*TENUTO_HOME"):
        find_base(NAME)


def test_it_knows_pictures_with_light_and_shade_better_than_pocket_does() -> None:
    pocket, shaded = open_base("pocket", device="cpu"), open_base(NAME, device="cpu")
    assert pocket.hash != shaded.hash
    assert loss(shaded, light=True) < 0.9 * loss(pocket, light=True)
    assert loss(shaded, light=False) > loss(pocket, light=False), "and the others less well"


def loss(base: Base, *, light: bool) -> float:
    """Mean squared error over fixed noise and times."""
    bench = Bench(base, sampler_of(base, SamplerSettings()))
    pictures = [np.asarray(render(scene, light=light), dtype=np.float32) / 127.5 - 1 for scene in SCENES]
    latents = [bench.encode(torch.from_numpy(own).permute(2, 0, 1)) for own in pictures]
    texts = [", ".join(tags(scene)) for scene in SCENES]
    found = bench.losses(latents, texts, [Size(64, 64)] * len(SCENES), (0.2, 0.5, 0.8))
    return sum(found) / len(found)
