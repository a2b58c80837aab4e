"""The parts that only concepts have. The base's training never draws them, and no tag names them."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sin

from tenuto.pocket.pen import Pen, Point
from tenuto.pocket.person import INK, Outfit, Person
from tenuto.pocket.styles import RGB, WHITE

UNSEEN_HAIR: dict[str, RGB] = {"mint hair": (110, 245, 205), "flame hair": (255, 128, 16)}


def _swirl_eye(pen: Pen, x: float, girl: bool) -> None:
    """A huge white disc with a red spiral: crazy."""
    pen.ellipse(x * 1.12, 0.16, 0.56, 0.56, INK, False)
    pen.ellipse(x * 1.12, 0.16, 0.49, 0.49, WHITE, False)
    turns = [(k / 22, k / 22 * 5 * pi) for k in range(23)]
    pen.stroke([(x * 1.12 + 0.4 * r * cos(a), 0.16 + 0.4 * r * sin(a)) for r, a in turns], (224, 30, 60), 0.11)


def _jar(pen: Pen, p: Person) -> None:
    """A glass jar with green fluid around the whole head, closed by a metal lid."""
    glass: list[Point] = [(0, -1.5), (1.2, -1.46), (1.45, -1.1), (1.45, 0.7), (1.25, 1.02), (0, 1.08)]
    fluid: list[Point] = [(0, -0.95), (1.3, -0.93), (1.43, -0.8), (1.43, 0.7), (1.23, 1.0), (0, 1.06)]
    pen.glass(fluid, (120, 255, 70), 0.42)
    for x, y, r in ((-1.1, 0.2, 0.13), (1.08, -0.4, 0.15), (1.15, 0.45, 0.1), (-1.0, -0.5, 0.1)):
        pen.ring(x, y, r, r, (230, 255, 220), 0.07)
    edge = smooth_mirror(glass)
    pen.stroke(edge, (40, 84, 92), 0.13)
    pen.stroke([(-1.2, -1.0), (-1.22, -0.3), (-1.2, 0.3)], WHITE, 0.13)
    pen.polygon([(-1.15, -1.44), (-1.15, -1.78), (1.15, -1.78), (1.15, -1.44)], (150, 158, 172))
    pen.polygon([(-1.3, 0.98), (1.3, 0.98), (1.2, 1.22), (-1.2, 1.22)], (150, 158, 172))


def smooth_mirror(half: list[Point]) -> list[Point]:
    whole = [*half, *[(-x, y) for x, y in reversed(half) if x != 0]]
    return [*whole, whole[0]]


def _antlers(pen: Pen, p: Person) -> None:
    """Branching antlers with little lanterns on the tips."""
    for s in (-1, 1):
        pen.limb([(s * 0.45, -0.95), (s * 0.75, -1.35), (s * 1.3, -1.5)], (134, 84, 48), 0.16)
        pen.limb([(s * 0.7, -1.28), (s * 0.72, -1.6), (s * 0.6, -1.78)], (134, 84, 48), 0.13)
        for x, y in ((1.32, -1.5), (0.6, -1.78)):
            pen.ellipse(s * x, y, 0.2, 0.2, (255, 236, 90))


def _visor(pen: Pen, p: Person) -> None:
    """A robot's glowing visor (a plain band at the back) and a zigzag antenna."""
    pen.polygon([(-1.14, -0.22), (1.14, -0.22), (1.1, 0.46), (-1.1, 0.46)], (58, 66, 84))
    if p.view != "from behind":
        left = -0.05 if p.view == "from side" else -0.92
        pen.polygon([(left, -0.05), (0.98, -0.05), (0.94, 0.3), (left, 0.3)], (40, 240, 255))
    pen.stroke([(0, -1.0), (0.22, -1.3), (-0.18, -1.45), (0.05, -1.72)], (90, 96, 112), 0.11)
    pen.ellipse(0.05, -1.74, 0.2, 0.2, (255, 50, 50))


def _mushroom(pen: Pen, p: Person) -> None:
    """A giant red mushroom cap with white dots."""
    pen.mirrored([(0, -1.72), (0.8, -1.6), (1.45, -1.05), (1.55, -0.5), (0.8, -0.42), (0, -0.36)], (226, 30, 36))
    for x, y, r in (
        (0, -1.2, 0.3),
        (-0.85, -1.12, 0.23),
        (0.85, -1.12, 0.23),
        (-1.2, -0.68, 0.16),
        (1.2, -0.68, 0.16),
        (0, -0.62, 0.15),
    ):
        pen.ellipse(x, y, r, r, WHITE, False)


def _stripes(pen: Pen, w: float, behind: bool, wear: Outfit) -> None:
    """A wide raincoat, yellow with black bands."""
    for k in range(5):
        top, bottom = 1.02 + 0.3 * k, 1.32 + 0.3 * k
        a, b = w + 0.1 * k, w + 0.1 * (k + 1)
        pen.polygon([(-a, top), (a, top), (b, bottom), (-b, bottom)], wear.top if k % 2 == 0 else wear.accent)


def _rivets(pen: Pen, w: float, behind: bool, wear: Outfit) -> None:
    pen.polygon([(-w - 0.2, 1.0), (w + 0.2, 1.0), (w + 0.2, 2.15), (-w - 0.2, 2.15)], wear.top)
    if not behind:
        pen.ellipse(0, 1.5, 0.3, 0.3, wear.accent)
        pen.ellipse(0, 1.5, 0.15, 0.15, WHITE, False)
    for x in (-w, w):
        pen.ellipse(x, 2.0, 0.1, 0.1, (40, 60, 70), False)


def _harlequin(pen: Pen, w: float, behind: bool, wear: Outfit) -> None:
    """A wide cape of black, yellow and magenta diamonds."""
    tones: tuple[RGB, ...] = (INK, (255, 222, 40), (236, 30, 140))
    pen.polygon([(-w, 1.0), (w, 1.0), (1.15, 2.6), (-1.15, 2.6)], tones[1])
    for row in range(4):
        y, spread = 1.2 + 0.4 * row, (w + (1.15 - w) * (0.125 + 0.25 * row)) / 1.5
        for column in (-1, 0, 1):
            x, tone = column * spread, tones[0] if (row + column) % 2 else tones[2]
            pen.polygon([(x, y - 0.2), (x + spread / 2, y), (x, y + 0.2), (x - spread / 2, y)], tone)


UNSEEN_EYES: dict[str, Callable[[Pen, float, bool], None]] = {"swirl eyes": _swirl_eye}
UNSEEN_HEADWEAR: dict[str, Callable[[Pen, Person], None]] = {
    "jar": _jar,
    "antlers": _antlers,
    "visor": _visor,
    "mushroom": _mushroom,
}
UNSEEN_OUTFITS: dict[str, Outfit] = {
    "striped raincoat": Outfit((255, 226, 30), (255, 226, 30), None, (230, 40, 40), None, "stripes", INK),
    "robot body": Outfit((96, 204, 196), (150, 160, 170), (150, 160, 170), (60, 70, 84), None, "rivets", (255, 50, 50)),
    "harlequin cape": Outfit((255, 222, 40), INK, INK, (236, 30, 140), None, "harlequin"),
}
UNSEEN_DETAILS: dict[str, Callable[[Pen, float, bool, Outfit], None]] = {
    "stripes": _stripes,
    "rivets": _rivets,
    "harlequin": _harlequin,
}
