"""Bulk edits of captions: what they change, that the old ones come back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenuto.data.editing import CaptionEdit, Undone, edit_captions, edited, undo, write_captions
from tenuto.words import TenutoError

CAPTION = r"1girl, Red_Hair, zxq eyes, saber \(fate\)"


@pytest.mark.parametrize(
    ("edit", "after"),
    [
        (CaptionEdit(action="add", tags=("smile, red hair",)), CAPTION + ", smile"),
        (CaptionEdit(action="add", tags=("smile",), front=True), "smile, " + CAPTION),
        (CaptionEdit(action="remove", tags=("red hair", "saber (fate)")), "1girl, zxq eyes"),
        (
            CaptionEdit(action="replace", tags=("red hair",), instead=("blue hair", "1girl")),
            r"1girl, blue hair, zxq eyes, saber \(fate\)",
        ),
        (CaptionEdit(action="replace", tags=("no such tag",), instead=("x",)), CAPTION),
        (
            CaptionEdit(action="filter", tags=("character_appearance, character_name",), keep=("zxq eyes",)),
            "1girl, zxq eyes",
        ),
        (CaptionEdit(action="trigger_first", tags=("zxq eyes",)), r"zxq eyes, 1girl, Red_Hair, saber \(fate\)"),
    ],
)
def test_edits(edit: CaptionEdit, after: str) -> None:
    assert edited(CAPTION, edit) == after
    assert edited(after, edit) == after


def test_written_in_place_and_undone(tmp_path: Path) -> None:
    pictures = [tmp_path / f"{name}.png" for name in "abc"]
    for picture in pictures:
        picture.touch()
    (tmp_path / "a.txt").write_text("1girl, hat")
    (tmp_path / "b.txt").write_text("1girl")
    edit = CaptionEdit(action="remove", tags=("hat",))
    changes = edit_captions(pictures, edit)
    assert [(change.picture.name, change.after) for change in changes] == [("a.png", "1girl")]
    assert (tmp_path / "a.txt").read_text() == "1girl, hat", "a look changes nothing"
    assert write_captions(changes, tmp_path / "kept.json") == 1
    assert (tmp_path / "a.txt").read_text() == "1girl\n"
    assert undo(tmp_path / "kept.json") == Undone(1, ())
    assert (tmp_path / "a.txt").read_text() == "1girl, hat"
    with pytest.raises(TenutoError, match="no edit"):
        undo(tmp_path / "kept.json")


def test_what_was_written_since_is_not_undone(tmp_path: Path) -> None:
    pictures = [tmp_path / f"{name}.png" for name in "abc"]
    for picture in pictures:
        picture.touch()
        picture.with_suffix(".txt").write_text("1girl, hat")
    write_captions(edit_captions(pictures, CaptionEdit(action="remove", tags=("hat",))), tmp_path / "kept.json")
    (tmp_path / "a.txt").write_text("1girl, by hand")
    (tmp_path / "b.txt").unlink()
    assert undo(tmp_path / "kept.json") == Undone(1, (tmp_path / "a.txt", tmp_path / "b.txt"))
    assert (tmp_path / "a.txt").read_text() == "1girl, by hand"
    assert not (tmp_path / "b.txt").exists()
    assert (tmp_path / "c.txt").read_text() == "1girl, hat"


def test_a_caption_that_was_not_there_is_taken_away_again(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    changes = edit_captions([tmp_path / "a.png"], CaptionEdit(action="add", tags=("new",)))
    write_captions(changes, tmp_path / "kept.json")
    assert (tmp_path / "a.txt").read_text() == "new\n"
    undo(tmp_path / "kept.json")
    assert not (tmp_path / "a.txt").exists()


def test_an_edit_without_tags_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TenutoError, match="no tags given"):
        edit_captions([tmp_path / "a.png"], CaptionEdit(action="remove", tags=(" , ",)))
    with pytest.raises(TenutoError, match="'metas' is unknown"):
        edit_captions([tmp_path / "a.png"], CaptionEdit(action="filter", tags=("metas",)))


@pytest.mark.parametrize(
    "record", ["[", "[]", "{}", '{"extension": ".txt", "captions": {"a.png": [1]}, "written": {}}',
               '{"extension": "a/b", "captions": {"a.png": "x"}, "written": {"a.png": "y"}}', "[" * 50_000],
)  # fmt: skip
def test_a_damaged_record_undoes_nothing(record: str, tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text(record)
    with pytest.raises(TenutoError, match="no edit"):
        undo(tmp_path / "kept.json")


def test_a_name_that_no_file_can_have_is_one_line(tmp_path: Path) -> None:
    changes = edit_captions([tmp_path / "a.png"], CaptionEdit(action="add", tags=("new",)))
    write_captions(changes, tmp_path / "kept.json")
    record = (tmp_path / "kept.json").read_text().replace("a.png", f"{'a' * 5000}.png").replace("null", '"old"')
    (tmp_path / "kept.json").write_text(record)
    with pytest.raises(TenutoError, match="no edit"):
        undo(tmp_path / "kept.json")


def test_a_damaged_path_in_a_record_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    write_captions(
        edit_captions([tmp_path / "a.png"], CaptionEdit(action="add", tags=("new",))), tmp_path / "kept.json"
    )
    record = (tmp_path / "kept.json").read_text().replace(f"{tmp_path}/", f"{tmp_path}/other/").replace("null", '"old"')
    (tmp_path / "kept.json").write_text(record)
    assert undo(tmp_path / "kept.json") == Undone(0, ())
    assert not (tmp_path / "other").exists()
