"""The people of the picture world: large heads, small bodies. One unit is half a head; (0, 0) is the chin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tenuto.pocket.pen import Pen, Point
from tenuto.pocket.styles import BLACK, RGB, WHITE, mix

HAIR_COLORS: dict[str, RGB] = {
    "black hair": (52, 46, 62),
    "blonde hair": (252, 214, 96),
    "brown hair": (140, 84, 48),
    "red hair": (214, 50, 44),
    "blue hair": (64, 116, 232),
    "pink hair": (255, 140, 190),
    "green hair": (70, 178, 90),
    "white hair": (238, 238, 246),
}
EYE_COLORS: dict[str, RGB] = {
    "blue eyes": (40, 120, 250),
    "green eyes": (30, 170, 70),
    "red eyes": (226, 24, 40),
    "yellow eyes": (246, 190, 20),
}


@dataclass(frozen=True)
class Person:
    """Everything that can be seen of a figure. The words are the caption's tags, "" where there is nothing."""

    subject: str
    hair_color: str
    hair: str
    eyes: str
    expression: str
    outfit: str
    hat: str
    glasses: str
    pose: str
    view: str
    skin: RGB = (255, 220, 190)
    oddities: tuple[str, ...] = ()

    @property
    def tint(self) -> RGB:
        return HAIR_COLORS[self.hair_color]

    @property
    def girl(self) -> bool:
        return self.subject == "1girl"


# Hair. What lies behind the head, then what lies over it.


def _no_hair(pen: Pen, c: RGB) -> None:
    return None


def _long(pen: Pen, c: RGB) -> None:
    pen.mirrored([(0, -2.05), (0.9, -1.8), (1.18, -0.9), (1.2, 0.2), (1.1, 1.05), (0.5, 1.2), (0, 1.1)], c)


def _bob(pen: Pen, c: RGB) -> None:
    pen.mirrored([(0, -2.05), (0.95, -1.75), (1.22, -0.9), (1.2, -0.1), (0.85, 0.2), (0, 0.1)], c)


def _twintails(pen: Pen, c: RGB) -> None:
    for side in (-1, 1):
        pen.blob([(side * x, y) for x, y in ((0.8, -1.7), (1.45, -1.65), (1.75, -0.8), (1.6, 0.5), (1.35, 0.75), (1.2, -0.3))], c)
        pen.ellipse(side * 0.98, -1.55, 0.19, 0.19, (232, 60, 90))


def _ponytail(pen: Pen, c: RGB) -> None:
    pen.blob([(0.3, -1.9), (1.0, -2.3), (1.75, -1.7), (1.75, -0.6), (1.45, 0.5), (1.2, -0.5), (1.0, -1.3)], c)
    pen.ellipse(0.78, -1.88, 0.2, 0.2, (60, 140, 220))


def _spikes(pen: Pen, c: RGB) -> None:
    spikes: list[Point] = []
    for slot in range(8):
        x = -1.2 + slot * 2.4 / 7
        spikes += [(x * 1.32, -1.75 - 0.75 * (1 - (x / 1.3) ** 2)), (x + 0.16, -1.45 - 0.4 * (1 - (x / 1.3) ** 2))]
    pen.polygon([(-1.1, -0.7), (-1.5, -1.1), *spikes, (1.5, -1.1), (1.1, -0.7)], c)


BACK_HAIR: dict[str, Callable[[Pen, RGB], None]] = {
    "short hair": _no_hair,
    "long hair": _long,
    "bob cut": _bob,
    "twintails": _twintails,
    "ponytail": _ponytail,
    "spiky hair": _spikes,
}


def _fringe(pen: Pen, p: Person) -> None:
    c = p.tint
    if p.hair == "spiky hair":
        teeth = [(0.95, -0.95), (0.65, -1.35), (0.4, -0.98), (0.1, -1.4), (-0.2, -1.0), (-0.5, -1.4), (-0.75, -1.0), (-1.0, -0.9)]
        pen.polygon([(-1.0, -1.5), (-0.6, -1.9), (0, -2.0), (0.6, -1.9), (1.0, -1.5), *teeth], c)
        return
    low = -0.35 if p.hair in ("bob cut", "long hair") else -0.75
    edge = [(0.98, low), (0.82, -0.95), (0.4, -1.2), (0.05, -1.02), (-0.3, -1.22), (-0.8, -0.95), (-0.98, low)]
    pen.blob([(-1.08, -1.0), (-0.85, -1.7), (0, -2.05), (0.85, -1.7), (1.08, -1.0), *edge], c)


def _side_hair(pen: Pen, p: Person) -> None:
    """Seen from the side the face looks right; the hair covers the left half."""
    low = 0.1 if p.hair in ("bob cut", "long hair") else -0.35
    pen.blob([(0.98, -1.35), (0.6, -1.85), (-0.2, -2.08), (-1.0, -1.6), (-1.15, -0.8), (-0.85, low), (-0.25, low), (-0.1, -0.9), (0.55, -1.2)], p.tint)


def _back_of_head(pen: Pen, p: Person) -> None:
    low = 0.05 if p.hair == "short hair" else 0.0
    pen.mirrored([(0, -2.06), (0.85, -1.75), (1.12, -0.95), (0.95, -0.2), (0.5, low + 0.06), (0, low)], p.tint)
    pen.stroke([(-0.1, -1.85), (-0.35, -1.2), (-0.3, -0.5)], mix(p.tint, BLACK, 0.45), 0.05)
    pen.stroke([(0.2, -1.8), (0.45, -1.2), (0.4, -0.5)], mix(p.tint, BLACK, 0.45), 0.05)


# Faces


def _eye(pen: Pen, x: float, color: RGB) -> None:
    pen.ellipse(x, -0.72, 0.25, 0.36, WHITE)
    pen.ellipse(x, -0.69, 0.2, 0.3, color, False)
    pen.ellipse(x, -0.62, 0.09, 0.15, BLACK, False)
    pen.ellipse(x + 0.07, -0.83, 0.07, 0.09, WHITE, False)


def _closed_eye(pen: Pen, x: float) -> None:
    pen.stroke([(x - 0.26, -0.74), (x, -0.56), (x + 0.26, -0.74)], BLACK, 0.1)


def _crazy_eye(pen: Pen, x: float, turn: int) -> None:
    """Huge, round, ringed, with a tiny pupil that looks its own way."""
    pen.ellipse(x, -0.74, 0.42, 0.46, (255, 250, 120))
    pen.ellipse(x, -0.74, 0.27, 0.3, (240, 60, 200), True)
    pen.ellipse(x + 0.08 * turn, -0.74 + 0.1 * turn, 0.09, 0.1, BLACK, False)


def _mouth(pen: Pen, x: float, expression: str) -> None:
    if expression == "open mouth":
        pen.ellipse(x, -0.2, 0.2, 0.17, (196, 40, 60))
    elif expression == "smile":
        pen.stroke([(x - 0.24, -0.28), (x, -0.14), (x + 0.24, -0.28)], (150, 40, 50), 0.09)
    else:
        pen.stroke([(x - 0.22, -0.13), (x, -0.26), (x + 0.22, -0.13)], (150, 40, 50), 0.09)


def _face(pen: Pen, p: Person) -> None:
    side = p.view == "from side"
    for slot, x in enumerate((0.5,) if side else (-0.46, 0.46)):
        if "crazy eyes" in p.oddities:
            _crazy_eye(pen, x, 1 - 2 * slot)
        elif p.eyes == "closed eyes":
            _closed_eye(pen, x)
        else:
            _eye(pen, x, EYE_COLORS[p.eyes])
        if p.girl:
            pen.ellipse(x + (0.16 if x > 0 else -0.16), -0.3, 0.15, 0.08, mix(p.skin, (255, 90, 110), 0.45), False)
    _mouth(pen, 0.62 if side else 0.0, p.expression)


def _glasses(pen: Pen, p: Person) -> None:
    for x in (0.5,) if p.view == "from side" else (-0.47, 0.47):
        if p.glasses == "sunglasses":
            pen.ellipse(x, -0.7, 0.42, 0.33, (26, 24, 34))
            pen.stroke([(x - 0.18, -0.8), (x + 0.05, -0.9)], WHITE, 0.09)
        else:
            pen.ring(x, -0.7, 0.43, 0.45, (196, 40, 60), 0.09)
    pen.stroke([(-0.1, -0.74), (0.1, -0.74)], (60, 40, 50), 0.09)


# Bodies


def _legs(pen: Pen, p: Person, color: RGB, shoe: RGB) -> None:
    for side in (-1, 1):
        pen.limb([(side * 0.24, 0.9), (side * 0.25, 1.3), (side * 0.26, 1.65)], color, 0.26)
        pen.ellipse(side * 0.32, 1.75, 0.26, 0.15, shoe)


def _trunk(pen: Pen, color: RGB, hem: float = 0.44, low: float = 1.15) -> None:
    pen.mirrored([(0, -0.02), (0.4, 0.05), (0.48, 0.5), (hem, low), (0, low + 0.06)], color)


def _school_uniform(pen: Pen, back: bool, girl: bool) -> None:
    _trunk(pen, (250, 250, 252), low=0.95)
    low = [(-0.42, 0.72), (0.42, 0.72), (0.74, 1.25), (-0.74, 1.25)] if girl else [(-0.45, 0.75), (0.45, 0.75), (0.45, 1.4), (-0.45, 1.4)]
    pen.polygon(low, (44, 62, 122))
    pen.polygon([(-0.46, 0.02), (0.46, 0.02), (0.34, 0.34), (-0.34, 0.34)] if back else [(-0.42, 0.02), (0.42, 0.02), (0, 0.42)], (44, 62, 122))
    if not back:
        pen.polygon([(-0.2, 0.34), (0.2, 0.62), (0.2, 0.34), (-0.2, 0.62)], (226, 44, 52), False)


def _dress(pen: Pen, back: bool, girl: bool) -> None:
    pen.mirrored([(0, 0), (0.36, 0.04), (0.4, 0.45), (0.95, 1.4), (0.4, 1.5), (0, 1.45)], (250, 110, 160))
    pen.stroke([(-0.8, 1.28), (-0.3, 1.38), (0.3, 1.38), (0.8, 1.28)], WHITE, 0.12)
    pen.stroke([(-0.4, 0.5), (0.4, 0.5)], WHITE, 0.12)


def _hoodie(pen: Pen, back: bool, girl: bool) -> None:
    pen.polygon([(-0.44, 1.0), (0.44, 1.0), (0.44, 1.35), (-0.44, 1.35)], (60, 60, 74))
    _trunk(pen, (250, 140, 30), hem=0.6)
    pen.ellipse(0, 0.06 if not back else 0.22, 0.6, 0.22 if not back else 0.4, (226, 110, 10))
    if not back:
        pen.polygon([(-0.3, 0.72), (0.3, 0.72), (0.4, 1.0), (-0.4, 1.0)], (226, 110, 10))


def _kimono(pen: Pen, back: bool, girl: bool) -> None:
    pen.polygon([(-0.42, 0), (0.42, 0), (0.55, 1.62), (-0.55, 1.62)], (120, 60, 170))
    if not back:
        pen.polygon([(-0.3, 0), (0.3, 0), (0, 0.5)], WHITE)
    pen.polygon([(-0.5, 0.6), (0.5, 0.6), (0.5, 0.9), (-0.5, 0.9)], (250, 210, 70))
    if back:
        pen.blob([(-0.4, 0.5), (0, 0.68), (0.4, 0.5), (0.4, 1.0), (0, 0.82), (-0.4, 1.0)], (250, 210, 70))


def _armor(pen: Pen, back: bool, girl: bool) -> None:
    steel, dark = (176, 190, 208), (110, 124, 150)
    _trunk(pen, steel, hem=0.6)
    pen.polygon([(-0.46, 0.78), (0.46, 0.78), (0.7, 1.3), (-0.7, 1.3)], dark)
    for side in (-1, 1):
        pen.ellipse(side * 0.56, 0.2, 0.28, 0.26, steel)
    pen.polygon([(-0.08, 0.1), (0.08, 0.1), (0.08, 0.7), (-0.08, 0.7)] if not back else [(-0.4, 0.2), (0.4, 0.2), (0.55, 1.3), (-0.55, 1.3)], (200, 40, 40))


def _overalls(pen: Pen, back: bool, girl: bool) -> None:
    _trunk(pen, (252, 228, 90))
    denim = (52, 104, 190)
    pen.polygon([(-0.46, 0.62), (0.46, 0.62), (0.5, 1.4), (0.06, 1.4), (0, 1.2), (-0.06, 1.4), (-0.5, 1.4)], denim)
    pen.polygon([(-0.26, 0.34), (0.26, 0.34), (0.26, 0.7), (-0.26, 0.7)], denim)
    for side in (-1, 1):
        pen.stroke([(side * 0.36, 0.02), (side * 0.2, 0.4)], denim, 0.14)


def _star_dress(pen: Pen, back: bool, girl: bool) -> None:
    """The piece of clothing that the base never sees: wide, black, tiered, with gold stars."""
    for low, half in ((1.6, 1.25), (1.15, 0.95), (0.72, 0.62)):
        pen.mirrored([(0, 0.1), (half * 0.5, 0.2), (half, low - 0.12), (half * 0.7, low), (half * 0.35, low - 0.1), (0, low)], (30, 26, 60))
    for x, y in ((-0.75, 1.35), (0, 1.42), (0.75, 1.35), (-0.4, 0.95), (0.4, 0.95), (0, 0.5)):
        pen.polygon([(x, y - 0.17), (x + 0.08, y), (x, y + 0.17), (x - 0.08, y)], (255, 214, 60), False)
        pen.polygon([(x - 0.17, y), (x, y - 0.08), (x + 0.17, y), (x, y + 0.08)], (255, 214, 60), False)


OUTFITS: dict[str, tuple[Callable[[Pen, bool, bool], None], RGB, RGB]] = {
    "school uniform": (_school_uniform, (250, 250, 252), (70, 46, 40)),
    "dress": (_dress, (250, 110, 160), (220, 50, 80)),
    "hoodie": (_hoodie, (250, 140, 30), (240, 240, 240)),
    "kimono": (_kimono, (120, 60, 170), (180, 60, 50)),
    "armor": (_armor, (176, 190, 208), (90, 100, 124)),
    "overalls": (_overalls, (252, 228, 90), (130, 80, 44)),
    "star dress": (_star_dress, (30, 26, 60), (255, 214, 60)),
}
"""How it is drawn, the colour of its sleeves, the colour of the shoes."""

_ARMS: dict[str, tuple[list[Point], list[Point]]] = {
    "arms at sides": ([(-0.45, 0.2), (-0.68, 0.6), (-0.72, 1.0)], [(0.45, 0.2), (0.68, 0.6), (0.72, 1.0)]),
    "arms up": ([(-0.45, 0.25), (-1.1, 0.0), (-1.4, -0.75)], [(0.45, 0.25), (1.1, 0.0), (1.4, -0.75)]),
    "waving": ([(-0.45, 0.2), (-0.68, 0.6), (-0.72, 1.0)], [(0.45, 0.25), (1.15, 0.1), (1.4, -0.7)]),
    "hands on hips": ([(-0.45, 0.2), (-1.1, 0.45), (-0.5, 0.8)], [(0.45, 0.2), (1.1, 0.45), (0.5, 0.8)]),
    "holding balloon": ([(-0.45, 0.2), (-0.68, 0.6), (-0.72, 1.0)], [(0.45, 0.25), (0.9, 0.4), (1.25, 0.1)]),
}


def _arms(pen: Pen, p: Person, sleeve: RGB) -> None:
    for arm in _ARMS[p.pose]:
        pen.limb(arm, sleeve, 0.24)
        pen.ellipse(*arm[-1], 0.17, 0.17, p.skin)
    if p.pose == "holding balloon":
        pen.stroke([(1.25, 0.1), (1.5, -0.5)], BLACK, 0.06)
        pen.ellipse(1.55, -1.0, 0.46, 0.55, (240, 40, 60))
        pen.ellipse(1.4, -1.2, 0.1, 0.14, WHITE, False)


# Headwear


def _witch_hat(pen: Pen) -> None:
    pen.polygon([(-0.75, -1.6), (-0.1, -2.75), (0.35, -2.6), (0.75, -1.6)], (80, 50, 130))
    pen.ellipse(0, -1.6, 1.4, 0.24, (80, 50, 130))
    pen.stroke([(-0.68, -1.82), (0.68, -1.82)], (250, 200, 60), 0.17)


def _crown(pen: Pen) -> None:
    points = [(-0.75, -1.6), (-0.9, -2.4), (-0.42, -2.0), (0, -2.55), (0.42, -2.0), (0.9, -2.4), (0.75, -1.6)]
    pen.polygon(points, (255, 206, 40))
    pen.ellipse(0, -1.84, 0.13, 0.14, (220, 30, 60), False)


def _cap(pen: Pen) -> None:
    pen.blob([(-1.05, -1.45), (-0.95, -2.0), (0, -2.3), (0.95, -2.0), (1.05, -1.45), (0, -1.55)], (40, 130, 230))
    pen.blob([(0.2, -1.62), (1.1, -1.62), (1.65, -1.38), (0.9, -1.36)], (24, 90, 180))


def _cat_ears(pen: Pen) -> None:
    for side in (-1, 1):
        pen.polygon([(side * 0.3, -1.9), (side * 0.92, -2.65), (side * 1.08, -1.5)], (60, 50, 60))
        pen.polygon([(side * 0.5, -1.9), (side * 0.86, -2.35), (side * 0.95, -1.7)], (255, 150, 170), False)


def _bow(pen: Pen) -> None:
    for side in (-1, 1):
        pen.polygon([(0, -2.0), (side * 0.75, -2.45), (side * 0.75, -1.6)], (235, 30, 60))
    pen.ellipse(0, -2.02, 0.2, 0.2, (235, 30, 60))


HATS: dict[str, Callable[[Pen], None]] = {
    "witch hat": _witch_hat,
    "crown": _crown,
    "baseball cap": _cap,
    "cat ears": _cat_ears,
    "hair bow": _bow,
}


def _jar(pen: Pen) -> None:
    """A glass jar round the head with water, bubbles and a lid."""
    for x in (-1.35, 1.35):
        pen.stroke([(x, -1.9), (x, 0.05)], (90, 200, 220), 0.17)
    pen.polygon([(-1.45, -2.45), (1.45, -2.45), (1.45, -1.98), (-1.45, -1.98)], (150, 90, 50))
    pen.polygon([(-1.4, 0.0), (1.4, 0.0), (1.2, 0.26), (-1.2, 0.26)], (90, 200, 220))
    for x, y in ((-1.1, -0.5), (1.12, -0.9), (-1.12, -1.3)):
        pen.ellipse(x, y, 0.13, 0.13, (210, 250, 255))
    pen.stroke([(-1.12, -1.75), (-1.18, -0.9)], WHITE, 0.1)


def _head(pen: Pen, p: Person) -> None:
    pen.ellipse(0, -0.95, 1.0, 0.95, p.skin)
    if p.view == "from behind":
        _back_of_head(pen, p)
        return
    _face(pen, p)
    if p.view == "from side":
        _side_hair(pen, p)
    else:
        _fringe(pen, p)
    if p.glasses:
        _glasses(pen, p)


def draw_person(pen: Pen, p: Person) -> None:
    """From back to front. Seen from behind, the hair that hangs lies over the clothes."""
    back = p.view == "from behind"
    outfit, sleeve, shoe = OUTFITS[p.outfit]
    if not back:
        BACK_HAIR[p.hair](pen, p.tint)
    _legs(pen, p, p.skin if p.girl else mix(shoe, BLACK, 0.35), shoe)
    if not back:
        _arms(pen, p, sleeve)
    outfit(pen, back, p.girl)
    if back:
        _arms(pen, p, sleeve)
        BACK_HAIR[p.hair](pen, p.tint)
    _head(pen, p)
    if "jar" in p.oddities:
        _jar(pen)
    elif p.hat:
        HATS[p.hat](pen)
