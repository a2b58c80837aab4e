"""Prior prompts: what the base is asked for, made from the user's captions or from a prompt bank.

    match    the caption without the trigger (and without the tags of the chosen filters)
    half     a seeded half of those tags, the rest from the bank
    random   the bank alone
    own      the user's lines
    none     no prior at all

Whatever was taken out and put in is kept with each prompt, so that the plan can show it.
"""

from __future__ import annotations

import difflib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Literal

from pydantic import field_validator

from tenuto.data.bank import Bank
from tenuto.data.captions import is_sentence, join_tags, split_tags
from tenuto.data.dataset import Concept, Item
from tenuto.data.filtering import filter_caption
from tenuto.data.problems import Problem
from tenuto.data.tag_lists import TagCsv, load_tag_csv
from tenuto.data.tags import FILTERS, has_trigger, near_misses, plain
from tenuto.randomness import shuffler
from tenuto.words import Kind, Settings, Size, TenutoError

Mode = Literal["match", "half", "random", "own", "none"]
RowCaption = Literal["full", "class", "none"]

BY_KIND: dict[Kind, Mode] = {"character": "match", "concept": "match", "clothing": "match", "style": "random"}
"""A style whose prior follows its own captions is hardly learned, so it gets unrelated prompts."""

PLACE_GROUPS = ("place", "location", "background")
PLACES = (
    "outdoors",
    "indoors",
    "beach",
    "forest",
    "city",
    "garden",
    "street",
    "park",
    "bedroom",
    "classroom",
    "kitchen",
    "room",
    "field",
    "mountain",
    "river",
    "lake",
    "ocean",
    "sea",
    "sky",
    "rooftop",
    "desert",
    "underwater",
    "space",
    "cave",
    "village",
    "town",
    "school",
    "office",
    "house",
    "library",
    "cafe",
    "snow",
    "ruins",
    "castle",
)
"""Words that place a picture, whatever the bank calls its places."""
SUBJECTS = ("1girl", "1boy", "1other", "2girls", "2boys", "multiple girls", "multiple boys", "no humans")


class PromptSettings(Settings):
    """Where prior prompts come from."""

    prompts: Mode | None = None
    """match, half, random, own or none; unset: random for styles, match for everything else."""
    filters: tuple[str, ...] = ()
    """Classes of tags to leave out: artist, meta, character_name, character_appearance, copyright."""
    tag_csv: Path | None = None
    """A tag list with categories; makes the artist, meta, character_name and copyright filters complete."""
    enrich: bool = False
    """Add a seeded place where a prompt names none, and what there is to see (class word, 1girl) where tags don't."""
    own: Path | None = None
    """A text file with one prompt per line, for prompts = "own"; lines that begin with "# " are remarks."""
    bank: Path | None = None
    """A prompt bank of your own (TOML); unset: the checkpoint's, or the one that ships with tenuto."""
    prefix: str = ""
    """Put before every prompt that doesn't hold it yet, such as "masterpiece, best quality"."""
    quality: tuple[str, ...] = ()
    """Quality words that the meta filter keeps (those of `prefix` are kept anyway)."""
    captions: RowCaption = "full"
    """What prior rows are trained with: the full prompt, the class word alone, or no words."""

    @field_validator("filters")
    @classmethod
    def filters_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in FILTERS:
                near = difflib.get_close_matches(name, FILTERS, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(FILTERS)}"
                raise TenutoError(f"prior filter {name!r} is unknown; {hint}")
        return value

    def mode_for(self, kind: Kind) -> Mode:
        return self.prompts or BY_KIND[kind]


@dataclass(frozen=True)
class PriorPrompt:
    """One prompt, and how it came about."""

    text: str
    source: str
    """Id of the instance item whose caption and bucket it follows."""
    concept: str
    bucket: Size
    copy: int = 0
    """The how-manieth prompt of that item."""
    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    caption: str = ""
    """What the prior row is trained with."""
    mode: Mode = "match"


def derive_prompts(
    items: Sequence[Item],
    concept: Concept,
    bank: Bank,
    settings: PromptSettings,
    *,
    seed: int = 0,
    per_image: int = 1,
) -> list[PriorPrompt]:
    """`per_image` prompts for each of the concept's items, item after item, without any trigger.

    Each prompt is drawn by its own name (concept, item, copy), so a larger pool keeps the prompts of a smaller one.
    """
    mode = settings.mode_for(concept.kind)
    if mode == "none":
        return []
    mine = [item for item in items if item.concept == concept.name]
    known = load_tag_csv(settings.tag_csv) if settings.tag_csv else None
    kept = [_kept_tags(item.caption, concept, settings, known) for item in mine]
    subject = _usual_subject(kept, concept)
    own = read_own_prompts(settings.own) if mode == "own" else []

    prompts = []
    for number, (item, tags) in enumerate(zip(mine, kept, strict=True)):
        for copy in range(per_image):
            rng = shuffler(seed, "prior prompt", concept=concept.name, item=item.id, copy=copy)
            match mode:
                case "own":
                    text = own[(copy * len(mine) + number) % len(own)]
                case "random":
                    text = _clean(join_tags(bank.draw(rng)), concept, class_word=False)
                case "half":
                    text = _half(tags, bank, rng, concept)
                case "match":
                    text = join_tags(tags)
            if settings.enrich and mode in ("match", "half"):
                text = _enriched(text, bank, rng, concept, subject)
            if mode != "own":
                text = _prefixed(text, settings.prefix)
            words = {"full": text, "class": concept.class_word, "none": ""}[settings.captions]
            source = item.caption if mode in ("match", "half") else ""
            removed, added = _difference(source, text)
            prompts.append(PriorPrompt(text, item.id, concept.name, item.bucket, copy, removed, added, words, mode))
    return prompts


def thinned(prompts: Sequence[PriorPrompt], total: int) -> list[PriorPrompt]:
    """About `total` of them, spread evenly: every bucket keeps its share, and at least one."""
    buckets: dict[Size, list[int]] = {}
    for number, prompt in enumerate(prompts):
        buckets.setdefault(prompt.bucket, []).append(number)
    kept: set[int] = set()
    for own in buckets.values():
        share = min(ceil(total * len(own) / len(prompts)), len(own))
        kept.update(own[place * len(own) // share] for place in range(share))
    return [prompts[number] for number in sorted(kept)]


def read_own_prompts(path: Path | None) -> list[str]:
    """One prompt per line; empty lines and lines that begin with "# " are left out."""
    if path is None:
        raise TenutoError('prior.own is not set; prompts = "own" needs a text file with one prompt per line')
    try:
        lines = [line.strip() for line in path.read_bytes().decode("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise TenutoError(
            f"{path}: not a readable prompt file ({why}); give a UTF-8 text file, one prompt per line"
        ) from error
    prompts = [line for line in lines if line and line != "#" and not line.startswith("# ")]
    if not prompts:
        raise TenutoError(f"{path}: no prompts in it; write one per line")
    if bad := next((line for line in prompts if "\0" in line), None):
        raise TenutoError(f"{path}: holds NUL characters ({bad[:20]!r}); save it as UTF-8 text")
    return prompts


# -- How a prompt comes about -----------------------------------------------------------------------------------------


def _clean(text: str, concept: Concept, *, class_word: bool = True) -> str:
    """Without any trigger and without calls of other networks (`<lora:...>`): the base alone is asked."""
    text = join_tags(tag for tag in split_tags(text) if not (tag.startswith("<") and tag.endswith(">")))
    return concept.untriggered(text, class_word=class_word)


def _kept_tags(caption: str, concept: Concept, settings: PromptSettings, known: TagCsv | None) -> tuple[str, ...]:
    """What the caption leaves to a prior prompt."""
    keep = (concept.class_word, *split_tags(settings.prefix), *settings.quality)
    return split_tags(filter_caption(_clean(caption, concept), settings.filters, known, keep)[0])


def _half(tags: Sequence[str], bank: Bank, rng: random.Random, concept: Concept) -> str:
    """A half of the tags (rounded up, in their order), filled up to the old number from groups they do not touch."""
    chosen = set(rng.sample(range(len(tags)), (len(tags) + 1) // 2))
    kept = [tag for index, tag in enumerate(tags) if index in chosen]
    taken = {group for tag in kept if (group := bank.group_of(tag))}
    if any(_is_subject(tag, concept) for tag in kept):
        taken.add("subject")
    new = [tag for tag in bank.draw(rng, without=taken) if tag not in kept]
    new = [tag for tag in new if not any(has_trigger(tag, trigger) for trigger in concept.triggers)]
    return join_tags([*kept, *new[: max(len(tags) - len(kept), 1)]])


def _is_subject(tag: str, concept: Concept) -> bool:
    return plain(tag) in SUBJECTS or bool(concept.class_word and has_trigger(tag, concept.class_word))


def _usual_subject(captions: Sequence[Sequence[str]], concept: Concept) -> str:
    """What pictures of this concept mostly show: the class word, else the commonest 1girl-like tag, else nothing."""
    if concept.class_word:
        return concept.class_word
    counts = Counter(plain(tag) for tags in captions for tag in tags if plain(tag) in SUBJECTS)
    return max(counts, key=lambda tag: (counts[tag], tag)) if counts else ""


def _enriched(text: str, bank: Bank, rng: random.Random, concept: Concept, subject: str) -> str:
    tags = list(split_tags(text))
    if (
        subject
        and not is_sentence(text)
        and not any(_is_subject(tag, concept) or has_trigger(tag, subject) for tag in tags)
    ):
        tags.insert(0, subject)
    groups = [bank.groups[name] for name in PLACE_GROUPS if name in bank.groups]
    places = [entry for group in groups for entry in group]
    places = [entry for entry in places if not any(has_trigger(entry, trigger) for trigger in concept.triggers)]
    if places and not names_a_place(text, bank):
        tags.append(rng.choice(places))
    return join_tags(tags)


def names_a_place(text: str, bank: Bank) -> bool:
    """Whether a prompt says where it plays: by a place of the bank, or by a plain word such as "beach"."""
    if any(bank.group_of(tag) in PLACE_GROUPS for tag in split_tags(text)):
        return True
    return any(has_trigger(text, place) for place in PLACES)


def _prefixed(text: str, prefix: str) -> str:
    present = {plain(tag) for tag in split_tags(text)}
    return join_tags([*(tag for tag in split_tags(prefix) if plain(tag) not in present), *split_tags(text)])


def _difference(before: str, after: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(removed, added) parts; a part that was only shortened counts as both."""
    old, new = Counter(split_tags(before)), Counter(split_tags(after))
    return tuple((old - new).elements()), tuple((new - old).elements())


# -- What is to be said about prompts ---------------------------------------------------------------------------------


def lint(prompts: Sequence[PriorPrompt], concepts: Sequence[Concept]) -> list[Problem]:
    """Triggers that leak into prior prompts or prior captions: a prior that teaches the concept undoes itself."""
    problems: dict[tuple[str, str, str], Problem] = {}
    for prompt in prompts:
        for concept in concepts:
            for text in dict.fromkeys((prompt.text, prompt.caption)):
                where = f"prior prompt of {prompt.concept}"
                if has_trigger(text, concept.trigger):
                    what = f"trigger {concept.trigger!r} leaks into {text!r}"
                    remedy = "take it out of your prompts or bank" if text == prompt.text else "change the class word"
                    problems.setdefault((where, concept.name, text), Problem("error", where, what, remedy))
                elif words := near_misses(text, concept.trigger):
                    what = f"{', '.join(map(repr, words))} holds the trigger {concept.trigger!r} inside a longer word"
                    remedy = "if it means the concept, write it apart in the captions"
                    problems.setdefault(
                        (where, concept.name, ", ".join(words)), Problem("warning", where, what, remedy)
                    )
    return list(problems.values())


@dataclass(frozen=True)
class PartialFilter:
    """A filter that worked by patterns alone, and what it let pass."""

    filter: str
    remedy: str
    passed: tuple[str, ...]
    """The distinct tags that are left in the prompts, the commonest first."""

    def __str__(self) -> str:
        shown = ", ".join(self.passed[:12]) + (f" and {len(self.passed) - 12} more" if len(self.passed) > 12 else "")
        return f"filter {self.filter!r} is partial (patterns only); {self.remedy}. Passed: {shown or 'nothing'}"


def partial_filters(prompts: Sequence[PriorPrompt], settings: PromptSettings) -> list[PartialFilter]:
    """The filters that could not know every tag of their class, each with all tags that passed it."""
    if not any(prompt.mode in ("match", "half") for prompt in prompts):
        return []
    counts = Counter(tag for prompt in prompts if not is_sentence(prompt.text) for tag in split_tags(prompt.text))
    passed = tuple(tag for tag, _ in counts.most_common())
    found = []
    for name in settings.filters:
        if FILTERS[name].category is None:
            found.append(PartialFilter(name, "no tag list has this category, so look the tags over", passed))
        elif settings.tag_csv is None:
            found.append(
                PartialFilter(name, "set prior.tag_csv to a tag list with categories for a complete one", passed)
            )
        elif not FILTERS[name].complete(load_tag_csv(settings.tag_csv)):
            remedy = f"{settings.tag_csv.name} lists no tag of category {FILTERS[name].category}; use a fuller list"
            found.append(PartialFilter(name, remedy, passed))
    return found
