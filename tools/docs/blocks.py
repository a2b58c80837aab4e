"""The code blocks of the docs, and the commands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "presets" / "article" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
)
LANGUAGES = ("sh", "toml", "python", "text")
"""What a block may be: commands, settings, Python, or what is neither typed nor read by a program."""
FENCE = re.compile(r'\s*```(\w*)(?: title="(.+)")?$')
INLINE = re.compile(r"`((?:tenuto|python -m|make) [^`]+)`")
PROGRAMS = re.compile(r"\s{4,}(tenuto|python|make|pip|torchrun|accelerate)\s")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: Path
    line: int
    language: str
    title: str
    """The file that it is, where it is one."""
    text: str


@dataclass(frozen=True)
class Command:
    """One line that a reader is told to type."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def blocks(page: Path) -> Iterator[Block]:
    """Every fenced block of a page."""
    inside: list[str] | None = None
    start, language, title = 0, "", ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = FENCE.match(line)
        if fence and inside is None:
            inside, start, language, title = [], number, fence[1], fence[2] or ""
        elif fence and inside is not None:
            yield Block(page, start, language, title, "\n".join(inside))
            inside = None
        elif inside is not None:
            inside.append(line)


def commands(page: Path) -> list[Command]:
    """The commands of a page's sh blocks, without remarks."""
    return [own for block in blocks(page) if block.language == "sh" for own in commands_in(block)]


def commands_in(block: Block) -> Iterator[Command]:
    """The commands of one block."""
    name = str(block.page.relative_to(ROOT))
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if text := re.split(r"(?:^|\s)#(?:\s|$)", line)[0].strip():
            yield Command(name, number, text)


def mentions(page: Path) -> Iterator[Command]:
    """Commands inside sentences; they may leave out what the reader has to fill in."""
    name, fenced = str(page.relative_to(ROOT)), False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fenced ^= bool(FENCE.match(line))
        for text in () if fenced else INLINE.findall(line):
            yield Command(name, number, text)


def hidden(page: Path) -> Iterator[int]:
    """Lines that look like commands but stand in no block."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fenced ^= bool(FENCE.match(line))
        if not fenced and PROGRAMS.match(line):
            yield number
