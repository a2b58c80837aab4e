from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tenuto.cli.main import app
from tenuto.data.captions import split_tags
from tenuto.data.filtering import filter_caption, filter_folder, in_sum, write_filtered
from tenuto.data.tag_lists import TagCsv
from tenuto.data.tags import FILTERS
from tenuto.words import TenutoError

CAPTIONS = {
    "a": r"zxq, 1girl, blue eyes, by wlop, saber \(fate\), highres, beach",
    "b": "1girl, wlop, long_hair, masterpiece",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    for name, caption in CAPTIONS.items():
        (tmp_path / "set" / f"{name}.txt").write_text(caption)
    return tmp_path / "set"


@pytest.fixture
def tag_list(tmp_path: Path) -> Path:
    path = tmp_path / "danbooru.csv"
    path.write_text('1girl,0,9\nwlop,1,8,"wlop_(artist),/w"\nblue_eyes,0,7\nsaber_(fate),4,3\nhighres,5,2\n')
    return path


def test_by_file_and_in_sum(folder: Path, tag_list: Path) -> None:
    found = filter_folder(folder, list(FILTERS), TagCsv.load(tag_list), keep=["masterpiece"])
    a, b = found
    assert a.removed == {
        "character_appearance": ("blue eyes",), "artist": ("by wlop",), "character_name": (r"saber \(fate\)",),
        "meta": ("highres",),
    }  # fmt: skip
    assert a.after == "zxq, 1girl, beach"
    assert b.removed == {"artist": ("wlop",), "character_appearance": ("long_hair",)}
    assert b.after == "1girl, masterpiece"
    assert in_sum(found)["artist"] == {"by wlop": 1, "wlop": 1}


@given(st.text(max_size=40), st.lists(st.sampled_from(list(FILTERS)), unique=True))
def test_nothing_is_lost(caption: str, filters: list[str]) -> None:
    after, removed = filter_caption(caption, filters)
    gone = [tag for tags in removed.values() for tag in tags]
    assert sorted([*split_tags(after), *gone]) == sorted(split_tags(caption))
    assert filter_caption(after, filters)[1] == {}


def test_copies_and_never_in_place(folder: Path, tmp_path: Path) -> None:
    found = filter_folder(folder, ["artist"])
    assert write_filtered(found, tmp_path / "new") == 2
    assert (tmp_path / "new" / "a.txt").read_text() == r"zxq, 1girl, blue eyes, saber \(fate\), highres, beach"
    for target in (folder, tmp_path / "set" / ".." / "set", tmp_path / "new"):
        with pytest.raises(TenutoError, match=r"never changed|is there already"):
            write_filtered(found, target)
    assert (folder / "a.txt").read_text() == CAPTIONS["a"]


def test_the_command(folder: Path, tag_list: Path, tmp_path: Path) -> None:
    words = ["tags", str(folder), "--csv", str(tag_list), "--filter", "artist", "--filter", "copyright"]
    result = CliRunner().invoke(app, [*words, "--write", str(tmp_path / "new"), "--json"])
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["sum"] == {"artist": {"by wlop": 1, "wlop": 1}}
    assert told["partial"] == ["copyright"], "the list has no copyright tag"
    assert told["written"] == 2
    assert (tmp_path / "new" / "b.txt").read_text() == "1girl, long_hair, masterpiece"
    plain = CliRunner().invoke(app, ["tags", str(folder)])
    assert "a.txt" in plain.stdout
    assert "in sum, meta" in plain.stdout
    for more in (["--write", "x"], ["--filter", "artists"], ["--csv", "nowhere.csv"], ["--extension", ".caption"]):
        failed = CliRunner().invoke(app, ["tags", str(folder), *more])
        assert (failed.exit_code, len(failed.stderr.splitlines())) == (1, 1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("selected_tags.csv", "tag_id,name,category,count\n9,general,9,1\n1,hatsune_miku,4,5\n2,smile,0,5\n"),
        ("selected_tags.csv", "tag_id,name,category,count\n9,general,0,1\n1,hatsune_miku,4,5\n2,smile,0,5\n"),
        ("selected_tags.csv",
         "id,tag_id,name,category,count,ips\n0,9,general,9,1,[]\n1,1,hatsune_miku,4,5,\n2,2,smile,0,5,\n"),
        ("tag_mapping.json", json.dumps({
            "0": {"tag": "general", "category": "Rating"}, "1": {"tag": "hatsune_miku", "category": "Character"},
            "2": {"tag": "smile", "category": "General"},
        })),
    ],
)  # fmt: skip
def test_lists_of_taggers(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    known = TagCsv.load(tmp_path / name)
    assert [known.get(tag) for tag in ("general", "hatsune miku", "smile")] == ["meta", "character", "general"]
    assert FILTERS["character_name"].complete(known)
    assert not FILTERS["artist"].complete(known)


@given(st.binary(max_size=60) | st.text("a,01\n\"/'[]{}:", max_size=40).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_tag_list(tmp_path: Path, content: bytes) -> None:
    for name in ("tags.csv", "tags.json", "e621.csv"):
        (tmp_path / name).write_bytes(content)
        try:
            known = TagCsv.load(tmp_path / name)
        except TenutoError:
            continue
        assert known.categories
