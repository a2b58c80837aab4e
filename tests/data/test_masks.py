"""Masks from a folder of their own, or beside their pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tenuto.data.buckets import buckets_for
from tenuto.data.dataset import Item, scan
from tenuto.data.problems import Problem
from tenuto.words import Size, TenutoError

SQUARE = Size(128, 128)
BUCKETS = buckets_for(128 * 128, 32)


def pictures(folder: Path, *names: str, size: Size = SQUARE) -> Path:
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", size, (40 * number, 90, 20)).save(folder / name)
        (folder / name).with_suffix(".txt").write_text("zxq, 1girl", encoding="utf-8")
    return folder


def masks(folder: Path, *names: str, size: Size = SQUARE) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.new("L", size, 255).save(folder / name)
    return folder


def found(folder: Path, masks: Path | None = None) -> tuple[list[Item], list[Problem]]:
    return scan(folder, concept="eyes", buckets=BUCKETS, masks=masks)


def test_a_mask_has_its_pictures_name(tmp_path: Path) -> None:
    items, problems = found(pictures(tmp_path / "p", "a.png", "b.jpg"), masks(tmp_path / "m", "b.png", "a.png"))
    assert problems == []
    assert [item.mask and item.mask.name for item in items] == ["a.png", "b.png"]
    assert [item.id for item in items] == [item.id for item in found(tmp_path / "p")[0]], "the picture is the same"


def test_masks_beside_their_pictures_are_no_pictures(tmp_path: Path) -> None:
    folder = masks(pictures(tmp_path / "p", "a.png", "b.png"), "a-masklabel.png", "b-masklabel.png")
    items, problems = found(folder, folder)
    assert problems == []
    assert [item.mask and item.mask.name for item in items] == ["a-masklabel.png", "b-masklabel.png"]
    items, (unused,) = found(folder)
    assert [item.mask for item in items] == [None, None]
    assert "2 masks (*-masklabel) beside the pictures, not used" in unused.what
    assert len(found(pictures(tmp_path / "q", "odd-masklabel.png"))[0]) == 1, "a picture, for it is nobody's mask"


def test_a_picture_without_a_mask_counts_whole_and_that_is_said(tmp_path: Path) -> None:
    items, (lacks,) = found(pictures(tmp_path / "p", "a.png", "b.png"), masks(tmp_path / "m", "a.png"))
    assert [item.mask is None for item in items] == [False, True]
    assert (lacks.level, Path(lacks.file).name) == ("warning", "b.png")
    assert "all of it counts" in lacks.what


def test_a_mask_of_another_shape_is_an_error_and_of_another_size_is_none(tmp_path: Path) -> None:
    own = pictures(tmp_path / "p", "a.png", size=Size(199, 150))
    assert found(own, masks(tmp_path / "half", "a.png", size=Size(100, 75)))[1] == []
    (wrong,) = found(own, masks(tmp_path / "square", "a.png"))[1]
    assert (wrong.level, wrong.what) == ("error", "128x128, and its picture is 199x150")


def test_a_picture_is_not_its_own_mask(tmp_path: Path) -> None:
    own = pictures(tmp_path / "p", "a.png")
    (wrong,) = found(own, own)[1]
    assert (wrong.level, wrong.what) == ("error", "is its own mask")


def test_a_damaged_mask_is_named(tmp_path: Path) -> None:
    own = masks(tmp_path / "m", "a.png")
    (own / "a.png").write_bytes(b"no picture")
    (wrong,) = found(pictures(tmp_path / "p", "a.png"), own)[1]
    assert (wrong.level, Path(wrong.file)) == ("error", own / "a.png")
    assert "not a readable picture" in wrong.what


def test_a_folder_without_masks_is_refused(tmp_path: Path) -> None:
    own = pictures(tmp_path / "p", "a.png")
    with pytest.raises(TenutoError, match="no such folder; check the concept's `masks`"):
        found(own, tmp_path / "nowhere")
    with pytest.raises(TenutoError, match="no masks in this folder"):
        found(own, masks(tmp_path / "m"))
