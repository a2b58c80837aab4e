"""Rows from the user's pictures: the caption without the trigger, masks from files or transparency."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tenuto.data.dataset import Concept, Item, VariationSettings
from tenuto.families.base import Base
from tenuto.training.sources import InstanceSource, Masks
from tests.steps import SQUARE


def item(path: Path, caption: str = "zxq, 1girl") -> Item:
    return Item("i", path, caption, "c", SQUARE, SQUARE)


def source(base: Base, own: Item, variation: VariationSettings) -> InstanceSource:
    return InstanceSource(
        own,
        Concept("c", trigger="zxq", class_word="hat", others=("qwv",)),
        variation,
        0,
        lambda item, mirrored: torch.zeros(4, 8, 8),
        base.chunks,
        Masks(base, alpha=True),
    )


def half_transparent(path: Path) -> Path:
    image = Image.new("RGBA", SQUARE, (10, 20, 30, 255))
    image.paste((0, 0, 0, 0), (0, 0, SQUARE.width // 2, SQUARE.height))
    image.save(path)
    return path


def test_a_row_knows_its_caption_with_the_class_word(tiny_base: Base, tmp_path: Path) -> None:
    Image.new("RGB", SQUARE).save(tmp_path / "a.png")
    row = source(tiny_base, item(tmp_path / "a.png"), VariationSettings()).row(0)
    assert (row.caption, row.class_caption, row.bare_caption) == ("zxq, 1girl", "hat, 1girl", "1girl")
    assert row.mask is None
    row = source(tiny_base, item(tmp_path / "a.png", "zxq, qwv, 1girl"), VariationSettings()).row(0)
    assert (row.class_caption, row.bare_caption) == ("hat, 1girl", "1girl"), "the base knows no other trigger either"


def test_transparency_is_a_mask_that_mirrors_with_the_picture(tiny_base: Base, tmp_path: Path) -> None:
    own = source(tiny_base, item(half_transparent(tmp_path / "a.png")), VariationSettings(flip=True))
    masks = [own.row(visit).mask for visit in range(20)]
    seen = {tuple(mask[0, 0].tolist()) for mask in masks if mask is not None}
    assert seen == {(0.0,) * 4 + (1.0,) * 4, (1.0,) * 4 + (0.0,) * 4}


def test_a_mask_of_its_own_goes_before_transparency(tiny_base: Base, tmp_path: Path) -> None:
    Image.new("L", SQUARE, 51).save(tmp_path / "mask.png")
    own = replace(item(half_transparent(tmp_path / "a.png")), mask=tmp_path / "mask.png")
    mask = source(tiny_base, own, VariationSettings()).row(0).mask
    assert mask is not None
    assert mask.unique().tolist() == pytest.approx([0.2])


def test_transparency_counts_only_where_it_is_asked_for(tiny_base: Base, tmp_path: Path) -> None:
    assert Masks(tiny_base, alpha=False)(item(half_transparent(tmp_path / "a.png"))) is None


def test_a_row_says_whether_its_caption_is_its_own(tiny_base: Base, tmp_path: Path) -> None:
    Image.new("RGB", SQUARE).save(tmp_path / "a.png")
    own = item(tmp_path / "a.png", "zxq, 1girl, hat, red, city")
    told = [source(tiny_base, own, VariationSettings(shuffle=True)).row(visit) for visit in range(20)]
    assert all(row.varied == (row.caption != own.caption) for row in told)
    assert any(row.varied for row in told)
    assert not any(
        source(tiny_base, own, VariationSettings(caption_dropout=0.5)).row(visit).varied for visit in range(9)
    )
