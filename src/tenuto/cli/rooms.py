"""The rooms that may be left out, with what their extras bring: a command that needs one says so in one line."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from tenuto.words import TenutoError


def need(room: str, brings: Sequence[str], asked: str) -> None:
    """Raises TenutoError where the room was left out of this tenuto, or what its extra brings is not installed.

    asked: the words that the user typed, by which the error begins.
    """
    if find_spec(f"tenuto.{room}") is None:
        raise TenutoError(f'{asked}: this tenuto has no tenuto.{room}; pip install "tenuto[{room}]"')
    if missing := [name for name in brings if find_spec(name) is None]:
        raise TenutoError(f'{asked}: {", ".join(missing)} not installed; pip install "tenuto[{room}]"')
