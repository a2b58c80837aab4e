"""What the tag filters would take out of a folder's captions, file by file and in sum; and filtered copies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tenuto.data.captions import join_tags, read_caption, split_tags
from tenuto.data.tag_lists import TagCsv
from tenuto.data.tags import FILTERS, plain
from tenuto.files import write_text
from tenuto.words import TenutoError


@dataclass(frozen=True)
class Filtered:
    """One caption file and what the filters make of it."""

    file: Path
    before: str
    after: str
    removed: Mapping[str, tuple[str, ...]]
    """Filter -> the tags that it takes out. A tag that several match goes to the first."""


def filter_caption(
    caption: str, filters: Sequence[str], known: TagCsv | None = None, keep: Sequence[str] = ()
) -> tuple[str, dict[str, tuple[str, ...]]]:
    """(what is left, filter -> tags that go). `keep`: tags that stay whatever a filter says."""
    safe = {plain(tag) for tag in keep}
    left: list[str] = []
    removed: dict[str, list[str]] = {}
    for tag in split_tags(caption):
        name = next((n for n in filters if plain(tag) not in safe and FILTERS[n].matches(tag, known)), None)
        (left if name is None else removed.setdefault(name, [])).append(tag)
    return join_tags(left), {name: tuple(tags) for name, tags in removed.items()}


def filter_folder(
    folder: Path,
    filters: Sequence[str],
    known: TagCsv | None = None,
    *,
    keep: Sequence[str] = (),
    extension: str = ".txt",
) -> list[Filtered]:
    """Every caption file of a folder, by name. Raises TenutoError for a folder without any, or an unknown filter."""
    if wrong := next((name for name in filters if name not in FILTERS), None):
        raise TenutoError(f"filter {wrong!r} is unknown; there are {', '.join(FILTERS)}")
    found = []
    for path in _captions(folder, extension):
        caption = read_caption(path, extension)
        before = caption.text if caption is not None else ""
        after, removed = filter_caption(before, filters, known, keep)
        found.append(Filtered(path, before, after, removed))
    return found


def _captions(folder: Path, extension: str) -> list[Path]:
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == extension and path.is_file())
    except OSError as error:
        raise TenutoError(f"{folder}: cannot be read ({error.strerror or error}); give a folder of captions") from error
    if not files:
        raise TenutoError(f"{folder}: no {extension} files in it; give the folder of the captions, or --extension")
    return files


def in_sum(found: Sequence[Filtered]) -> dict[str, Counter[str]]:
    """Filter -> how often each tag goes, in the spelling that lists use."""
    total: dict[str, Counter[str]] = {}
    for each in found:
        for name, tags in each.removed.items():
            total.setdefault(name, Counter()).update(plain(tag) for tag in tags)
    return total


def write_filtered(found: Sequence[Filtered], target: Path) -> int:
    """The filtered captions under the same names in another folder. Raises TenutoError rather than replace a file."""
    for each in found:
        if target.resolve() == each.file.parent.resolve():
            raise TenutoError(f"{target}: holds the captions themselves, which are never changed; name another folder")
        if (target / each.file.name).exists():
            raise TenutoError(f"{target / each.file.name}: is there already; name a new folder")
    for each in found:
        write_text(target / each.file.name, each.after)
    return len(found)
