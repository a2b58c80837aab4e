"""Comparison prompts: what the arms are asked for, derived from the user's captions and the prompt bank.

    trained   an instance caption with one free tag changed (a caption itself may be a prior prompt), with the trigger
    style     the trigger in a style that the set does not have; likewise place, view, subject
    far       bank prompts that owe nothing to the set, without the trigger
    empty     the empty prompt

Every ask knows its text without the trigger as well: what the base is asked, and the row "without".
A prompt whose tags equal those of a prompt in `avoid` (prior rows, controller) is never made: train, controller and
test are disjoint.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal, TypeVar

from tenuto.data.bank import Bank
from tenuto.data.captions import is_sentence, join_tags, split_tags
from tenuto.data.dataset import Concept, Item
from tenuto.data.tags import has_trigger, plain
from tenuto.randomness import shuffler
from tenuto.words import Size

Row = Literal["trained", "style", "place", "view", "subject", "far"]

AXES: dict[Row, tuple[str, ...]] = {
    "style": ("style", "art_style", "artist"),
    "place": ("place", "location", "background"),
    "view": ("view", "viewpoint", "framing"),
    "subject": ("subject", "person", "people"),
}
"""Row -> names that a bank may give to the group that is swapped there; the first that the bank has is used."""

MAJORITY = 0.5
"""A tag is the set's own when more than this share of the captions has it."""
TRIES = 60
SPREAD = 32
"""Far prompts at a time that hold the bank's entries as often as the bank does: a few tags make most of a LoRA's drift,
and by chance they came twice as often (docs/findings.md)."""
K = TypeVar("K", bound=str)
T = TypeVar("T")


@dataclass(frozen=True)
class Ask:
    """One picture that is asked for."""

    row: Row
    text: str
    """With the trigger (far prompts: without)."""
    bare: str
    """Without the trigger: what the base is asked."""
    size: Size
    source: str = ""
    """Id of the item whose caption it came from."""
    added: tuple[str, ...] = ()
    """Tags that were put in."""
    removed: tuple[str, ...] = ()

    @property
    def tags(self) -> tuple[str, ...]:
        """What the picture should show, as lists spell it."""
        return tuple(map(plain, split_tags(self.bare)))


@dataclass(frozen=True)
class Prompts:
    """All that one comparison asks for."""

    rows: Mapping[Row, tuple[Ask, ...]]
    own: Mapping[str, str]
    """Bank group -> the set's own tag."""
    missing: Mapping[str, str]
    """Row -> why it is empty."""

    def near(self) -> tuple[Ask, ...]:
        """Asks of the rows near the set, alternating, so that any first few of them hold some of each."""
        return near(self.rows)

    def texts(self) -> frozenset[str]:
        """Every prompt without its trigger: what other prompt sets must avoid."""
        return frozenset(ask.bare for asks in self.rows.values() for ask in asks)


def near(rows: Mapping[K, Sequence[T]]) -> tuple[T, ...]:
    """What the rows near the set hold, one of each row in turn."""
    some = [own for row, own in rows.items() if row != "far"]
    return tuple(own[n] for n in range(max(map(len, some), default=0)) for own in some if n < len(own))


def fingerprint(prompt: str) -> frozenset[str]:
    """Two prompts are the same prompt when they have the same tags, in whatever order and spelling."""
    return frozenset(plain(tag) for tag in split_tags(prompt))


def majorities(captions: Sequence[str], groups: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Group -> the tag that more than half of the captions have: how the set is biased."""
    tagged = [fingerprint(caption) for caption in captions]
    own = {}
    for group, entries in groups.items():
        counts = Counter(
            {tag: sum(plain(tag) in tags for tags in tagged) for entry in entries for tag in split_tags(entry)}
        )
        if counts:
            tag, count = counts.most_common(1)[0]
            if count > MAJORITY * len(captions):
                own[group] = tag
    return own


def derive(
    items: Sequence[Item],
    concept: Concept,
    bank: Bank,
    *,
    each: int,
    far: int,
    seed: int,
    near: int = 0,
    avoid: Collection[str] = (),
    purpose: str = "test",
    spread: int = SPREAD,
) -> Prompts:
    """`each` asks per row, or more for `near` in all rows near the set, and `far` bank prompts; fewer, with the reason
    in `missing`, where the set or bank has no more. Those for `near` lie no further off however many are drawn, and
    whoever draws first: what is left of them is as near as what was taken.

    Seeded; the same arguments give the same prompts, and more `each` or `far` begin with the fewer. spread: so many
    far prompts at a time, among which the bank's entries come as often as in the long run.
    """
    items = [item for item in items if item.concept == concept.name] or list(items)
    captions = [item.caption for item in items]
    maker = _Maker(concept, bank, captions, {fingerprint(text) for text in avoid})
    rows: dict[Row, tuple[Ask, ...]] = {}
    wanted: tuple[Row, ...] = ("trained", *AXES)
    missing: dict[str, str] = {row: why for row in wanted if (why := maker.cannot(row))}
    able = [row for row in wanted if row not in missing]
    most = max(each, ceil(near / len(able)))
    for row in able:
        rng = shuffler(seed, "comparison prompts", use=purpose, row=row)
        order = rng.sample(items, len(items))
        asks = [maker.make(row, order[n % len(order)], rng, bank.groups, further=n < each) for n in range(most)]
        rows[row] = tuple(ask for ask in asks if ask is not None)
        if not rows[row]:
            del rows[row]
            missing[row] = "every such prompt is already used by a prior row or the controller"
    rng = shuffler(seed, "comparison prompts", use=purpose, row="far")
    sizes = [item.bucket for item in items]
    drawn = [tags for _ in range(0, far, max(spread, 1)) for tags in bank.spread(rng, spread)]
    asks = [maker.far(rng, sizes[n % len(sizes)], tags) for n, tags in enumerate(drawn[:far])]
    rows["far"] = tuple(ask for ask in asks if ask is not None)
    return Prompts(rows, majorities(captions, bank.groups), missing)


class _Maker:
    """Makes asks that nobody has used yet."""

    def __init__(self, concept: Concept, bank: Bank, captions: Sequence[str], used: set[frozenset[str]]) -> None:
        self.concept, self.bank, self.used = concept, bank, used
        self.seen = frozenset[str]().union(*(fingerprint(caption) for caption in captions))
        self.axes = {row: next((name for name in names if name in bank.groups), None) for row, names in AXES.items()}

    def cannot(self, row: Row) -> str | None:
        """Why this row makes no sense here, or None."""
        if row == "trained":
            return None
        if row == "style" and self.concept.kind == "style":
            return "the concept is itself a style"
        if row == "subject" and self.concept.kind == "character":
            return "the concept is itself a subject"
        if self.axes[row] is None:
            return f"the prompt bank {self.bank.name} has no group {' or '.join(AXES[row])}"
        return None if self._absent(str(self.axes[row])) else f"the set already has every {row} of the prompt bank"

    def make(
        self, row: Row, item: Item, rng: random.Random, groups: Mapping[str, Sequence[str]], further: bool = True
    ) -> Ask | None:
        """further: with one more tag changed where that is needed for a prompt that nobody has."""
        text = item.caption
        if self.concept.trigger and not has_trigger(text, self.concept.trigger):
            text = join_tags([*split_tags(self.concept.trigger), text] if text else split_tags(self.concept.trigger))
        axes = {name for name in self.axes.values() if name}
        free = [name for name in groups if name not in axes] or list(groups)
        for attempt in range(TRIES):
            swapped, added, removed = text, list[str](), list[str]()
            if row != "trained":
                group = str(self.axes[row])
                swapped, added, removed = self._swap(swapped, group, rng.choice(self._absent(group)))
            if row == "trained" or (further and attempt):  # a caption as it is may be a prior prompt
                group = rng.choice(self._present(text, free) or free)
                swapped, more, less = self._swap(swapped, group, rng.choice(list(groups[group])))
                added, removed = added + more, removed + less
            bare = self.concept.untriggered(swapped)
            if self._claim(bare):
                return Ask(row, swapped, bare, item.bucket, item.id, tuple(added), tuple(removed))
        return None

    def far(self, rng: random.Random, size: Size, tags: Sequence[str]) -> Ask | None:
        """These tags, or where they are none or somebody has them, what the bank draws."""
        for _ in range(TRIES):
            text, tags = join_tags(tags or self.bank.draw(rng)), ()
            if text and not any(has_trigger(text, own) for own in self.concept.triggers) and self._claim(text):
                return Ask("far", text, text, size)
        return None

    def _claim(self, bare: str) -> bool:
        key = fingerprint(bare)
        if not key or key in self.used:
            return False
        self.used.add(key)
        return True

    def _absent(self, group: str) -> list[str]:
        """Entries of a bank group that no caption of the set has any tag of that tells it apart."""
        entries = self.bank.groups[group]
        shared = (
            {plain(tag) for tag in set.intersection(*(set(split_tags(entry)) for entry in entries))}
            if entries
            else set()
        )
        return [e for e in dict.fromkeys(entries) if not (fingerprint(e) - shared or fingerprint(e)) & self.seen]

    def _present(self, text: str, groups: Sequence[str]) -> list[str]:
        """Those groups of which the caption has a tag (not part of the trigger)."""
        tags = fingerprint(self.concept.untriggered(text, class_word=False))
        return [g for g in groups if any(fingerprint(entry) & tags for entry in self.bank.groups[g])]

    def _swap(self, text: str, group: str, entry: str) -> tuple[str, list[str], list[str]]:
        """The caption with its tags of this group replaced by a bank entry; a sentence gets the entry added."""
        new = list(split_tags(entry))
        if is_sentence(text):
            return f"{text.rstrip(' .,')}, {join_tags(new)}", new, []
        members = {plain(tag) for other in self.bank.groups[group] for tag in split_tags(other)}
        tags = split_tags(text)
        old = [tag for tag in tags if plain(tag) in members and not has_trigger(tag, self.concept.trigger)]
        place = tags.index(old[0]) if old else len(tags)
        kept = [tag for tag in tags if tag not in old and tag not in new]
        place = sum(tag in kept for tag in tags[:place])
        return (
            join_tags([*kept[:place], *new, *kept[place:]]),
            [t for t in new if t not in tags],
            [t for t in old if t not in new],
        )
