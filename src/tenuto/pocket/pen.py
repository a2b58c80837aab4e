"""A pen that draws smooth, outlined shapes on a supersampled canvas. How lines and fills look is the style's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from tenuto.pocket.styles import RGB, Look, lighting, lights

Point = tuple[float, float]
SUPERSAMPLE = 3
_CURVE_STEPS = 6


@lru_cache(maxsize=8)
def _catmull_rom(steps: int) -> np.ndarray:
    """[steps, 4]: how much each of four neighbouring knots counts along the piece between the middle two."""
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    return (
        np.concatenate([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], 1) / 2
    )


def smooth(knots: Sequence[Point], closed: bool) -> np.ndarray:
    """[N, 2]: a Catmull-Rom curve through the knots."""
    k = np.asarray(knots, dtype=np.float64)
    if not closed:
        k = np.concatenate([k[:1], k, k[-1:]])
    pieces = len(k) if closed else len(k) - 3
    around = np.arange(pieces)[:, None] + np.arange(4)[None] - (1 if closed else 0)
    curve = np.einsum("sf,pfc->psc", _catmull_rom(_CURVE_STEPS), k[around % len(k)]).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, k[-1:]])


@dataclass(frozen=True)
class Pen:
    """Draws in its own units: `origin` is where (0, 0) lies on the canvas, `scale` is pixels per unit,
    `stretch` times that in x (negative: mirrored)."""

    canvas: Image.Image
    look: Look
    origin: Point = (0.0, 0.0)
    scale: float = 1.0
    stretch: float = 1.0
    line_width: float = 1.0

    def at(self, origin: Point, scale: float, flip: bool = False) -> Pen:
        """The same pen for a figure that stands elsewhere."""
        return replace(
            self,
            origin=origin,
            scale=scale,
            stretch=-1.0 if flip else 1.0,
            line_width=max(2.0, self.look.width * scale),
        )

    def backdrop(self) -> Pen:
        """Units of the canvas: (0, 0) to (1, 1)."""
        w, h = self.canvas.size
        return replace(
            self, origin=(0.0, 0.0), scale=h, stretch=w / h, line_width=max(2.0, self.look.width * min(w, h) * 0.2)
        )

    def at_side(self, right: int) -> Pen:
        """A backdrop pen for things that may stand left or, mirrored, right."""
        return replace(self, origin=(self.canvas.size[0], 0.0), stretch=-self.stretch) if right else self

    def _place(self, points: np.ndarray | Sequence[Point]) -> list[tuple[float, float]]:
        array = np.asarray(points, dtype=np.float64) * (self.scale * self.stretch, self.scale) + self.origin
        return list(map(tuple, array.tolist()))

    def _fill(self, placed: list[tuple[float, float]], color: RGB, outline: bool) -> None:
        self._lay(color, lambda draw, tone: draw.polygon(placed, fill=tone))
        line = self.look.line(color) if outline else None
        if line is not None:
            draw = ImageDraw.Draw(self.canvas)
            draw.line([*placed, placed[0], placed[1]], fill=line, width=round(self.line_width))

    def _lay(self, color: RGB, shape: Callable[[ImageDraw.ImageDraw, Any], None]) -> None:
        """A shape filled with a colour, lit where the style has light."""
        tone = self.look.fill(color)
        shape(ImageDraw.Draw(self.canvas), tone)
        if not self.look.light:
            return
        where = Image.new("L", self.canvas.size)
        shape(ImageDraw.Draw(where), 255)
        box = where.getbbox()
        if box is None:
            return
        size, inside = (box[2] - box[0], box[3] - box[1]), where.crop(box)
        for over, share in zip(lights(tone), lighting(), strict=True):
            self.canvas.paste(over, box, ImageChops.multiply(inside, share.resize(size)))

    def polygon(self, points: Sequence[Point], color: RGB, outline: bool = True) -> None:
        self._fill(self._place(points), color, outline)

    def blob(self, knots: Sequence[Point], color: RGB, outline: bool = True) -> None:
        """A closed smooth shape through the knots."""
        self._fill(self._place(smooth(knots, closed=True)), color, outline)

    def mirrored(self, half: Sequence[Point], color: RGB, outline: bool = True) -> None:
        """A blob that is symmetric in x; `half` runs down its right side."""
        self.blob([*half, *[(-x, y) for x, y in reversed(half) if x != 0]], color, outline)

    def glass(self, half: Sequence[Point], color: RGB, share: float) -> None:
        """A see-through mirrored blob: `share` of its fill over what is there."""
        mask = Image.new("L", self.canvas.size, 0)
        knots = [*half, *[(-x, y) for x, y in reversed(half) if x != 0]]
        ImageDraw.Draw(mask).polygon(self._place(smooth(knots, closed=True)), fill=round(255 * share))
        self.canvas.paste(self.look.fill(color), mask=mask)

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: RGB, outline: bool = True) -> None:
        (cx, cy) = self._place([(x, y)])[0]
        box = (cx - rx * self.scale, cy - ry * self.scale, cx + rx * self.scale, cy + ry * self.scale)
        self._lay(color, lambda draw, tone: draw.ellipse(box, fill=tone))
        if outline and (line := self.look.line(color)) is not None:
            ImageDraw.Draw(self.canvas).ellipse(box, outline=line, width=round(self.line_width))

    def ring(self, x: float, y: float, rx: float, ry: float, color: RGB, width: float) -> None:
        (cx, cy) = self._place([(x, y)])[0]
        box = (cx - rx * self.scale, cy - ry * self.scale, cx + rx * self.scale, cy + ry * self.scale)
        ImageDraw.Draw(self.canvas).ellipse(box, outline=self.look.ink(color), width=max(2, round(width * self.scale)))

    def stroke(self, knots: Sequence[Point], color: RGB, width: float) -> None:
        """A line of ink: eyelids, mouths, strings."""
        pixels = max(2, round(width * self.scale))
        placed = self._place(smooth(knots, closed=False) if len(knots) > 2 else knots)
        ImageDraw.Draw(self.canvas).line(placed, fill=self.look.ink(color), width=pixels, joint="curve")

    def limb(self, knots: Sequence[Point], color: RGB, width: float) -> None:
        """A thick rounded stroke with an outline: arms and legs."""
        placed = self._place(smooth(knots, closed=False))
        line = self.look.line(color)
        if line is not None:
            self._thick(ImageDraw.Draw(self.canvas), placed, line, width * self.scale + 2 * self.line_width)
        self._lay(color, lambda draw, tone: self._thick(draw, placed, tone, width * self.scale))

    @staticmethod
    def _thick(draw: ImageDraw.ImageDraw, placed: list[tuple[float, float]], tone: Any, pixels: float) -> None:
        r = pixels / 2
        draw.line(placed, fill=tone, width=round(pixels), joint="curve")
        for x, y in (placed[0], placed[-1]):
            draw.ellipse((x - r, y - r, x + r, y + r), fill=tone)
