"""What the drawing functions are told about the person of a scene, and what an outfit is made of."""

from __future__ import annotations

from dataclasses import dataclass

from tenuto.pocket.styles import RGB, WHITE

INK: RGB = (44, 28, 44)


@dataclass(frozen=True)
class Outfit:
    top: RGB
    sleeve: RGB | None
    """None: bare arms."""
    legs: RGB | None
    shoes: RGB
    skirt: RGB | None
    """None: no skirt, for anyone."""
    detail: str = ""
    accent: RGB = WHITE


@dataclass(frozen=True)
class Person:
    girl: bool
    skin: RGB
    hair: RGB
    hair_style: str
    eyes: str
    expression: str
    outfit: str
    headwear: str
    pose: str
    view: str
