"""The picture world: scenes drawn at random, their tags (always true) and their pictures.

A scene's fields may also hold values outside GROUPS (see concepts.py): those are drawn but never named by a tag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from random import Random
from typing import Any

from PIL import Image, ImageFilter

from tenuto.pocket.draw import EYES, HAIR, OUTFITS, SKINS, draw_person
from tenuto.pocket.headwear import HEADWEAR, HIDDEN_FROM_BEHIND
from tenuto.pocket.pen import SUPERSAMPLE, Pen
from tenuto.pocket.person import Person
from tenuto.pocket.places import PLACES
from tenuto.pocket.styles import RGB, STYLES, UNSEEN_STYLES, WHITE, Look, lit
from tenuto.pocket.unseen import UNSEEN_HAIR

HAIR_STYLES = ("long hair", "short hair", "twintails", "ponytail", "double bun", "spiked hair", "curly hair")

GROUPS: dict[str, tuple[str, ...]] = {
    "subject": ("1girl", "1boy"),
    "hair color": tuple(HAIR),
    "hair style": HAIR_STYLES,
    "eyes": tuple(EYES),
    "expression": ("smile", "open mouth", "frown", "angry", "closed eyes"),
    "outfit": tuple(OUTFITS),
    "headwear": tuple(HEADWEAR),
    "pose": ("standing", "arms up", "waving", "hands on hips", "holding balloon"),
    "view": ("from front", "from side", "from behind"),
    "framing": ("portrait", "upper body", "full body"),
    "place": tuple(PLACES),
    "style": tuple(STYLES),
}
"""Group -> its tags. A picture shows at most one tag of each group."""

QUALITY = ("best quality", "low quality")
BUCKETS: tuple[tuple[int, int], ...] = ((64, 64), (48, 80), (80, 48), (48, 64), (64, 48))
"""(width, height): square, 3:5, 5:3, 3:4, 4:3. Sides are multiples of 16 = 4 (autoencoder) * 4 (U-Net)."""
_PORTRAIT_POSES = ("arms up", "waving", "holding balloon")
_BOY_STYLES = ("short hair", "spiked hair", "curly hair")


@dataclass(frozen=True)
class Scene:
    """Everything that a picture shows. `seed` moves what no tag names: places' details, skin, small offsets."""

    subject: str
    hair_color: str
    hair_style: str
    eyes: str
    expression: str
    outfit: str
    headwear: str
    pose: str
    view: str
    framing: str
    place: str
    style: str
    quality: str = "best quality"
    name: str = ""
    """A named character, if this is one."""
    concept: str = ""
    """A concept of concepts.py, if this shows one; its features stand in the other fields."""
    seed: int = 0


SCENE_FIELDS = tuple(field.name for field in fields(Scene))
FIELD_OF_GROUP = {group: group.replace(" ", "_") for group in GROUPS}


def sample_scene(rng: Random, **fixed: Any) -> Scene:
    """A scene drawn at random; fields given in `fixed` are kept as they are."""
    draws = {FIELD_OF_GROUP[group]: rng.choice(tags) for group, tags in GROUPS.items()}
    draws["view"] = rng.choices(GROUPS["view"], (0.6, 0.22, 0.18))[0]
    if rng.random() < 0.35:
        draws["headwear"] = ""
    if draws["subject"] == "1boy" and rng.random() < 0.7:
        draws["hair_style"] = rng.choice(_BOY_STYLES)
    quality = "low quality" if rng.random() < 0.06 else "best quality"
    return Scene(**{**draws, "quality": quality, "seed": rng.getrandbits(32), **fixed})


def shown(scene: Scene) -> dict[str, str]:
    """Group -> the tag that this picture visibly shows; a group that cannot be seen (or holds no tag) is absent."""
    hidden: set[str] = set()
    if not look_of(scene.style).colorful:
        hidden |= {"hair color", "eyes"}
    if scene.view == "from behind":
        hidden |= {"eyes", "expression"}
        if scene.headwear in HIDDEN_FROM_BEHIND:
            hidden.add("headwear")
    if scene.expression == "closed eyes":
        hidden.add("eyes")
    if scene.framing == "portrait" and scene.pose not in _PORTRAIT_POSES:
        hidden.add("pose")
    values = {group: getattr(scene, field) for group, field in FIELD_OF_GROUP.items() if group not in hidden}
    return {group: value for group, value in values.items() if value in GROUPS[group]}


def tags(scene: Scene) -> list[str]:
    """The true tags of a scene, in the order of GROUPS."""
    return list(shown(scene).values())


def look_of(style: str) -> Look:
    return STYLES.get(style) or UNSEEN_STYLES[style]


def _place_person(framing: str, width: float, height: float, rng: Random) -> tuple[tuple[float, float], float]:
    """Where the head's centre lies and how large it is."""
    by_height, by_width, below = {
        "portrait": (0.31, 0.36, 1.5),
        "upper body": (0.24, 0.3, 2.15),
        "full body": (0.186, 0.28, 3.2),
    }[framing]
    radius = min(by_height * height, by_width * width) * rng.uniform(0.95, 1.05)
    spare = max(0.0, height - (below + 1.75) * radius)
    x = width * (0.5 + rng.uniform(-0.05, 0.05) * (1 if width <= height else 3))
    return (x, height - below * radius - 0.4 * spare * (framing != "full body")), radius


def _skin(scene: Scene, rng: Random) -> RGB:
    return SKINS[Random(scene.name).randrange(4)] if scene.name else rng.choice((*SKINS[:2], *SKINS))


def person_of(scene: Scene, rng: Random) -> Person:
    return Person(
        girl=scene.subject == "1girl",
        skin=_skin(scene, rng),
        hair=HAIR.get(scene.hair_color) or UNSEEN_HAIR[scene.hair_color],
        hair_style=scene.hair_style,
        eyes=scene.eyes,
        expression=scene.expression,
        outfit=scene.outfit,
        headwear=scene.headwear,
        pose=scene.pose,
        view=scene.view,
    )


def render(scene: Scene, size: tuple[int, int] = BUCKETS[0], light: bool = False) -> Image.Image:
    """The picture of a scene: the same scene and size give the same pixels. light: as the second base draws it."""
    return drawn(scene, size, light)[0]


def drawn(scene: Scene, size: tuple[int, int], light: bool = False) -> tuple[Image.Image, tuple[float, float, float]]:
    """The picture, and where the head is on it: centre and radius in pixels."""
    rng = Random(scene.seed)
    width, height = size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE
    look = lit(look_of(scene.style)) if light else look_of(scene.style)
    pen = Pen(Image.new("RGB", (width, height), look.fill(WHITE)), look)
    PLACES[scene.place](pen.backdrop(), rng)
    origin, radius = _place_person(scene.framing, width, height, rng)
    draw_person(pen.at(origin, radius, flip=rng.random() < 0.5), person_of(scene, rng))
    picture = look.finish(pen.canvas.reduce(SUPERSAMPLE))
    head = (origin[0] / SUPERSAMPLE, origin[1] / SUPERSAMPLE, radius / SUPERSAMPLE)
    return (_spoil(picture) if scene.quality == "low quality" else picture), head


def _spoil(picture: Image.Image) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(picture.size[0] / 40)).point(lambda v: 40 + v * 0.7)


def caption(words: Sequence[str]) -> str:
    return ", ".join(words)


_ONSETS = (
    "b", "br", "ch", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "kl", "l", "m", "n", "p",
    "pr", "qu", "r", "s", "sh", "sk", "st", "t", "th", "tr", "v", "w", "x", "y", "z", "zh",
)  # fmt: skip
_VOWELS = ("a", "e", "i", "o", "u", "ae", "ai", "ei", "ia", "oo", "ou", "y")
_ENDS = ("", "", "n", "l", "r", "s", "x", "th", "k", "m", "nd", "rk", "z", "q", "lt", "sh")
NAMED_CHARACTERS = 640
NAMED_FIELDS = ("subject", "hair_color", "hair_style", "eyes", "outfit", "headwear")


def invent_word(rng: Random) -> str:
    """A pronounceable word of two or three syllables that nobody uses; the tokenizer cuts it into sub-word pieces."""
    return "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_ENDS) for _ in range(rng.choice((2, 2, 3))))


@lru_cache(maxsize=1)
def characters() -> dict[str, dict[str, str]]:
    """Name -> the scene fields that the named character always has. Every third name is two words."""
    rng, cast = Random("tenuto pocket cast"), dict[str, dict[str, str]]()
    while len(cast) < NAMED_CHARACTERS:
        name = invent_word(rng) + (f" {invent_word(rng)}" if len(cast) % 3 == 2 else "")
        scene = sample_scene(rng)
        cast.setdefault(name, {field: getattr(scene, field) for field in NAMED_FIELDS})
    return cast


def sample_named(rng: Random) -> Scene:
    name = rng.choice(list(characters()))
    return replace(sample_scene(rng, **characters()[name]), name=name)
