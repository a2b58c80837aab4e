"""The picture world: scenes drawn at random whose captions are true, with danbooru-like tags.

    scene = sample_scene(Random(1), place="beach", style="lineart")
    tags(scene)                   # ["1girl", "red hair", …, "beach", "lineart"]
    render(scene, (64, 64))       # a picture

The world has hundreds of named characters (`NAMES`): a caption may say the name instead of what the character looks like.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from random import Random
from typing import Any

from PIL import Image

from tenuto.pocket.figure import BACK_HAIR, EYE_COLORS, HAIR_COLORS, HATS, Person, draw_person
from tenuto.pocket.pen import SUPERSAMPLE, Pen
from tenuto.pocket.places import PLACES
from tenuto.pocket.styles import STYLES, UNSEEN_STYLES

GROUPS: dict[str, tuple[str, ...]] = {
    "subject": ("1girl", "1boy"),
    "hair color": tuple(HAIR_COLORS),
    "hair": tuple(BACK_HAIR),
    "eyes": (*EYE_COLORS, "closed eyes"),
    "expression": ("smile", "open mouth", "frown"),
    "outfit": ("school uniform", "dress", "hoodie", "kimono", "armor", "overalls"),
    "hat": tuple(HATS),
    "glasses": ("glasses", "sunglasses"),
    "pose": ("arms at sides", "arms up", "waving", "hands on hips", "holding balloon"),
    "view": ("from front", "from behind", "from side"),
    "place": tuple(PLACES),
    "style": tuple(STYLES),
}
"""Every tag that the base learns. `hat` and `glasses` may be absent from a picture."""

ODDITIES: tuple[str, ...] = ("crazy eyes", "jar")
"""Things that no picture of the base's training shows. Concepts are made of them, of `star dress` and of `risograph`."""

LOOKS = ("subject", "hair_color", "hair", "eyes", "outfit", "hat", "glasses")
"""What a name stands for."""

_SKINS = ((255, 224, 196), (246, 204, 168), (198, 140, 100))
_HEADS = "mi ra ko ta lu ve zan dor fi nel ash bri qua yo shi ren kal tor ume syl vex hol pim gra thi".split()
_TAILS = "na ro lia mon dra shi tek vin sa bel kyo rus wen zo fa lin gar mu the ix".split()


def _names(count: int) -> tuple[str, ...]:
    """Invented words in one, two or three sub-word pieces."""
    rng, found = Random(20), dict[str, None]()
    while len(found) < count:
        middle = rng.choice([*_HEADS, ""])
        word = rng.choice(_HEADS) + middle + rng.choice(_TAILS)
        found[word + (" " + rng.choice(_HEADS) + rng.choice(_TAILS) if rng.random() < 0.3 else "")] = None
    return tuple(found)


NAMES: tuple[str, ...] = _names(400)


@dataclass(frozen=True)
class Scene:
    """All that a picture shows. Empty words: not there. `seed` places what captions do not tell."""

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
    place: str
    style: str
    name: str = ""
    oddities: tuple[str, ...] = ()
    seed: int = 0


def _any(rng: Random, group: str, absent: float = 0.0) -> str:
    return "" if rng.random() < absent else rng.choice(GROUPS[group])


def _appearance(rng: Random) -> dict[str, str]:
    return {
        "subject": _any(rng, "subject"),
        "hair_color": _any(rng, "hair color"),
        "hair": _any(rng, "hair"),
        "eyes": _any(rng, "eyes"),
        "outfit": _any(rng, "outfit"),
        "hat": _any(rng, "hat", absent=0.5),
        "glasses": _any(rng, "glasses", absent=0.65),
    }


def appearance_of(name: str) -> dict[str, str]:
    """A named character always looks the same."""
    return _appearance(Random(f"appearance of {name}"))


def sample_scene(rng: Random, **fixed: Any) -> Scene:
    """A scene at random; whatever is given by keyword stays as given. One in six shows a named character."""
    name = fixed.get("name", rng.choice(NAMES) if rng.random() < 1 / 6 else "")
    drawn: dict[str, Any] = _appearance(rng) | (appearance_of(name) if name else {})
    drawn |= {"expression": _any(rng, "expression"), "pose": _any(rng, "pose"), "place": _any(rng, "place")}
    drawn["view"] = rng.choice(("from front",) * 3 + ("from behind", "from side"))
    drawn |= {"style": _any(rng, "style"), "name": name, "seed": rng.randrange(2**31)}
    return Scene(**(drawn | fixed))


def tags(scene: Scene) -> list[str]:
    """What can be seen, and only that: no eyes from behind, no colours where the style has none."""
    face, colors = scene.view != "from behind", look_of(scene.style).colorful
    eyes = scene.eyes if scene.eyes == "closed eyes" or colors else ""
    hidden_eyes = scene.glasses == "sunglasses" or "crazy eyes" in scene.oddities
    said = [
        scene.subject,
        scene.name,
        scene.hair_color if colors else "",
        scene.hair,
        eyes if face and not hidden_eyes else "",
        scene.expression if face else "",
        scene.outfit,
        scene.hat if "jar" not in scene.oddities else "",
        scene.glasses if face else "",
        scene.pose,
        scene.view,
        scene.place,
        scene.style,
    ]
    return [tag for tag in said if tag]


def caption_tags(scene: Scene, rng: Random) -> list[str]:
    """`tags`; where a name is said, the looks it stands for are mostly left out."""
    said = tags(scene)
    if not scene.name:
        return said
    implied = {getattr(scene, part) for part in LOOKS} - {scene.subject}
    keep = rng.choice((0.0, 0.3, 1.0))
    return [tag for tag in said if tag not in implied or rng.random() < keep]


def look_of(style: str):  # noqa: ANN201
    return {**STYLES, **UNSEEN_STYLES}[style]


def person_of(scene: Scene, rng: Random) -> Person:
    shared = {f.name for f in fields(Person)} & {f.name for f in fields(Scene)}
    return Person(**{name: getattr(scene, name) for name in shared}, skin=rng.choice(_SKINS))


def _stand(pen: Pen, size: tuple[int, int], rng: Random, flip: bool) -> Pen:
    """Where the figure stands: whole in tall and square pictures, down to the knees in wide ones."""
    w, h = size
    wide = w > 1.3 * h
    unit = min(w * 0.275, h * (0.28 if wide else 0.215)) * rng.uniform(0.97, 1.05)
    feet = h * 0.97 + (unit * 1.0 if wide else 0) - rng.uniform(0, 0.02) * h
    x = w / 2 + rng.uniform(-0.05, 0.05) * w + (rng.choice((-1, 1)) * 0.12 * w if wide else 0)
    placed = pen.at((x, feet - 1.9 * unit), unit, flip)
    return replace(placed, line_width=1.3 * placed.line_width)


def render(scene: Scene, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """The scene as an RGB picture of (width, height)."""
    rng, look = Random(scene.seed), look_of(scene.style)
    large = (size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE)
    pen = Pen(Image.new("RGB", large, look.fill((255, 255, 255))), look)
    person, flip = person_of(scene, rng), rng.random() < 0.5
    PLACES[scene.place](pen.backdrop(), rng)
    draw_person(_stand(pen, large, rng, flip), person)
    return look.finish(pen.canvas.resize(size, Image.Resampling.BOX))
