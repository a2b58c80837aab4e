"""Changing captions in bulk: seen before it is done, and undone afterwards.

Unlike `tenuto tags`, which only writes copies, an edit changes the captions in place; the old ones are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tenuto.data.captions import caption_path, join_tags, read_caption, split_tags
from tenuto.data.filtering import filter_caption
from tenuto.data.tags import FILTERS, phrases, plain
from tenuto.files import write_text
from tenuto.words import Settings, TenutoError

Action = Literal["add", "remove", "replace", "trigger_first", "filter"]


class CaptionEdit(Settings):
    """One change of many captions."""

    action: Action
    tags: tuple[str, ...] = ()
    """What is added, removed or replaced. For trigger_first: the trigger; for filter: names of tag filters."""
    instead: tuple[str, ...] = ()
    """For replace: what stands there afterwards."""
    front: bool = False
    """Add at the front, not at the end."""
    keep: tuple[str, ...] = ()
    """Tags that stay whatever a filter says, such as the trigger."""


class Kept(Settings):
    """Captions as they were before an edit."""

    extension: str
    captions: dict[str, str | None]
    """Picture -> the text of its caption file; null: there was none."""
    written: dict[str, str]
    """Picture -> what the edit wrote there."""


@dataclass(frozen=True)
class Undone:
    """What came of taking an edit back."""

    back: int
    """Captions that are as they were."""
    left: tuple[Path, ...]
    """Files that were changed after the edit, and stay."""


@dataclass(frozen=True)
class Edited:
    """A caption before and after."""

    picture: Path
    before: str
    after: str


def edited(caption: str, edit: CaptionEdit) -> str:
    """The caption after the edit. Tags are compared as lists spell them; a tag that is there is not added again."""
    tags, own = split_tags(caption), tuple(tag for text in edit.tags for tag in split_tags(text))
    return join_tags(ACTIONS[edit.action](tags, own, edit))


def _add(tags: Sequence[str], own: Sequence[str], edit: CaptionEdit) -> Sequence[str]:
    new = _without(own, tags)
    return [*new, *tags] if edit.front else [*tags, *new]


def _remove(tags: Sequence[str], own: Sequence[str], edit: CaptionEdit) -> Sequence[str]:
    return _without(tags, own)


def _replace(tags: Sequence[str], own: Sequence[str], edit: CaptionEdit) -> Sequence[str]:
    gone = {plain(tag) for tag in own}
    place = next((number for number, tag in enumerate(tags) if plain(tag) in gone), None)
    if place is None:
        return tags
    before, after = _without(tags[:place], own), _without(tags[place:], own)
    new = _without([tag for text in edit.instead for tag in split_tags(text)], [*before, *after])
    return [*before, *new, *after]


def _trigger_first(tags: Sequence[str], own: Sequence[str], edit: CaptionEdit) -> Sequence[str]:
    words = [phrase for tag in own for phrase in phrases(tag)]
    return [*words, *_without(tags, words)]


def _filter(tags: Sequence[str], own: Sequence[str], edit: CaptionEdit) -> Sequence[str]:
    if wrong := next((name for name in own if name not in FILTERS), None):
        raise TenutoError(f"filter {wrong!r} is unknown; there are {', '.join(FILTERS)}")
    keep = [tag for text in edit.keep for tag in split_tags(text)]
    return split_tags(filter_caption(join_tags(tags), own, keep=keep)[0])


def _without(tags: Sequence[str], others: Sequence[str]) -> list[str]:
    gone = {plain(tag) for tag in others}
    return [tag for tag in tags if plain(tag) not in gone]


ACTIONS: dict[Action, Callable[[Sequence[str], Sequence[str], CaptionEdit], Sequence[str]]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "trigger_first": _trigger_first,
    "filter": _filter,
}


def edit_captions(pictures: Sequence[Path], edit: CaptionEdit, extension: str = ".txt") -> list[Edited]:
    """What the edit would change; captions that stay as they are left out. Nothing is written."""
    if not any(tag for text in edit.tags for tag in split_tags(text)):
        raise TenutoError(f"caption edit {edit.action!r}: no tags given; write at least one")
    found = []
    for picture in pictures:
        caption = read_caption(picture, extension)
        before = caption.text if caption is not None else ""
        if (after := edited(before, edit)) != join_tags(split_tags(before)):
            found.append(Edited(picture, before, after))
    return found


def write_captions(changes: Sequence[Edited], kept: Path, extension: str = ".txt") -> int:
    """Write the new captions; the old files' text goes into `kept` (JSON) first. Returns how many were written."""
    files = {str(change.picture): _text(caption_path(change.picture, extension)) for change in changes}
    written = {str(change.picture): change.after + "\n" for change in changes}
    if files:
        write_text(kept, Kept(extension=extension, captions=files, written=written).model_dump_json(indent=1) + "\n")
    for picture, text in written.items():
        write_text(caption_path(Path(picture), extension), text)
    return len(changes)


def undo(kept: Path) -> Undone:
    """Put the captions back that the last edit changed, of pictures that are still there; once. What was written over
    them since stays. Raises TenutoError when there is nothing to undo."""
    try:
        record = Kept.model_validate_json(kept.read_text(encoding="utf-8"))
        paths = {own: caption_path(Path(own), record.extension) for own in record.captions}
        files = {own: path for own, path in paths.items() if Path(own).is_file()}
        known = {own: (record.captions[own], record.written.get(own)) for own in files}
        left = [own for own, file in files.items() if _text(file) not in known[own]]
    except (OSError, ValueError) as error:
        raise TenutoError(f"{kept}: no edit of captions to undo") from error
    for own in (back := [own for own in files if own not in left]):
        text = record.captions[own]
        if text is None:
            files[own].unlink(missing_ok=True)
        else:
            write_text(files[own], text)
    kept.unlink()
    return Undone(len(back), tuple(files[own] for own in left))


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
