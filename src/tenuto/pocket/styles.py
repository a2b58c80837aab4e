"""The styles of the picture world: how a style fills, outlines and finishes a drawing. One table, `STYLES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps

RGB = tuple[int, int, int]
WHITE, BLACK = (255, 255, 255), (24, 20, 30)


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """`share` of b in a."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def grey(color: RGB) -> float:
    return (0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2]) / 255


def vivid(color: RGB, gain: float) -> RGB:
    """Away from (gain > 1) or towards (gain < 1) its own grey."""
    level = 255 * grey(color)
    return tuple(min(255, max(0, round(level + (c - level) * gain))) for c in color)  # type: ignore[return-value]


def same(color: RGB) -> RGB:
    return color


def no_line(color: RGB) -> RGB | None:
    return None


def _unfinished(picture: Image.Image) -> Image.Image:
    return picture


@dataclass(frozen=True)
class Look:
    """fill: what a colour becomes; line: a fill's outline; ink: a drawn line; finish: done to the final picture."""

    fill: Callable[[RGB], RGB] = same
    line: Callable[[RGB], RGB | None] = lambda color: mix(color, BLACK, 0.72)
    ink: Callable[[RGB], RGB] = same
    width: float = 0.055
    shade: bool = True
    colorful: bool = True
    """False: colours cannot be told, so captions do not name them."""
    finish: Callable[[Image.Image], Image.Image] = _unfinished
    light: bool = False
    """Every fill is lit from the upper left, as a round body is."""


def lit(look: Look) -> Look:
    """How the second base draws a style: with light and shade, and thin lines, of their fills' colours unless the style
    has an ink of its own."""

    def line(color: RGB) -> RGB | None:
        own = look.line(color)
        return mix(color, BLACK, 0.4) if own is not None and look.ink is same else own

    return replace(look, light=True, line=line, width=0.6 * look.width)


@lru_cache(maxsize=1)
def lighting() -> tuple[Image.Image, Image.Image]:
    """How much of the light, and of the shadow, lies on a body that fills a square."""
    y, x = np.mgrid[0:32, 0:32] / 31
    near = np.hypot(x - 0.3, y - 0.25)
    return _picture(255 * np.clip(0.55 - 1.1 * near, 0, 1)), _picture(255 * np.clip(0.95 * near - 0.3, 0, 0.72))


def lights(color: RGB) -> tuple[RGB, RGB]:
    """What a colour is in full light, and in shadow."""
    return mix(color, WHITE, 0.7), mix(color, (26, 20, 58), 0.9)


@lru_cache(maxsize=32)
def _noise(size: tuple[int, int], cell: int, seed: int) -> Image.Image:
    """A smooth random grey texture with features of `cell` pixels."""
    w, h = size
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (h // cell + 2, w // cell + 2), dtype=np.uint8)
    return Image.fromarray(small).resize((w, h), Image.Resampling.BICUBIC)


@lru_cache(maxsize=32)
def _tile(size: tuple[int, int], kind: str) -> np.ndarray:
    """[H, W] in 0..1: a texture that repeats every 16 pixels (so that an autoencoder can learn it)."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    texture: np.ndarray
    match kind:
        case "hatch":
            texture = (x + y) % 8 < 4
        case "cross":
            texture = (x - y) % 8 < 4
        case "dots":
            texture = 0.5 + 0.25 * (np.cos(np.pi * x / 4) + np.cos(np.pi * y / 4))
        case _:
            grain = np.random.default_rng(7).random((8, 8)).astype(np.float32)
            texture = np.kron(grain, np.ones((2, 2), np.float32))[y % 16, x % 16]
    return texture.astype(np.float32)


def _array(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, dtype=np.float32)


def _rgb(levels: list[float]) -> np.ndarray:
    return np.array(levels, dtype=np.float32)


def _picture(array: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(array, 0, 255).astype(np.uint8))


def _pixelate(picture: Image.Image) -> Image.Image:
    w, h = picture.size
    cell = 4 if min(w, h) > 80 else 2
    small = picture.resize((w // cell, h // cell), Image.Resampling.BOX)
    return ImageOps.posterize(small, 3).resize((w, h), Image.Resampling.NEAREST)


def _watercolor(picture: Image.Image) -> Image.Image:
    soft = picture.filter(ImageFilter.GaussianBlur(min(picture.size) / 130))
    blotches = ImageOps.autocontrast(_noise(picture.size, 12, 3)).point([round(24 + v * 0.3) for v in range(256)])
    washed = Image.composite(Image.new("RGB", picture.size, WHITE), soft, blotches)
    return Image.composite(washed, Image.new("RGB", picture.size, (250, 248, 242)), _paper_edge(picture.size))


@lru_cache(maxsize=16)
def _paper_edge(size: tuple[int, int]) -> Image.Image:
    """White where paint lies, black towards an uneven paper border."""
    w, h = size
    y, x = np.mgrid[0:h, 0:w]
    border = np.minimum(np.minimum(x, w - 1 - x), np.minimum(y, h - 1 - y)) / min(w, h)
    wobble = _array(_noise(size, 8, 5)) / 255 * 0.06
    return _picture((border - 0.02 - wobble) * 255 * 24)


def _sketch(picture: Image.Image) -> Image.Image:
    level = _array(picture.convert("L")) / 255
    size = picture.size
    strokes = (level < 0.62) * _tile(size, "hatch") * 0.38 + (level < 0.4) * _tile(size, "cross") * 0.3
    dark = np.clip(np.maximum(strokes, (0.24 - level) * 7), 0, 0.9)[..., None]
    paper, pencil = _rgb([246, 236, 214]), _rgb([70, 52, 48])
    return _picture(paper + (pencil - paper) * dark)


def _grainy(picture: Image.Image) -> Image.Image:
    warm = _array(picture) * _rgb([0.62, 0.55, 0.45]) + _rgb([70, 54, 40])
    return _picture(warm + (_tile(picture.size, "grain")[..., None] - 0.5) * 90)


def _neon(picture: Image.Image) -> Image.Image:
    glow = picture.filter(ImageFilter.GaussianBlur(picture.size[0] / 40))
    return ImageChops.add(picture, glow)


def _risograph(picture: Image.Image) -> Image.Image:
    """Two inks, teal and orange-red, with a dot screen on pink paper: a style the base never sees."""
    level = _array(picture.convert("L")) / 255
    dots = _tile(picture.size, "dots")
    paper, light, dark = _rgb([255, 226, 214]), _rgb([255, 72, 88]), _rgb([0, 92, 108])
    tone = np.where(
        (level > 0.74)[..., None], paper, np.where((level + 0.35 * (dots - 0.5) > 0.45)[..., None], light, dark)
    )
    return _picture(tone)


def _shadow(color: RGB) -> RGB:
    return mix(color, (14, 12, 38), 0.86)


def _glowing(color: RGB) -> RGB:
    return vivid(mix(color, WHITE, 0.25 if grey(color) < 0.25 else 0.05), 1.7)


def _blacken(color: RGB) -> RGB:
    return BLACK


STYLES: dict[str, Look] = {
    "anime coloring": Look(),
    "flat color": Look(fill=lambda c: vivid(mix(c, WHITE, 0.08), 1.3), line=no_line, shade=False),
    "lineart": Look(fill=lambda c: WHITE, line=_blacken, ink=_blacken, width=0.075, shade=False, colorful=False),
    "pixel art": Look(width=0.04, finish=_pixelate),
    "watercolor": Look(fill=lambda c: mix(c, WHITE, 0.12), line=lambda c: mix(c, BLACK, 0.3), finish=_watercolor),
    "sketch": Look(line=_blacken, ink=_blacken, width=0.06, colorful=False, finish=_sketch),
    "monochrome": Look(colorful=False, finish=lambda p: ImageOps.autocontrast(p.convert("L")).convert("RGB")),
    "grainy": Look(finish=_grainy),
    "neon": Look(fill=_shadow, line=_glowing, ink=_glowing, width=0.06, shade=False, finish=_neon),
}

UNSEEN_STYLES: dict[str, Look] = {
    "risograph": Look(line=lambda c: mix(c, BLACK, 0.9), width=0.08, colorful=False, finish=_risograph),
}
