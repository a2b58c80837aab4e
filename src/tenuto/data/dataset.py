"""From a folder of pictures and captions to items; caption variation; the validation split."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field, NonNegativeInt

from tenuto.data.buckets import bucket_of, cropped_share
from tenuto.data.captions import caption_path, is_sentence, join_tags, read_caption, split_tags
from tenuto.data.images import EXTENSIONS, UNREAD_EXTENSIONS, look_of, read_image
from tenuto.data.masks import BESIDE, find_masks, is_mask, wrong_with
from tenuto.data.problems import Level, Problem
from tenuto.data.tags import has_trigger, remove_trigger
from tenuto.files import hash_file, hash_text
from tenuto.randomness import seed_for
from tenuto.words import Kind, Role, Settings, Size, TenutoError

CROP_WORTH_SAYING, CROP_TOO_MUCH = 0.25, 0.5
"""Shares of a picture that its bucket may cut off before that is a warning, an error."""


@dataclass(frozen=True)
class Concept:
    """What is to be learned, as far as data and prompts need to know."""

    name: str
    kind: Kind = "concept"
    trigger: str = ""
    """The word(s) that call it; several are separated by commas."""
    class_word: str = ""
    """What it is a case of; may be empty."""
    images: Path | None = None
    others: tuple[str, ...] = ()
    """The triggers of the project's other concepts: the base knows none of them either."""

    @property
    def triggers(self) -> tuple[str, ...]:
        """Its own first."""
        return (self.trigger, *self.others)

    def untriggered(self, text: str, *, class_word: bool = True) -> str:
        """What the base can be asked in the text's place: without any trigger, with the class word for its own."""
        text = remove_trigger(text, self.trigger, self.class_word if class_word else "")
        for _ in self.triggers:  # taking one out may join the parts of another
            for trigger in self.triggers:
                text = remove_trigger(text, trigger)
        return text


@dataclass(frozen=True)
class Item:
    """One picture with its caption."""

    id: str
    """Content hash of file, caption and concept; copies of one file count up, so that no two items share an id."""
    path: Path
    caption: str
    concept: str
    bucket: Size
    size: Size
    """The picture's own size, upright."""
    repeats: int = 1
    """Uses per epoch."""
    role: Role = "instance"
    content: str = ""
    """SHA-256 of the picture file: what latents are cached by (with the bucket and the model's hash)."""
    look: int = field(default=0, repr=False, compare=False)
    """Perceptual hash, for finding near copies."""
    mask: Path | None = None
    """A picture that says how much each place counts."""


def scan(
    folder: Path,
    *,
    concept: str,
    buckets: Sequence[Size],
    upscale: bool = False,
    multiple: int | None = None,
    repeats: int = 1,
    role: Role = "instance",
    caption_extension: str = ".txt",
    default_caption: str = "",
    background: str = "white",
    masks: Path | None = None,
) -> tuple[list[Item], list[Problem]]:
    """Every picture of a folder, by name, each decoded once to prove that it is whole; and what is wrong with the rest.

    Raises TenutoError when the folder itself cannot be used. A picture without caption takes `default_caption`.
    """
    pictures, problems = _pictures(folder, caption_extension, masks)
    mask_of = find_masks(masks) if masks else {}
    items: list[Item] = []
    copies: Counter[str] = Counter()
    for path in pictures:
        try:
            image = read_image(path, background)
            size = Size(*image.size)
            bucket = _bucket(path, size, buckets, upscale, multiple)
            content = hash_file(path)
        except TenutoError as error:
            problems.append(_problem_of(path, error))
            continue
        except OSError as error:
            problems.append(Problem("error", str(path), f"cannot be read ({error.strerror})", "mend its permissions"))
            continue
        caption, found = _caption(path, caption_extension, default_caption, role)
        problems += found
        if (cut := cropped_share(size, bucket)) > CROP_WORTH_SAYING:
            remedy = "crop it yourself or raise buckets.max_ratio"
            level: Level = "error" if cut > CROP_TOO_MUCH else "warning"
            problems.append(Problem(level, str(path), f"bucket {bucket} cuts off {cut:.0%} of {size}", remedy))
        mask = mask_of.get(path.stem)
        if masks and (lacks := wrong_with(mask, path, size, masks)):
            problems.append(lacks)
        key = hash_text(content, caption, concept, role)
        name = hash_text(key, str(copies[key]))[:20]
        copies[key] += 1
        items.append(Item(name, path, caption, concept, bucket, size, repeats, role, content, look_of(image), mask))
    return items, problems


def _pictures(folder: Path, caption_extension: str, masks: Path | None) -> tuple[list[Path], list[Problem]]:
    if not folder.exists():
        raise TenutoError(f"{folder}: no such folder; check the concept's `images`")
    if not folder.is_dir():
        raise TenutoError(f"{folder}: not a folder; `images` names the folder that holds the pictures")
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        inner = [
            path for path in entries if path.is_dir() and any(p.suffix.lower() in EXTENSIONS for p in path.iterdir())
        ]
    except OSError as error:
        raise TenutoError(f"{folder}: cannot be read ({error.strerror}); mend its permissions") from error
    everything = [path for path in entries if path.suffix.lower() in EXTENSIONS and path.is_file()]
    stems = {path.stem for path in everything}
    pictures = [path for path in everything if not is_mask(path, stems)]
    if not pictures:
        hint = f"did you mean {inner[0]}?" if inner else f"it should hold {', '.join(EXTENSIONS)} files"
        raise TenutoError(f"{folder}: no pictures in this folder; {hint}")
    problems = [
        Problem(
            "warning",
            str(path),
            "sub-folder with pictures, not read",
            "name it as a concept of its own or move the pictures up",
        )
        for path in inner
    ]
    if len(pictures) < len(everything) and masks is None:
        what = f"{len(everything) - len(pictures)} masks (*{BESIDE}) beside the pictures, not used"
        problems.append(Problem("warning", str(folder), what, "set concepts.masks to this folder too"))
    for path in entries:
        if path.suffix.lower() in UNREAD_EXTENSIONS:
            problems.append(Problem("warning", str(path), f"{path.suffix} pictures are not read", "convert it to PNG"))
    for path in entries:
        if path.suffix == caption_extension and path.stem not in stems:
            problems.append(
                Problem("warning", str(path), "caption without a picture", "remove it or restore the picture")
            )
    for stem, count in Counter(path.stem for path in pictures).items():
        if count > 1:
            problems.append(
                Problem("warning", str(folder / stem), f"{count} pictures share one caption file", "rename one of them")
            )
    return pictures, problems


def _bucket(path: Path, size: Size, buckets: Sequence[Size], upscale: bool, multiple: int | None) -> Size:
    try:
        return bucket_of(size, buckets, upscale, multiple)
    except TenutoError as error:
        raise TenutoError(f"{path}: {error}") from error


def _problem_of(path: Path, error: TenutoError) -> Problem:
    what, _, remedy = str(error).removeprefix(f"{path}: ").rpartition("; ")
    return Problem("error", str(path), what or remedy, remedy)


def _caption(path: Path, extension: str, default: str, role: Role) -> tuple[str, list[Problem]]:
    """The caption to train with, and what is wrong with it. Reg pictures may lack one: the audit counts those."""
    file = caption_path(path, extension)
    try:
        caption = read_caption(path, extension)
    except TenutoError as error:
        return default, [_problem_of(file, error)]
    if role == "prior" and (caption is None or not split_tags(caption.text)):
        return default, []
    if caption is None and default:
        return default, [Problem("warning", str(path), f"no caption file; {default!r} is used", f"write {file.name}")]
    if caption is None:
        return "", [Problem("error", str(path), "no caption", f"write {file.name}")]
    if not split_tags(caption.text):
        return default, [Problem("error", str(file), "empty caption", "write what the picture shows")]
    return caption.text, []


class VariationSettings(Settings):
    """How an instance row varies from visit to visit. Prior rows never vary."""

    flip: bool = False
    """Mirror half of the visits. Not for concepts whose left and right differ."""
    shuffle: bool = False
    """Shuffle the tags (sentences stay as they are)."""
    keep_tokens: NonNegativeInt = 0
    """This many tags at the front are neither moved nor dropped."""
    tag_dropout: float = Field(default=0.0, ge=0.0, le=1.0)
    """Chance that a tag is left out; the trigger never is."""
    caption_dropout: float = Field(default=0.0, ge=0.0, le=1.0)
    """Chance that the whole caption is left out."""


def vary(caption: str, settings: VariationSettings, rng: random.Random, trigger: str = "") -> str:
    """The caption of one visit. Same settings, same generator state: same words."""
    if settings.caption_dropout and rng.random() < settings.caption_dropout:
        return ""
    if is_sentence(caption) or not (settings.shuffle or settings.tag_dropout):
        return caption
    tags = list(split_tags(caption))
    head, rest = tags[: settings.keep_tokens], tags[settings.keep_tokens :]
    if settings.shuffle:
        rng.shuffle(rest)
    if settings.tag_dropout:
        rest = [tag for tag in rest if rng.random() >= settings.tag_dropout or has_trigger(tag, trigger)]
    return join_tags(head + rest)


def flipped(settings: VariationSettings, rng: random.Random) -> bool:
    """Whether this visit is mirrored."""
    return settings.flip and rng.random() < 0.5


def split_validation(items: Sequence[Item], share: float, seed: int) -> tuple[list[Item], list[Item]]:
    """(training, validation): about `share` of each concept's pictures are set aside, never all of them.

    Copies of a file stay together, and who is set aside does not depend on the order of the files.
    """
    aside: set[tuple[str, str]] = set()
    for concept in sorted({item.concept for item in items}):
        contents = sorted(
            {item.content or item.id for item in items if item.concept == concept},
            key=lambda content: seed_for(seed, "validation", item=content),
        )
        count = min(round(len(contents) * share), len(contents) - 1)
        aside |= {(concept, content) for content in contents[:count]}
    chosen = [(item.concept, item.content or item.id) in aside for item in items]
    return (
        [item for item, out in zip(items, chosen, strict=True) if not out],
        [item for item, out in zip(items, chosen, strict=True) if out],
    )
