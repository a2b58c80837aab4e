r"""Captions: a list of tags ("1girl, red hair, saber \(fate\)") or sentences, in a text file beside the picture."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tenuto.words import TenutoError

MAX_BYTES = 1 << 20


def split_tags(text: str) -> tuple[str, ...]:
    r"""The parts between commas, trimmed, empty ones left out; escapes such as `\(` stay as they are."""
    return tuple(tag for part in text.split(",") if (tag := " ".join(part.split())))


def join_tags(tags: Iterable[str]) -> str:
    return ", ".join(tags)


def is_sentence(text: str) -> bool:
    """Prose rather than tags: a part of seven words or more, or a full stop after a part of at least four."""
    words = [len(tag.split()) for tag in split_tags(text)]
    return max(words, default=0) >= 7 or (text.rstrip().endswith((".", "!", "?")) and max(words, default=0) >= 4)


@dataclass(frozen=True)
class Caption:
    """What a picture's caption says."""

    text: str

    @property
    def kind(self) -> Literal["tags", "sentence"]:
        return "sentence" if is_sentence(self.text) else "tags"

    @property
    def tags(self) -> tuple[str, ...]:
        return split_tags(self.text)


def caption_path(image: Path, extension: str = ".txt") -> Path:
    return image.with_suffix(extension)


def read_caption(image: Path, extension: str = ".txt") -> Caption | None:
    """The caption beside a picture, or None where there is no such file.

    UTF-8, with or without a byte order mark. Several lines count as one: a comma joins lines that end in none.
    Raises TenutoError for a file that is no text.
    """
    path = caption_path(image, extension)
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > MAX_BYTES:
            raise TenutoError(f"{path}: over {MAX_BYTES:,} bytes, hardly a caption; replace it")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TenutoError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise TenutoError(f"{path}: cannot be read ({error.strerror or error}); mend its permissions") from error
    if bad := next((char for char in text if unicodedata.category(char) == "Cc" and not char.isspace()), None):
        raise TenutoError(f"{path}: holds the control character {bad!r}, so it is no plain text; save it as UTF-8")
    return Caption(_one_line(text))


def _one_line(text: str) -> str:
    whole = ""
    for line in (" ".join(line.split()) for line in text.splitlines()):
        if line:
            whole += line if not whole else f" {line}" if whole[-1] in ",.;!?" else f", {line}"
    return unicodedata.normalize("NFC", whole)
