"""Docstrings as pages: formulas stay as they are, words become text, papers become links."""

from __future__ import annotations

import inspect
import re

ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


def told(text: str) -> str:
    """A docstring (or a part of one) as Markdown. A paragraph with an indented line or with columns is a formula."""
    return "\n\n".join(_paragraph(each) for each in text.split("\n\n") if each.strip())


def _paragraph(text: str) -> str:
    lines = text.strip("\n").splitlines()
    if any(line.startswith(" ") or "   " in line for line in lines):
        return "\n".join(["```text", *inspect.cleandoc("\n" + "\n".join(lines)).splitlines(), "```"])
    return linked(" ".join(lines))


def linked(text: str) -> str:
    """Words in which papers are links and stars are stars."""
    return ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", text.replace("*", r"\*"))


def sentence(text: str) -> str:
    """With a capital letter."""
    return text[:1].upper() + text[1:]
