from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tenuto.data.buckets import buckets_for
from tenuto.data.dataset import Item, VariationSettings, flipped, scan, split_validation, vary
from tenuto.data.problems import Problem
from tenuto.words import Size, TenutoError

SQUARE = Size(128, 128)
BUCKETS = buckets_for(128 * 128, 32)


def picture(path: Path, seed: int = 0, size: Size = SQUARE, caption: str | None = "zxq, 1girl") -> Path:
    pixels = np.random.default_rng(seed).integers(0, 255, (size.height, size.width, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def found(folder: Path, **more: object) -> tuple[list[Item], list[Problem]]:
    return scan(folder, concept="eyes", buckets=BUCKETS, **more)  # type: ignore[arg-type]


def test_a_clean_folder(tmp_path: Path) -> None:
    picture(tmp_path / "b.png", 1, Size(300, 500), r"zxq, saber \(fate\)")
    picture(tmp_path / "a.png", 2)
    items, problems = found(tmp_path, repeats=3)
    assert problems == []
    assert [item.path.name for item in items] == ["a.png", "b.png"]
    assert [item.bucket for item in items] == [Size(128, 128), Size(96, 160)]
    assert items[1].size == Size(300, 500)
    assert items[1].caption == r"zxq, saber \(fate\)"
    assert {item.repeats for item in items} == {3}


def test_ids_follow_content(tmp_path: Path) -> None:
    picture(tmp_path / "one" / "a.png", 1)
    picture(tmp_path / "two" / "z.png", 1)
    (one,), _ = found(tmp_path / "one")
    (two,), _ = found(tmp_path / "two")
    assert one.id == two.id
    (tmp_path / "two" / "z.txt").write_text("other")
    assert found(tmp_path / "two")[0][0].id != one.id
    assert scan(tmp_path / "one", concept="hat", buckets=BUCKETS)[0][0].id != one.id


def test_copies_have_ids_of_their_own(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / f"{name}.png", 1)
    items, _ = found(tmp_path)
    assert len({item.id for item in items}) == 3
    assert len({item.content for item in items}) == 1


def test_every_fault_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "good.png")
    picture(tmp_path / "tiny.png", size=Size(1, 1))
    picture(tmp_path / "small.png", size=Size(20, 20))
    picture(tmp_path / "strip.png", 3, size=Size(2000, 128))
    picture(tmp_path / "wide.png", 7, size=Size(384, 128))
    picture(tmp_path / "bare.png", 4, caption=None)
    picture(tmp_path / "empty.png", 5, caption=" , ")
    picture(tmp_path / "latin.png", 6).with_suffix(".txt").write_bytes(b"caf\xe9")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (tmp_path / "moving.gif").write_bytes(b"GIF89a")
    (tmp_path / "orphan.txt").write_text("1girl")
    picture(tmp_path / "sub" / "x.png")
    items, problems = found(tmp_path)
    assert [item.path.name for item in items] == [
        "bare.png",
        "empty.png",
        "good.png",
        "latin.png",
        "strip.png",
        "wide.png",
    ]
    told = {(Path(problem.file).name, problem.level) for problem in problems}
    assert told == {
        ("tiny.png", "error"), ("small.png", "error"), ("broken.png", "error"), ("strip.png", "error"),
        ("wide.png", "warning"),
        ("bare.png", "error"), ("empty.txt", "error"), ("latin.txt", "error"),
        ("moving.gif", "warning"), ("orphan.txt", "warning"), ("sub", "warning"),
    }  # fmt: skip
    assert all(problem.what and problem.remedy and "\n" not in str(problem) for problem in problems)


def test_default_caption(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", caption=None)
    (item,), (problem,) = found(tmp_path, default_caption="zxq")
    assert item.caption == "zxq"
    assert problem.level == "warning"


@pytest.mark.parametrize(
    ("name", "message"), [("none", "no such folder"), ("file", "not a folder"), ("empty", "no pictures")]
)
def test_bad_folders(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TenutoError, match=message):
        found(tmp_path / name)


def test_wrong_level_is_pointed_out(tmp_path: Path) -> None:
    picture(tmp_path / "10_zxq" / "a.png")
    with pytest.raises(TenutoError, match=r"did you mean .*10_zxq"):
        found(tmp_path)


def test_vary() -> None:
    text = "zxq, a, b, c, d, e"
    assert vary(text, VariationSettings(), random.Random(0), "zxq") == text
    shuffled = vary(text, VariationSettings(shuffle=True, keep_tokens=2), random.Random(0))
    assert shuffled.startswith("zxq, a, ")
    assert sorted(shuffled.split(", ")) == sorted(text.split(", "))
    assert vary(text, VariationSettings(tag_dropout=1.0), random.Random(0), "zxq") == "zxq"
    assert vary(text, VariationSettings(caption_dropout=1.0), random.Random(0), "zxq") == ""
    prose = "A girl sits on a bench, smiling, in the rain."
    assert vary(prose, VariationSettings(shuffle=True, tag_dropout=0.9), random.Random(0)) == prose


def test_flip() -> None:
    rng = random.Random(0)
    assert not any(flipped(VariationSettings(), rng) for _ in range(50))
    assert 20 < sum(flipped(VariationSettings(flip=True), rng) for _ in range(100)) < 80


def test_validation_split() -> None:
    items = [
        Item(f"i{n}", Path(), "", "eyes" if n % 2 else "hat", Size(1, 1), Size(1, 1), content=f"c{n // 4}-{n % 2}")
        for n in range(40)
    ]
    train, held = split_validation(items, 0.2, seed=1)
    assert len(train) + len(held) == 40
    assert len(held) == 8
    assert not {(i.concept, i.content) for i in train} & {(i.concept, i.content) for i in held}
    assert {i.id for i in split_validation(items[::-1], 0.2, seed=1)[1]} == {i.id for i in held}
    assert split_validation(items[:1], 0.9, seed=1) == (items[:1], [])
    assert split_validation(items, 0.0, seed=1) == (items, [])
