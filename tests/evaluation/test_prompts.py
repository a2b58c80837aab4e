"""Comparison prompts: what is swapped, what stays, and that no training prompt comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenuto.data.bank import Bank
from tenuto.data.dataset import Concept, Item
from tenuto.data.tags import has_trigger
from tenuto.evaluation.prompts import Prompts, derive, fingerprint, majorities
from tenuto.words import Kind, Size

GROUPS = {
    "subject": ("1girl, solo", "1boy, solo"),
    "hair": ("red hair", "blue hair", "green hair", "black hair"),
    "place": ("city", "beach", "forest"),
    "view": ("from front", "from side"),
    "style": ("lineart", "flat color", "watercolor"),
}
BANK = Bank(GROUPS, dict.fromkeys(GROUPS, 1.0), name="test")
CAPTIONS = [
    "zxq eyes, 1girl, solo, red hair, city, from front, lineart",
    "zxq eyes, 1girl, solo, blue hair, city, from front, lineart",
    "zxq eyes, 1girl, solo, red hair, hat, city, lineart",
]
TRIGGER = "zxq eyes"


def item(n: int, caption: str) -> Item:
    return Item(str(n), Path(f"{n}.png"), caption, "crazy-eyes", Size(64, 64), Size(64, 64))


def made(
    kind: Kind = "concept",
    seed: int = 0,
    avoid: tuple[str, ...] = (),
    bank: Bank = BANK,
    purpose: str = "test",
    trigger: str = TRIGGER,
) -> Prompts:
    items = [item(n, caption) for n, caption in enumerate(CAPTIONS)]
    return derive(
        items, Concept("crazy-eyes", kind, trigger), bank, each=4, far=4, seed=seed, avoid=avoid, purpose=purpose
    )


def test_bias_is_the_majority_tag_per_group() -> None:
    assert majorities(CAPTIONS, GROUPS) == {
        "subject": "1girl",
        "hair": "red hair",
        "place": "city",
        "view": "from front",
        "style": "lineart",
    }
    assert majorities(["city", "beach"], GROUPS) == {}
    assert majorities([], GROUPS) == {}


@pytest.mark.parametrize(
    ("row", "gone"), [("style", "lineart"), ("place", "city"), ("view", "from front"), ("subject", "1girl")]
)
def test_each_row_asks_for_what_the_set_never_shows(row: str, gone: str) -> None:
    for ask in made().rows[row]:  # type: ignore[index]
        assert gone not in ask.tags
        assert ask.added[0] not in "".join(CAPTIONS)
        assert has_trigger(ask.text, TRIGGER)
        assert not has_trigger(ask.bare, TRIGGER)
        assert ask.text.startswith("zxq eyes, ")


def test_swaps_in_place_and_keeps_the_rest() -> None:
    ask = next(a for a in made().rows["subject"] if a.source == "2" and not set(a.removed) - {"1girl"})
    assert ask.bare == "1boy, solo, red hair, hat, city, lineart"


def test_no_training_prompt_comes_back_in_any_spelling() -> None:
    first = made()
    used = [" , ".join(reversed(text.upper().split(", "))) for text in first.texts()]
    second = made(avoid=tuple(used))
    keys = {fingerprint(text) for text in used}
    assert keys.isdisjoint(fingerprint(text) for text in second.texts())
    captions = [caption.removeprefix("zxq eyes, ") for caption in CAPTIONS]
    prompts = made(avoid=tuple(captions))
    assert {fingerprint(c) for c in captions}.isdisjoint(fingerprint(t) for t in prompts.texts())


def test_one_prompt_is_made_once() -> None:
    prompts = made()
    asks = [ask.bare for row in prompts.rows.values() for ask in row]
    assert len({fingerprint(text) for text in asks}) == len(asks)


def test_seeded_and_purposes_differ() -> None:
    assert made() == made()
    assert made().texts() != made(seed=1).texts()
    assert made().texts() != made(purpose="controller").texts()


def test_what_makes_no_sense_is_missing_with_a_reason() -> None:
    assert "itself a style" in made("style").missing["style"]
    assert "itself a subject" in made("character").missing["subject"]
    bank = Bank({"hair": GROUPS["hair"], "style": ("lineart",)}, {"hair": 1.0, "style": 1.0}, name="small")
    prompts = made(bank=bank)
    assert "no group place" in prompts.missing["place"]
    assert "already has every style" in prompts.missing["style"]


@pytest.mark.parametrize(("kind", "each"), [("concept", 2), ("style", 3)])
def test_near_prompts_are_as_many_where_a_row_is_missing(kind: Kind, each: int) -> None:
    items = [item(n, caption) for n, caption in enumerate(CAPTIONS)]
    asks = derive(items, Concept("c", kind, TRIGGER), BANK, each=1, near=10, far=1, seed=0)
    assert {len(own) for row, own in asks.rows.items() if row != "far"} == {each}


def test_few_prompts_are_the_first_of_many() -> None:
    items = [item(n, caption) for n, caption in enumerate(CAPTIONS)]
    few = derive(items, Concept("c", "concept", TRIGGER), BANK, each=2, near=5, far=1, seed=0)
    assert all(asks == made().rows[row][:2] for row, asks in few.rows.items() if row != "far")


def test_more_near_prompts_lie_no_further_off() -> None:
    """A row that is asked for is filled up with prompts that change one more tag; what is asked near the set is not."""
    items = [item(n, caption) for n, caption in enumerate(CAPTIONS)]
    filled, near = (
        derive(items, Concept("c", "concept", TRIGGER), BANK, each=each, near=60, far=1, seed=0).rows["place"]
        for each in (12, 0)
    )
    assert len(filled) == 12
    assert {len(ask.added) for ask in filled} == {1, 2}
    assert len(near) == 6, "three pictures, two places that they do not show"
    assert {ask.added for ask in near} == {("beach",), ("forest",)}


def test_far_prompts_owe_nothing_to_the_set() -> None:
    for ask in made().rows["far"]:
        assert ask.text == ask.bare
        assert not has_trigger(ask.text, TRIGGER)


def test_spread_far_prompts_are_balanced_so_many_at_a_time() -> None:
    items = [item(n, caption) for n, caption in enumerate(CAPTIONS)]
    asks = derive(items, Concept("c"), BANK, each=0, far=16, seed=0, spread=12).rows["far"]
    assert len({ask.text for ask in asks}) == 16
    first = [ask.text for ask in asks[:12]]
    for group in ("hair", "place", "style"):
        assert {sum(entry in text for text in first) for entry in GROUPS[group]} == {12 // len(GROUPS[group])}
    taken = derive(items, Concept("c"), BANK, each=0, far=16, seed=0, spread=12, avoid=first[:1]).rows["far"]
    assert [ask.text for ask in taken[1:12]] == first[1:]
    assert taken[0].text != first[0], "what is taken is drawn anew"


def test_caption_without_the_trigger_gets_it() -> None:
    asks = derive([item(0, "1girl, solo, city")], Concept("c", "concept", "qqq"), BANK, each=2, far=1, seed=0).rows[
        "trained"
    ]
    assert all(ask.text.startswith("qqq, ") and not has_trigger(ask.bare, "qqq") for ask in asks)


def test_without_any_trigger_both_texts_are_the_same() -> None:
    assert all(ask.text == ask.bare for ask in made(trigger="zzz").rows["far"])
    asks = derive([item(0, "1girl, solo, city")], Concept("c", "style", ""), BANK, each=2, far=1, seed=0).rows["place"]
    assert all(ask.text == ask.bare for ask in asks)


def test_no_concepts_trigger_is_asked_of_the_base() -> None:
    bank = Bank(GROUPS | {"hair": ("qwv", *GROUPS["hair"])}, BANK.chance)
    own = Concept("c", "concept", "qqq", others=("qwv",))
    asks = derive([item(0, "qqq, qwv, 1girl, city")], own, bank, each=4, far=16, seed=0)
    assert all(not has_trigger(ask.bare, "qwv") for row in asks.rows.values() for ask in row)
    assert any(has_trigger(ask.text, "qwv") for ask in asks.rows["trained"]), "it may stand beside the own one"


def test_sentences_get_the_new_tag_added() -> None:
    text = "A photo of zxq eyes on a woman who stands in the city at night."
    ask = derive([item(0, text)], Concept("c", "concept", TRIGGER), BANK, each=1, far=1, seed=0).rows["place"][0]
    assert ask.text.startswith("A photo of zxq eyes on a woman who stands in the city at night, ")
    assert ask.removed == ()


def test_near_alternates_rows() -> None:
    near = made().near()
    assert [ask.row for ask in near[:5]] == ["trained", "style", "place", "view", "subject"]
