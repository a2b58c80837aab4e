"""The places of the picture world. Each draws behind the figure on a pen whose unit square is the canvas."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tenuto.pocket.pen import Pen
from tenuto.pocket.styles import RGB, WHITE, mix


def _ground(pen: Pen, top: float, color: RGB, bulge: float = 0.0) -> None:
    pen.polygon(
        [(-0.1, top), (0.2, top - bulge), (0.5, top), (0.8, top + bulge), (1.1, top), (1.1, 1.1), (-0.1, 1.1)], color
    )


def _sky(pen: Pen, top: RGB, bottom: RGB, bands: int = 4, down_to: float = 1.0) -> None:
    for band in range(bands):
        tone = mix(top, bottom, band / max(1, bands - 1))
        pen.polygon(
            [(-0.1, band / bands * down_to - 0.02), (1.1, band / bands * down_to - 0.02), (1.1, 1.1), (-0.1, 1.1)],
            tone,
            False,
        )


def _cloud(pen: Pen, x: float, y: float, r: float) -> None:
    for dx, dy, share in ((-1.1, 0.2, 0.7), (1.1, 0.2, 0.7), (0, 0, 1)):
        pen.ellipse(x + dx * r, y + dy * r, r * share, r * share * 0.8, WHITE, False)


def beach(pen: Pen, rng: Random) -> None:
    _sky(pen, (98, 196, 250), (176, 230, 255))
    pen.ellipse(rng.choice((0.15, 0.85)), 0.16, 0.1, 0.1, (255, 224, 92), False)
    _cloud(pen, rng.uniform(0.3, 0.7), 0.14, 0.06)
    _ground(pen, 0.42, (36, 140, 214))
    for row in range(3):
        y = 0.48 + row * 0.06
        pen.stroke([(rng.uniform(0, 0.3), y), (rng.uniform(0.5, 1), y)], (150, 220, 248), 0.012)
    _ground(pen, 0.68, (248, 220, 150), 0.02)
    side = rng.choice((0, 1))
    foot, top = (0.12, 0.7), (0.2, 0.3)
    pen.at_side(side).limb([foot, (0.13, 0.5), top], (158, 104, 62), 0.045)
    for dx, dy in ((-0.2, 0.04), (0.2, 0.04), (-0.13, -0.12), (0.15, -0.11)):
        x, y = top
        pen.at_side(side).blob(
            [(x, y - 0.02), (x + dx * 0.6, y + dy - 0.06), (x + dx, y + dy + 0.05), (x, y + 0.02)], (48, 160, 82)
        )


def forest(pen: Pen, rng: Random) -> None:
    _sky(pen, (44, 100, 70), (104, 160, 92))
    for _ in range(9):
        pen.ellipse(
            rng.random(), rng.uniform(0, 0.3), 0.16, 0.14, mix((20, 84, 50), (48, 124, 66), rng.random()), False
        )
    for slot in range(5):
        x, width = 0.02 + slot * 0.24 + rng.uniform(-0.05, 0.05), rng.uniform(0.035, 0.06)
        pen.polygon(
            [(x - width, -0.1), (x + width, -0.1), (x + width * 1.3, 0.84), (x - width * 1.3, 0.84)], (84, 56, 44)
        )
    _ground(pen, 0.76, (42, 92, 48), 0.03)
    for _ in range(4):
        x = rng.random()
        pen.blob([(x - 0.1, 0.86), (x, 0.72), (x + 0.1, 0.86)], (28, 110, 58))


def city(pen: Pen, rng: Random) -> None:
    _sky(pen, (255, 170, 120), (255, 218, 172))
    x = -0.08
    while x < 1.05:
        width, top = rng.uniform(0.16, 0.24), rng.uniform(0.1, 0.45)
        wall = rng.choice(((104, 112, 142), (134, 130, 158), (88, 98, 128)))
        pen.polygon([(x, top), (x + width, top), (x + width, 0.85), (x, 0.85)], wall)
        for row in range(5):
            for column in range(2):
                wx, wy = x + width * (0.18 + 0.4 * column), top + 0.05 + row * 0.1
                pen.polygon(
                    [(wx, wy), (wx + width * 0.24, wy), (wx + width * 0.24, wy + 0.05), (wx, wy + 0.05)],
                    (255, 236, 140),
                    False,
                )
        x += width
    _ground(pen, 0.82, (92, 92, 104))
    pen.polygon([(-0.1, 0.9), (1.1, 0.9), (1.1, 0.925), (-0.1, 0.925)], (240, 236, 214), False)


def indoors(pen: Pen, rng: Random) -> None:
    pen.polygon([(-0.1, -0.1), (1.1, -0.1), (1.1, 1.1), (-0.1, 1.1)], (240, 204, 172), False)
    for stripe in range(7):
        x = stripe * 0.16
        pen.polygon([(x, 0), (x + 0.07, 0), (x + 0.07, 0.8), (x, 0.8)], (232, 188, 156), False)
    pen.polygon([(-0.1, 0.76), (1.1, 0.76), (1.1, 1.1), (-0.1, 1.1)], (164, 106, 70))
    side = pen.at_side(rng.choice((0, 1)))
    side.polygon([(0.05, 0.1), (0.31, 0.1), (0.31, 0.5), (0.05, 0.5)], (250, 246, 232))
    for left, top in ((0.075, 0.13), (0.19, 0.13), (0.075, 0.31), (0.19, 0.31)):
        side.polygon(
            [(left, top), (left + 0.095, top), (left + 0.095, top + 0.16), (left, top + 0.16)], (142, 208, 244), False
        )
    y = rng.uniform(0.2, 0.3)
    side.polygon([(0.74, y), (0.96, y), (0.96, y + 0.2), (0.74, y + 0.2)], (190, 70, 74))
    side.polygon([(0.77, y + 0.03), (0.93, y + 0.03), (0.93, y + 0.17), (0.77, y + 0.17)], (250, 232, 180), False)


def night_sky(pen: Pen, rng: Random) -> None:
    _sky(pen, (14, 14, 54), (62, 48, 124), 5)
    for _ in range(16):
        r = rng.uniform(0.006, 0.014)
        pen.ellipse(rng.random(), rng.uniform(0, 0.8), r, r, (255, 248, 206), False)
    x = rng.choice((0.16, 0.84))
    pen.ellipse(x, 0.17, 0.11, 0.11, (255, 240, 160), False)
    pen.ellipse(x + 0.05, 0.145, 0.09, 0.09, (20, 20, 66), False)
    _ground(pen, 0.86, (22, 22, 52), 0.04)


def garden(pen: Pen, rng: Random) -> None:
    _sky(pen, (166, 224, 250), (226, 246, 232))
    for slot in range(9):
        x = -0.02 + slot * 0.12
        pen.polygon([(x, 0.46), (x + 0.04, 0.41), (x + 0.08, 0.46), (x + 0.08, 0.78), (x, 0.78)], (252, 250, 244))
    _ground(pen, 0.64, (138, 210, 96), 0.02)
    for slot in range(14):
        x, y = (slot + rng.random()) / 14, rng.uniform(0.66, 0.96)
        petal = rng.choice(((250, 92, 132), (255, 206, 70), (184, 110, 232), (255, 255, 255)))
        pen.ellipse(x, y, 0.034, 0.034, petal)
        pen.ellipse(x, y, 0.012, 0.012, (250, 170, 40), False)


def snow(pen: Pen, rng: Random) -> None:
    _sky(pen, (176, 200, 226), (222, 234, 246))
    for slot in range(4):
        x, height = 0.08 + slot * 0.28 + rng.uniform(-0.06, 0.06), rng.uniform(0.34, 0.5)
        for tier in range(3):
            y, half = 0.74 - height + tier * height / 3.4, 0.07 + tier * 0.03
            pen.polygon([(x, y), (x + half, y + height / 2.4), (x - half, y + height / 2.4)], (88, 132, 132))
            pen.polygon(
                [(x, y), (x + half * 0.45, y + height / 5.4), (x - half * 0.45, y + height / 5.4)], WHITE, False
            )
    _ground(pen, 0.7, (246, 250, 255), 0.03)
    for _ in range(18):
        r = rng.uniform(0.009, 0.018)
        pen.ellipse(rng.random(), rng.random(), r, r, WHITE, False)


def desert(pen: Pen, rng: Random) -> None:
    _sky(pen, (248, 196, 112), (255, 232, 170))
    pen.ellipse(rng.choice((0.2, 0.8)), 0.2, 0.1, 0.1, (255, 252, 224), False)
    _ground(pen, 0.56, (226, 148, 74), rng.choice((-0.07, 0.07)))
    _ground(pen, 0.72, (206, 120, 58), rng.choice((-0.05, 0.05)))
    side = pen.at_side(rng.choice((0, 1)))
    x = rng.uniform(0.1, 0.16)
    side.limb([(x, 0.8), (x, 0.6), (x, 0.38)], (62, 142, 80), 0.06)
    side.limb([(x, 0.62), (x + 0.1, 0.6), (x + 0.1, 0.48)], (62, 142, 80), 0.045)


def underwater(pen: Pen, rng: Random) -> None:
    _sky(pen, (48, 196, 206), (14, 84, 140), 5)
    for _ in range(9):
        r = rng.uniform(0.015, 0.04)
        x, y = rng.random(), rng.random()
        pen.ring(x, y, r, r, (206, 248, 252), 0.009)
    _ground(pen, 0.88, (196, 178, 124), 0.02)
    for slot in range(5):
        x = 0.04 + slot * 0.23 + rng.uniform(-0.04, 0.04)
        sway, top = rng.uniform(0.02, 0.05), rng.uniform(0.5, 0.7)
        pen.limb([(x, 0.95), (x + sway, 0.85), (x - sway, 0.75), (x, top)], (30, 150, 104), 0.035)
    side, x, y = pen.at_side(rng.choice((0, 1))), rng.uniform(0.12, 0.2), rng.uniform(0.2, 0.45)
    side.polygon([(x - 0.05, y), (x - 0.12, y - 0.05), (x - 0.12, y + 0.05)], (255, 150, 60))
    side.ellipse(x, y, 0.075, 0.05, (255, 150, 60))
    side.ellipse(x + 0.035, y - 0.01, 0.012, 0.012, (30, 30, 40), False)


PLACES: dict[str, Callable[[Pen, Random], None]] = {
    "beach": beach,
    "forest": forest,
    "city": city,
    "indoors": indoors,
    "night sky": night_sky,
    "garden": garden,
    "snow": snow,
    "desert": desert,
    "underwater": underwater,
}
