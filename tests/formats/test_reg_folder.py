"""A user's own reg folder: taken in with or without captions, matched to buckets, drawn from whole."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tenuto.project.file import load_project
from tenuto.words import Size
from tenuto.work.prepare import Prepared, audited, prepare
from tenuto.work.prior import build_prior
from tests.jobs import CONCEPT, noise_pictures

PROJECT = f"""{CONCEPT}trigger = "zxq"
[prior]
prompts = "none"
store = "store"
[[prior.folders]]
path = "reg"
{{caption}}
[training]
epochs = 4
batch = 2
"""
WIDE, TALL, SQUARE = Size(64, 40), Size(40, 64), Size(48, 48)


def make(folder: Path, sizes: list[Size], caption: str | None) -> None:
    noise_pictures(folder, sizes, [] if caption is None else [caption] * len(sizes))


def prepared(folder: Path, model: Path, captions: str | None, default: str) -> Prepared:
    make(folder / "pictures", [WIDE, TALL, SQUARE, SQUARE], "zxq, 1girl")
    make(folder / "reg", [WIDE] * 4 + [TALL] * 4 + [SQUARE] * 8, captions)
    caption = f'caption = "{default}"' if default else ""
    (folder / "project.toml").write_text(PROJECT.format(model=model, caption=caption))
    return prepare(load_project(folder / "project.toml"))


@pytest.mark.parametrize(
    ("captions", "default", "trained_on"),
    [("1girl, beach", "", "1girl, beach"), (None, "1girl", "1girl"), (None, "", ""), ("1girl", "2girls", "1girl")],
)
def test_taken_in(captions: str | None, default: str, trained_on: str, tiny_folder: Path, tmp_path: Path) -> None:
    ready = prepared(tmp_path, tiny_folder, captions, default)
    report = audited(ready)
    assert report.errors == ()
    assert len(ready.foreign) == 16
    assert {item.caption for item in ready.foreign} == {trained_on}
    empty = [problem for problem in report.warnings if "empty text" in problem.what]
    assert len(empty) == (trained_on == ""), "one line, however many pictures"
    assert len(report.warnings) <= 2
    _, images = build_prior(ready)
    assert len(images) == 16
    assert {image.kind for image in images} == {"foreign"}


def test_matched_to_buckets_and_all_used(tiny_folder: Path, tmp_path: Path) -> None:
    ready = prepared(tmp_path, tiny_folder, "1girl", "")
    shapes = {item.bucket for item in ready.items}
    assert len(shapes) == 3
    assert {item.bucket for item in ready.foreign} == shapes
    bucket = {item.id: item.bucket for item in (*ready.items, *ready.foreign)}
    draws = [update.draws for update in ready.updates(ready.foreign, ready.ratios, 0)]
    prior = Counter(draw.id for update in draws for draw in update if draw.role == "prior")
    assert set(prior.values()) == {1}
    assert len(prior) == 16, "all of them before any twice, not only the first"
    wanted = Counter(bucket[draw.id] for update in draws for draw in update if draw.role == "instance")
    given = Counter(bucket[draw.id] for update in draws for draw in update if draw.role == "prior")
    assert wanted == given
