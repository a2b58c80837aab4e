"""Hair: what hangs behind the head (`back_hair`) and what lies on it (`front_hair`), for each style and view."""

from __future__ import annotations

from tenuto.pocket.pen import Pen, Point
from tenuto.pocket.person import Person
from tenuto.pocket.styles import RGB, WHITE, mix

TIE: RGB = (240, 70, 110)
_TAIL: tuple[Point, ...] = ((0.8, -0.55), (1.25, -0.75), (1.78, 0.0), (1.75, 0.9), (1.4, 1.6), (1.25, 0.8), (1.0, 0.1))


def _mirror(points: tuple[Point, ...]) -> list[Point]:
    return [(-x, y) for x, y in points]


def _twintails(pen: Pen, color: RGB) -> None:
    for tail, x in ((list(_TAIL), 1.0), (_mirror(_TAIL), -1.0)):
        pen.blob(tail, color)
        pen.ellipse(x, -0.5, 0.17, 0.17, TIE)


def back_hair(pen: Pen, p: Person) -> None:
    color, side, behind = p.hair, p.view == "from side", p.view == "from behind"
    match p.hair_style:
        case "long hair" if side:
            pen.blob(
                [(-0.1, -0.8), (-0.95, -0.5), (-1.25, 0.4), (-1.2, 1.4), (-0.9, 2.1), (-0.3, 1.9), (0.0, 0.9)], color
            )
        case "long hair":
            pen.mirrored([(0, -0.9), (0.9, -0.6), (1.18, 0.2), (1.2, 1.2), (1.05, 2.05), (0.5, 2.15), (0, 2.05)], color)
        case "twintails" if side:
            pen.blob(
                [(-0.6, -0.7), (-1.2, -0.8), (-1.75, 0.1), (-1.6, 1.0), (-1.25, 1.6), (-1.1, 0.8), (-0.8, 0.0)], color
            )
            pen.ellipse(-0.82, -0.55, 0.18, 0.18, TIE)
        case "twintails":
            _twintails(pen, color)
        case "ponytail" if behind:
            pen.mirrored([(0, -0.55), (0.3, -0.4), (0.48, 0.5), (0.36, 1.4), (0, 1.95)], color)
            pen.ellipse(0, -0.5, 0.3, 0.14, TIE)
        case "ponytail":
            x = -1.0 if side else 1.0
            pen.blob(
                [
                    (x * 0.2, -0.95),
                    (x * 0.9, -1.45),
                    (x * 1.6, -0.9),
                    (x * 1.75, 0.2),
                    (x * 1.4, 1.2),
                    (x * 1.2, 0.3),
                    (x * 0.85, -0.6),
                ],
                color,
            )
            pen.ellipse(x * 0.66, -0.95, 0.19, 0.19, TIE)
        case "double bun":
            for x in (-0.55,) if side else (-0.78, 0.78):
                pen.ellipse(x, -1.0, 0.46, 0.44, color)
        case "curly hair" if not behind:
            _curls(pen, color, -0.25 if side else 0.0)
        case "spiked hair" if not behind:
            _spikes(pen, color, -0.2 if side else 0.0)
        case "short hair" if not behind and not side:
            pen.mirrored([(0, -0.9), (0.95, -0.5), (1.14, 0.1), (1.02, 0.68), (0.6, 0.85), (0, 0.8)], color)


def _curls(pen: Pen, color: RGB, shift: float) -> None:
    for x, y in (
        (-1.05, 0.55),
        (1.05, 0.55),
        (-1.25, 0.05),
        (1.25, 0.05),
        (-1.15, -0.5),
        (1.15, -0.5),
        (-0.75, -0.95),
        (0.75, -0.95),
        (0, -1.12),
    ):
        if shift == 0 or x < 0.7:
            pen.ellipse(x + shift, y, 0.44, 0.42, color)


def _spikes(pen: Pen, color: RGB, shift: float) -> None:
    half: list[Point] = [
        (0.0, -1.75),
        (0.28, -1.1),
        (0.75, -1.55),
        (0.8, -0.85),
        (1.4, -0.95),
        (1.1, -0.35),
        (1.5, -0.05),
        (0.95, 0.15),
    ]
    points = half + [(-x, y) for x, y in reversed(half) if x]
    pen.polygon([(x + shift, y) for x, y in points], color)


def _shine(pen: Pen, color: RGB, shift: float = 0.0) -> None:
    if pen.look.shade:
        pen.stroke([(-0.62 + shift, -0.6), (-0.2 + shift, -0.8), (0.3 + shift, -0.78)], mix(color, WHITE, 0.45), 0.1)


def front_hair(pen: Pen, p: Person) -> None:
    match p.view:
        case "from behind":
            _from_behind(pen, p)
        case "from side":
            _from_side(pen, p.hair)
        case _:
            _from_front(pen, p)


def _from_front(pen: Pen, p: Person) -> None:
    low = 0.55 if p.hair_style in ("long hair", "short hair", "twintails") else 0.1
    right: list[Point] = [
        (0.0, -1.15),
        (0.75, -0.95),
        (1.12, -0.2),
        (1.06, low),
        (0.86, low * 0.6),
        (0.82, -0.2),
        (0.55, -0.38),
        (0.42, -0.16),
        (0.2, -0.42),
        (0.0, -0.2),
    ]
    left: list[Point] = [
        (-0.2, -0.44),
        (-0.45, -0.18),
        (-0.6, -0.4),
        (-0.82, -0.18),
        (-0.86, low * 0.6),
        (-1.06, low),
        (-1.12, -0.2),
        (-0.75, -0.95),
    ]
    pen.polygon(right + left, p.hair)
    _shine(pen, p.hair)


def _from_side(pen: Pen, color: RGB) -> None:
    pen.polygon(
        [(0.1, -1.15), (0.7, -0.95), (1.02, -0.35), (0.8, -0.2), (0.62, -0.42), (0.4, -0.12), (0.2, -0.3), (0.16, 0.4),
         (-0.08, 0.75), (-0.45, 0.85), (-0.9, 0.6), (-1.14, 0.0), (-1.0, -0.65), (-0.5, -1.08)],
        color,
    )  # fmt: skip
    _shine(pen, color, -0.1)


def _from_behind(pen: Pen, p: Person) -> None:
    if p.hair_style == "spiked hair":
        _spikes(pen, p.hair, 0.0)
    if p.hair_style == "curly hair":
        _curls(pen, p.hair, 0.0)
    low = 0.62 if p.hair_style in ("twintails", "ponytail", "double bun") else 0.9
    pen.mirrored([(0, -1.15), (0.8, -0.9), (1.14, 0), (0.95, low * 0.75), (0.5, low), (0, low * 1.05)], p.hair)
    _shine(pen, p.hair)
