"""Lists of tags with their categories: the autocomplete lists of web UIs, and those that taggers come with."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tenuto.data.tags import plain
from tenuto.words import TenutoError

DANBOORU = {"0": "general", "1": "artist", "3": "copyright", "4": "character", "5": "meta", "9": "meta"}
E621 = {"0": "general", "1": "artist", "3": "copyright", "4": "character", "5": "general", "7": "meta", "8": "meta"}
WORDS = {word: word for word in ("general", "artist", "copyright", "character", "meta")} | {
    "rating": "meta", "quality": "meta", "model": "meta",
}  # fmt: skip
"""Categories that are written out."""
RATINGS = frozenset({"general", "sensitive", "questionable", "explicit", "safe"})


@dataclass(frozen=True)
class TagCsv:
    """A list of tags with their categories."""

    categories: Mapping[str, str]
    """Tag (and alias) as `plain` spells it -> general, artist, copyright, character, meta."""
    skipped: int = 0
    """Rows that could not be understood."""

    def get(self, tag: str) -> str | None:
        return self.categories.get(plain(tag))

    @classmethod
    def load(cls, path: Path) -> TagCsv:
        """Reads the tag-autocomplete form (`name,type,count,"aliases"`), and of taggers `selected_tags.csv` and
        `tag_mapping.json`.

        Numbers mean danbooru's categories, or e621's when the file is called so.
        """
        words = E621 if path.name.lower().startswith("e621") else DANBOORU
        rows = _mapping_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)
        found: dict[str, str] = {}
        aliases: dict[str, str] = {}
        skipped = 0
        for tag, category, others in rows:
            known, name = {**words, **WORDS}.get(category.strip().lower()), plain(tag)
            if known is None or not name:
                skipped += 1
                continue
            found[name] = known
            aliases |= {plain(alias): known for alias in others}
        if not found:
            raise TenutoError(f"{path}: no tags with known categories in it; the form is name,category[,count,aliases]")
        return cls({**aliases, **found}, skipped)


Entry = tuple[str, str, Sequence[str]]
"""Tag, category as written, aliases."""


def _csv_rows(path: Path) -> Iterator[Entry]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _no_tag_list(path, error) from error
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    headed = "name" in header and "category" in header
    name_at, category_at = (header.index("name"), header.index("category")) if headed else (0, 1)
    for number, row in enumerate(rows[1:] if headed else rows):
        tag, category = (row[at] if len(row) > at else "" for at in (name_at, category_at))
        if headed and number < len(RATINGS) and plain(tag) in RATINGS:
            category = "rating"  # the oldest taggers' lists call them general tags
        others = row[3].split(",") if not headed and len(row) > 3 else ()
        yield tag, category, [alias for alias in others if alias.strip() and not alias.strip().startswith("/")]


def _mapping_rows(path: Path) -> Iterator[Entry]:
    """{"0": {"tag": "1girl", "category": "General"}, ...}"""
    try:
        table = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise _no_tag_list(path, error) from error
    for entry in table.values() if isinstance(table, dict) else ():
        if isinstance(entry, dict):
            yield str(entry.get("tag", "")), str(entry.get("category", "")), ()


def _no_tag_list(path: Path, error: Exception) -> TenutoError:
    why = error.strerror if isinstance(error, OSError) else str(error)[:80]
    return TenutoError(f"{path}: not a readable tag list ({why}); give a UTF-8 CSV file with tag names and categories")


@lru_cache(maxsize=4)
def load_tag_csv(path: Path) -> TagCsv:
    """`TagCsv.load`, remembered: these lists have a hundred thousand rows."""
    return TagCsv.load(path)
