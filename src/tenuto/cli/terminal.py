"""The terminal as text: what users write (captions, names, paths) is shown as it is, never read as markup."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text


def console(*, stderr: bool = False) -> Console:
    """Every command's console. Styles are given by `style=` or `styled`, never inside a string."""
    return Console(stderr=stderr, markup=False, highlight=False, soft_wrap=True)


def styled(*parts: str | tuple[str, str]) -> Text:
    """One line of plain and (text, style) parts."""
    return Text.assemble(*parts)
