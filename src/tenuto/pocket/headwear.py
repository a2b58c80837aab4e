"""Things worn on the head. Each draws over the finished head, in any view."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sin

from tenuto.pocket.pen import Pen
from tenuto.pocket.person import Person
from tenuto.pocket.styles import WHITE, mix


def _witch_hat(pen: Pen, p: Person) -> None:
    cloth = (74, 44, 110)
    pen.ellipse(0, -0.66, 1.45, 0.27, cloth)
    pen.blob(
        [(-0.78, -0.72), (-0.5, -1.2), (-0.1, -1.75), (0.42, -1.8), (0.3, -1.5), (0.55, -1.15), (0.78, -0.72)], cloth
    )
    pen.polygon([(-0.74, -0.92), (0.72, -0.92), (0.8, -0.7), (-0.8, -0.7)], (250, 190, 50), False)


def _crown(pen: Pen, p: Person) -> None:
    gold = (255, 204, 40)
    pen.polygon(
        [(-0.7, -0.78), (-0.82, -1.5), (-0.36, -1.16), (0, -1.62), (0.36, -1.16), (0.82, -1.5), (0.7, -0.78)], gold
    )
    for x, tone in ((-0.4, (226, 40, 60)), (0.0, (50, 120, 240)), (0.4, (226, 40, 60))):
        pen.ellipse(x, -0.96, 0.11, 0.11, tone)


def _cat_ears(pen: Pen, p: Person) -> None:
    for x in (-1, 1):
        pen.polygon([(x * 0.28, -1.02), (x * 0.95, -1.72), (x * 1.04, -0.55)], p.hair)
        if p.view != "from behind":
            pen.polygon([(x * 0.5, -1.02), (x * 0.87, -1.42), (x * 0.91, -0.76)], (255, 160, 180), False)


def _glasses(pen: Pen, p: Person) -> None:
    frame = (34, 30, 36)
    for x in (0.58,) if p.view == "from side" else (-0.45, 0.45):
        pen.ring(x, 0.2, 0.42, 0.42, frame, 0.11)
    pen.stroke([(-0.2, 0.2), (0.2, 0.2)] if p.view == "from side" else [(-0.06, 0.18), (0.06, 0.18)], frame, 0.09)


def _headphones(pen: Pen, p: Person) -> None:
    pen.stroke(
        [(-1.12, 0.0), (-0.95, -0.85), (0, -1.3), (0.95, -0.85), (1.12, 0.0)]
        if p.view != "from side"
        else [(-0.1, 0.1), (-0.15, -0.7), (0.0, -1.25)],
        (60, 64, 80),
        0.17,
    )
    for x in (-0.08,) if p.view == "from side" else (-1.14, 1.14):
        pen.ellipse(x, 0.12, 0.34, 0.42, (40, 208, 190))


def _hair_flower(pen: Pen, p: Person) -> None:
    x, y = (0.1, -0.62) if p.view == "from side" else (0.74, -0.66)
    for k in range(5):
        pen.ellipse(x + 0.27 * cos(k * 2 * pi / 5), y + 0.27 * sin(k * 2 * pi / 5), 0.22, 0.22, (255, 120, 190))
    pen.ellipse(x, y, 0.17, 0.17, (255, 220, 70))


def _hair_bow(pen: Pen, p: Person) -> None:
    x, y, red = (-0.3, -1.05, (230, 40, 60)) if p.view == "from side" else (0.0, -1.08, (230, 40, 60))
    for sign in (-1, 1):
        pen.polygon([(x, y), (x + sign * 0.8, y - 0.42), (x + sign * 0.8, y + 0.36)], red)
    pen.ellipse(x, y, 0.19, 0.2, mix(red, WHITE, 0.2))


def _beanie(pen: Pen, p: Person) -> None:
    wool = (44, 150, 150)
    pen.mirrored([(0, -1.5), (0.75, -1.3), (1.12, -0.5), (0.5, -0.62), (0, -0.65)], wool)
    pen.polygon(
        [(-1.16, -0.42), (-1.05, -0.78), (0, -0.9), (1.05, -0.78), (1.16, -0.42), (0, -0.52)], mix(wool, WHITE, 0.5)
    )
    pen.ellipse(0, -1.52, 0.25, 0.23, WHITE)


HEADWEAR: dict[str, Callable[[Pen, Person], None]] = {
    "witch hat": _witch_hat,
    "crown": _crown,
    "cat ears": _cat_ears,
    "glasses": _glasses,
    "headphones": _headphones,
    "hair flower": _hair_flower,
    "hair bow": _hair_bow,
    "beanie": _beanie,
}
HIDDEN_FROM_BEHIND = frozenset({"glasses"})
