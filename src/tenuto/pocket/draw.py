"""Draws the person of a scene. The head's radius is 1, its centre (0, 0), y points down; sides look to the right."""

from __future__ import annotations

from collections.abc import Callable

from tenuto.pocket.hair import back_hair, front_hair
from tenuto.pocket.headwear import HEADWEAR
from tenuto.pocket.pen import Pen, Point
from tenuto.pocket.person import INK, Outfit, Person
from tenuto.pocket.styles import RGB, WHITE, mix
from tenuto.pocket.unseen import UNSEEN_DETAILS, UNSEEN_EYES, UNSEEN_HEADWEAR, UNSEEN_OUTFITS

SKINS: tuple[RGB, ...] = ((255, 224, 200), (250, 206, 172), (226, 172, 132), (168, 112, 82))
HAIR: dict[str, RGB] = {
    "black hair": (52, 48, 66),
    "brown hair": (142, 88, 54),
    "blonde hair": (250, 214, 100),
    "red hair": (214, 54, 48),
    "blue hair": (62, 120, 230),
    "green hair": (64, 176, 92),
    "pink hair": (252, 140, 186),
    "purple hair": (146, 84, 206),
    "white hair": (238, 240, 248),
}
EYES: dict[str, RGB] = {
    "blue eyes": (50, 130, 240),
    "red eyes": (224, 44, 52),
    "green eyes": (46, 176, 84),
    "yellow eyes": (246, 190, 32),
    "purple eyes": (150, 70, 214),
}


OUTFITS: dict[str, Outfit] = {
    "dress": Outfit((232, 64, 88), None, None, (160, 40, 60), (232, 64, 88), "sash", (255, 226, 232)),
    "hoodie": Outfit((255, 146, 44), (255, 146, 44), (70, 84, 120), WHITE, None, "hood", (224, 112, 24)),
    "kimono": Outfit((122, 84, 190), (122, 84, 190), None, (120, 70, 40), (122, 84, 190), "obi", (252, 214, 80)),
    "suit": Outfit((54, 58, 76), (54, 58, 76), (54, 58, 76), (30, 28, 34), None, "tie", (216, 44, 56)),
    "swimsuit": Outfit((30, 70, 172), None, None, (255, 206, 120), None, "swim", WHITE),
    "armor": Outfit((178, 188, 204), (178, 188, 204), (150, 160, 180), (120, 130, 150), None, "plate", (250, 200, 60)),
    "overalls": Outfit((255, 220, 70), (255, 220, 70), (58, 104, 190), (130, 76, 44), None, "bib", (58, 104, 190)),
    "school uniform": Outfit(WHITE, WHITE, None, (70, 50, 44), (40, 56, 110), "sailor", (40, 56, 110)),
}

Arms = tuple[tuple[Point, ...], tuple[Point, ...]]
_DOWN: tuple[Point, ...] = ((0.5, 1.2), (0.74, 1.6), (0.8, 2.0))
_UP: tuple[Point, ...] = ((0.5, 1.2), (1.2, 0.95), (1.42, 0.1))
_HIP: tuple[Point, ...] = ((0.5, 1.2), (1.12, 1.5), (0.56, 1.84))
_HOLD: tuple[Point, ...] = ((0.5, 1.2), (0.95, 1.35), (1.3, 0.9))
ARMS: dict[str, Arms] = {  # left, right; each drawn down the right side and mirrored
    "standing": (_DOWN, _DOWN),
    "arms up": (_UP, _UP),
    "waving": (_DOWN, _UP),
    "hands on hips": (_HIP, _HIP),
    "holding balloon": (_DOWN, _HOLD),
}
SIDE_ARMS: dict[str, tuple[tuple[Point, ...], ...]] = {  # far arm, near arm
    "standing": (((0.0, 1.2), (0.02, 1.6), (0.12, 2.0)),),
    "arms up": (((0.2, 1.2), (0.95, 1.0), (1.45, 0.15)), ((0.0, 1.2), (0.8, 1.25), (1.25, 0.5))),
    "waving": (((0.0, 1.2), (0.85, 1.2), (1.38, 0.3)),),
    "hands on hips": (((0.0, 1.2), (-0.66, 1.5), (0.06, 1.84)),),
    "holding balloon": (((0.0, 1.2), (0.6, 1.45), (1.2, 0.95)),),
}


EyeDrawer = Callable[[Pen, float, bool], None]


def _body(pen: Pen, p: Person, wear: Outfit) -> None:
    side = p.view == "from side"
    wide = (0.46 if p.girl else 0.56) * (0.72 if side else 1)
    pants = wear.legs or (p.skin if p.girl or wear.detail in ("swim", "obi") else mix(wear.top, INK, 0.5))
    for x in (-0.24, 0.24):
        x = x * (0.5 if side else 1)
        pen.limb([(x, 1.9), (x * 1.1, 2.4), (x * 1.15, 2.85)], pants, 0.36)
        pen.ellipse(x * 1.2 + (0.1 if side else 0), 2.94, 0.27, 0.17, wear.shoes)
    pen.polygon([(-0.17, 0.7), (0.17, 0.7), (0.2, 1.1), (-0.2, 1.1)], mix(p.skin, INK, 0.15))
    waist = 0.38 if p.girl else wide * 0.94
    pen.mirrored(
        [(0, 0.98), (wide, 1.05), (wide * 1.04, 1.3), (waist * wide / 0.5, 1.65), (wide, 2.1), (0, 2.14)], wear.top
    )
    skirt = wear.skirt if p.girl or wear.detail == "obi" else None
    if skirt:
        low = 2.62 if wear.detail in ("sash", "obi") else 2.4
        flare = (0.72 if wear.detail == "obi" else 0.98) * (0.8 if side else 1)
        pen.polygon(
            [(-wide * 0.8, 1.66), (wide * 0.8, 1.66), (flare, low - 0.08), (0, low), (-flare, low - 0.08)], skirt
        )
    (DETAILS | UNSEEN_DETAILS)[wear.detail](pen, wide, p.view == "from behind", wear)


def _sash(pen: Pen, w: float, behind: bool, wear: Outfit) -> None:
    pen.polygon([(-w * 0.84, 1.6), (w * 0.84, 1.6), (w * 0.88, 1.78), (-w * 0.88, 1.78)], wear.accent)
    if behind:
        for x in (-0.2, 0.2):
            pen.ellipse(x, 1.69, 0.2, 0.14, wear.accent)


def _hood(pen: Pen, w: float, behind: bool, wear: Outfit) -> None:
    if behind:
        pen.mirrored([(0, 0.9), (w * 0.8, 1.0), (w * 0.6, 1.4), (0, 1.52)], wear.accent)
        return
    pen.mirrored([(0, 1.0), (w * 0.95, 0.95), (w * 0.6, 1.22), (0, 1.3)], wear.accent)
    pen.stroke([(-0.12, 1.25), (-0.12, 1.55)], WHITE, 0.06)
    pen.stroke([(0.12, 1.25), (0.12, 1.55)], WHITE, 0.06)
    pen.polygon([(-0.26, 1.7), (0.26, 1.7), (0.34, 2.0), (-0.34, 2.0)], wear.accent)


def _obi(pen: Pen, w: float, behind: bool, wear: Outfit) -> None:
    pen.polygon([(-w * 0.86, 1.52), (w * 0.86, 1.52), (w * 0.9, 1.86), (-w * 0.9, 1.86)], wear.accent)
    if behind:
        pen.polygon([(-0.36, 1.4), (0.36, 1.4), (0.36, 1.98), (-0.36, 1.98)], (230, 90, 90))
    else:
        pen.polygon([(-w * 0.55, 1.0), (w * 0.55, 1.0), (0, 1.5)], WHITE)


def _tie(pen: Pen, w: float, behind: bool, wear: Outfit) -> None:
    if not behind:
        pen.polygon([(-w * 0.5, 1.0), (w * 0.5, 1.0), (0, 1.7)], WHITE)
        pen.polygon([(-0.11, 1.08), (0.11, 1.08), (0.13, 1.5), (0, 1.66), (-0.13, 1.5)], wear.accent)


def _swim(pen: Pen, w: float, behind: bool, wear: Outfit) -> None:
    pen.polygon([(-w * 0.9, 1.56), (w * 0.9, 1.56), (w * 0.92, 1.7), (-w * 0.92, 1.7)], wear.accent, False)


def _plate(pen: Pen, w: float, behind: bool, wear: Outfit) -> None:
    pen.polygon([(-w * 0.9, 1.85), (w * 0.9, 1.85), (w, 2.05), (-w, 2.05)], wear.accent)
    if not behind:
        pen.polygon([(0, 1.18), (0.2, 1.4), (0, 1.66), (-0.2, 1.4)], wear.accent)
    for x in (-1, 1):
        pen.ellipse(x * (w + 0.1), 1.16, 0.26, 0.2, wear.top)


def _bib(pen: Pen, w: float, behind: bool, wear: Outfit) -> None:
    pen.polygon([(-w * 0.95, 1.75), (w * 0.95, 1.75), (w, 2.12), (-w, 2.12)], wear.accent)
    top = 1.2 if behind else 1.36
    pen.polygon([(-w * 0.6, top), (w * 0.6, top), (w * 0.6, 1.9), (-w * 0.6, 1.9)], wear.accent)
    for x in (-w * 0.55, w * 0.55):
        pen.stroke([(x, 1.0), (x, 1.42)], wear.accent, 0.12)


def _sailor(pen: Pen, w: float, behind: bool, wear: Outfit) -> None:
    if behind:
        pen.polygon([(-w * 0.9, 1.0), (w * 0.9, 1.0), (w * 0.8, 1.5), (-w * 0.8, 1.5)], wear.accent)
        return
    pen.polygon([(-w, 1.02), (w, 1.02), (0.1, 1.5), (-0.1, 1.5)], wear.accent)
    pen.polygon([(-w * 0.4, 1.0), (w * 0.4, 1.0), (0, 1.32)], WHITE, False)
    pen.polygon([(0, 1.4), (0.26, 1.66), (0, 1.56), (-0.26, 1.66)], (226, 48, 60))


DETAILS: dict[str, Callable[[Pen, float, bool, Outfit], None]] = {
    "": lambda pen, width, behind, wear: None,
    "sash": _sash,
    "hood": _hood,
    "obi": _obi,
    "tie": _tie,
    "swim": _swim,
    "plate": _plate,
    "bib": _bib,
    "sailor": _sailor,
}


def _arms(pen: Pen, p: Person, wear: Outfit) -> None:
    mirrored = [tuple((-x, y) for x, y in ARMS[p.pose][0]), ARMS[p.pose][1]]
    for arm in SIDE_ARMS[p.pose] if p.view == "from side" else mirrored:
        pen.limb(arm, wear.sleeve or p.skin, 0.3)
        pen.ellipse(*arm[-1], 0.19, 0.19, p.skin)
    if p.pose == "holding balloon":
        hand = (SIDE_ARMS if p.view == "from side" else ARMS)[p.pose][-1][-1]
        pen.stroke([hand, (hand[0] + 0.06, -0.3)], WHITE, 0.05)
        pen.blob([(1.35, -0.1), (1.0, -0.55), (1.1, -1.05), (1.6, -1.05), (1.7, -0.55)], (240, 62, 62))
        pen.ellipse(1.22, -0.8, 0.09, 0.12, WHITE, False)


def _anime_eye(color: RGB) -> EyeDrawer:
    def draw(pen: Pen, x: float, girl: bool) -> None:
        ry = 0.34 if girl else 0.28
        pen.ellipse(x, 0.2, 0.27, ry, WHITE, False)
        pen.ellipse(x, 0.22, 0.235, ry * 0.94, mix(color, INK, 0.35), False)
        pen.ellipse(x, 0.3, 0.19, ry * 0.62, color, False)
        pen.ellipse(x, 0.22, 0.095, ry * 0.42, INK, False)
        pen.ellipse(x - 0.08, 0.08, 0.085, 0.095, WHITE, False)
        pen.stroke([(x - 0.31, 0.12), (x, 0.2 - ry - 0.05), (x + 0.31, 0.12)], INK, 0.11 if girl else 0.08)

    return draw


def _closed(pen: Pen, x: float, girl: bool) -> None:
    pen.stroke([(x - 0.28, 0.16), (x, 0.34), (x + 0.28, 0.16)], INK, 0.1)


EYE_DRAWERS: dict[str, EyeDrawer] = {name: _anime_eye(color) for name, color in EYES.items()} | UNSEEN_EYES


def _face(pen: Pen, p: Person) -> None:
    side = p.view == "from side"
    if pen.look.shade:
        for x in (0.5,) if side else (-0.64, 0.64):
            pen.ellipse(x, 0.52, 0.2, 0.12, mix(p.skin, (255, 90, 110), 0.4), False)
    eye = _closed if p.expression == "closed eyes" and p.eyes in EYES else EYE_DRAWERS[p.eyes]
    for x in (0.56,) if side else (-0.43, 0.43):
        eye(pen, x, p.girl)
    tilt = {"angry": 0.13, "frown": -0.13}.get(p.expression, 0.0)
    thick = 0.12 if p.expression == "angry" else (0.07 if p.girl else 0.11)
    for sign in (1,) if side else (-1, 1):
        pen.stroke([(sign * 0.22 + side * 0.1, -0.25 + tilt), (sign * 0.68 + side * 0.1, -0.25 - tilt)], INK, thick)
    _mouth(pen, 0.62 if side else 0.0, p.expression)


def _mouth(pen: Pen, x: float, expression: str) -> None:
    if expression == "open mouth":
        pen.ellipse(x, 0.66, 0.2, 0.2, (150, 32, 48))
        pen.ellipse(x, 0.76, 0.12, 0.08, (250, 120, 130), False)
        return
    curve = {"smile": 0.15, "closed eyes": 0.07, "frown": -0.13, "angry": -0.1}[expression]
    pen.stroke([(x - 0.22, 0.64 - curve / 2), (x, 0.64 + curve), (x + 0.22, 0.64 - curve / 2)], INK, 0.08)


def _head(pen: Pen, p: Person) -> None:
    chin = 0.9 if p.girl else 0.94
    if p.view == "from side":
        pen.blob(
            [
                (0, -1),
                (0.75, -0.7),
                (0.95, 0.05),
                (1.08, 0.36),
                (0.94, 0.5),
                (0.82, 0.84),
                (0.3, chin),
                (-0.5, 0.7),
                (-0.95, 0),
                (-0.7, -0.75),
            ],
            p.skin,
        )
    else:
        jaw = 0.62 if p.girl else 0.74
        pen.mirrored([(0, -1), (0.8, -0.66), (1, 0.05), (0.92, 0.48), (jaw, 0.76), (0, chin)], p.skin)


def draw_person(pen: Pen, p: Person) -> None:
    """Back hair, body, arms, head, face, front hair, headwear; from behind, the hair covers everything."""
    behind = p.view == "from behind"
    wear = (OUTFITS | UNSEEN_OUTFITS)[p.outfit]
    if not behind:
        back_hair(pen, p)
    _body(pen, p, wear)
    _arms(pen, p, wear)
    _head(pen, p)
    if behind:
        front_hair(pen, p)
        back_hair(pen, p)
    else:
        _face(pen, p)
        front_hair(pen, p)
    if p.headwear:
        (HEADWEAR | UNSEEN_HEADWEAR)[p.headwear](pen, p)
