from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tenuto.data.bank import Bank
from tenuto.data.dataset import Concept, Item
from tenuto.data.tags import has_trigger
from tenuto.prior.prompts import PriorPrompt, PromptSettings, derive_prompts, lint, partial_filters, thinned
from tenuto.words import Size, TenutoError

EYES = Concept("eyes", trigger="zxq eyes")
BANK = Bank(
    {"subject": ("1boy",), "place": ("beach", "forest"), "outfit": ("dress",), "style": ("lineart",)},
    {"subject": 1.0, "place": 1.0, "outfit": 1.0, "style": 1.0},
)


def items(*captions: str, concept: str = "eyes") -> list[Item]:
    return [
        Item(f"{concept}{n}", Path(f"{n}.png"), caption, concept, Size(128, 128 + 32 * n), Size(128, 128))
        for n, caption in enumerate(captions)
    ]


def texts(captions: list[str], concept: Concept = EYES, **settings: object) -> list[str]:
    rules = PromptSettings(**settings)  # type: ignore[arg-type]
    return [prompt.text for prompt in derive_prompts(items(*captions), concept, BANK, rules)]


def test_match() -> None:
    prompts = derive_prompts(items("zxq eyes, 1girl, city", "1girl"), EYES, BANK, PromptSettings())
    assert prompts[0] == PriorPrompt(
        "1girl, city", "eyes0", "eyes", Size(128, 128), 0, ("zxq eyes",), (), "1girl, city", "match"
    )
    assert (prompts[1].text, prompts[1].removed, prompts[1].bucket) == ("1girl", (), Size(128, 160))


def test_defaults_by_kind() -> None:
    settings = PromptSettings()
    assert [settings.mode_for(kind) for kind in ("character", "concept", "clothing", "style")] == [
        "match", "match", "match", "random",
    ]  # fmt: skip
    assert PromptSettings(prompts="half").mode_for("style") == "half"


def test_none() -> None:
    assert texts(["zxq eyes, 1girl"], prompts="none") == []


def test_other_concepts_items_are_not_ours() -> None:
    assert derive_prompts(items("a, b", concept="hat"), EYES, BANK, PromptSettings()) == []


def test_class_word_and_other_triggers() -> None:
    dog = Concept("eyes", trigger="zxq", class_word="dog", others=("qvx hat",))
    prompts = derive_prompts(items("zxq, qvx hat, beach"), dog, BANK, PromptSettings())
    assert [prompt.text for prompt in prompts] == ["dog, beach"]


def test_networks_are_not_called() -> None:
    assert texts(["zxq eyes, <lora:zxq:0.8>, 1girl"]) == ["1girl"]


def test_filters_and_quality() -> None:
    caption = r"zxq eyes, masterpiece, highres, by wlop, saber \(fate\), red hair, 1girl, beach"
    every = ("artist", "meta", "character_name", "character_appearance", "copyright")
    assert texts([caption], filters=every) == ["1girl, beach"]
    assert texts([caption], filters=("meta",), quality=("masterpiece",)) == [
        r"masterpiece, by wlop, saber \(fate\), red hair, 1girl, beach"
    ]
    assert texts([caption], filters=every, prefix="masterpiece, best quality") == [
        "best quality, masterpiece, 1girl, beach"
    ]


def test_class_word_passes_filters() -> None:
    ears = Concept("eyes", trigger="zxq", class_word="cat ears")
    assert texts(["zxq, cat ears, red hair"], ears, filters=("character_appearance",)) == ["cat ears"]


def test_a_csv_completes_the_filter(tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text("wlop,1,9\n1girl,0,9\n")
    settings = PromptSettings(filters=("artist",), tag_csv=tmp_path / "tags.csv")
    prompts = derive_prompts(items("zxq eyes, wlop, 1girl"), EYES, BANK, settings)
    assert prompts[0].text == "1girl"
    assert partial_filters(prompts, settings) == []


def test_a_partial_filter_says_so() -> None:
    settings = PromptSettings(filters=("artist", "character_appearance"))
    prompts = derive_prompts(items("zxq eyes, wlop, 1girl", "1girl"), EYES, BANK, settings)
    first, second = partial_filters(prompts, settings)
    assert first.passed == ("1girl", "wlop")
    assert "partial" in str(first)
    assert "tag_csv" in str(first)
    assert "wlop" in str(second)


def test_unknown_filter() -> None:
    with pytest.raises(ValidationError, match="did you mean 'artist'"):
        PromptSettings(filters=("artists",))


def test_enrich() -> None:
    bare, placed, prose = texts(
        ["zxq eyes, smile", "zxq eyes, 1girl, city", "A tall girl with zxq eyes stands there alone."], enrich=True
    )
    assert bare in ("1girl, smile, beach", "1girl, smile, forest")  # 1girl: what the others show
    assert placed == "1girl, city"
    assert prose.split(", ")[-1] in ("beach", "forest")
    assert texts(["zxq eyes, smile"], Concept("eyes", trigger="zxq eyes", class_word="girl")) == ["girl, smile"]


def test_enrich_is_seeded_and_visible() -> None:
    def run(seed: int) -> list[PriorPrompt]:
        return derive_prompts(items("zxq eyes"), EYES, BANK, PromptSettings(enrich=True), seed=seed, per_image=9)

    assert run(1) == run(1)
    assert {prompt.added for prompt in run(1)} == {("beach",), ("forest",)}
    assert all(prompt.removed == ("zxq eyes",) for prompt in run(1))


def test_half() -> None:
    prompts = derive_prompts(
        items("zxq eyes, 1girl, a, b, c"), EYES, BANK, PromptSettings(prompts="half"), per_image=20
    )
    for prompt in prompts:
        tags = prompt.text.split(", ")
        mine = [tag for tag in tags if tag in ("1girl", "a", "b", "c")]
        assert (len(mine), len(tags)) == (2, 4)
        assert not {"1girl", "1boy"} <= set(tags)
    assert len({prompt.text for prompt in prompts}) > 3


def test_random_owes_nothing_to_the_caption() -> None:
    style = Concept("eyes", kind="style", trigger="dress")
    for text in texts(["dress, 1girl, night", "dress, sea"], style):
        assert text.split(", ")[0] == "1boy"
        assert not has_trigger(text, "dress")  # not even by chance


def test_own(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("# mine\n1girl, hat\n\n1boy\nsea\n")
    prompts = derive_prompts(items("zxq eyes", "b"), EYES, BANK, PromptSettings(prompts="own", own=path), per_image=3)
    assert sorted(prompt.text for prompt in prompts) == ["1boy", "1boy", "1girl, hat", "1girl, hat", "sea", "sea"]
    with pytest.raises(TenutoError, match=r"prior\.own"):
        texts(["a"], prompts="own")
    for content in (b"", b"# only this\n", b"\xff\xfe", b"a\0b"):
        path.write_bytes(content)
        with pytest.raises(TenutoError, match=r"own\.txt"):
            texts(["a"], prompts="own", own=path)


def test_captions_of_prior_rows() -> None:
    dog = Concept("eyes", trigger="zxq", class_word="dog")
    for captions, expected in (("full", "dog, beach"), ("class", "dog"), ("none", "")):
        (prompt,) = derive_prompts(items("zxq, beach"), dog, BANK, PromptSettings(captions=captions))  # type: ignore[arg-type]
        assert (prompt.text, prompt.caption) == ("dog, beach", expected)


def test_a_larger_pool_keeps_the_smaller() -> None:
    settings = PromptSettings(prompts="random")
    two = derive_prompts(items("a", "b"), EYES, BANK, settings, per_image=2)
    five = derive_prompts(items("a", "b"), EYES, BANK, settings, per_image=5)
    assert [prompt for prompt in five if prompt.copy < 2] == two


@given(
    st.lists(st.sampled_from([64, 96, 128]), min_size=1, max_size=40),
    st.integers(1, 40),
)
def test_a_thinned_pool_keeps_every_bucket_and_its_share(widths: list[int], total: int) -> None:
    prompts = [PriorPrompt(str(n), str(n), "eyes", Size(width, 64)) for n, width in enumerate(widths)]
    few = thinned(prompts, min(total, len(prompts)))
    assert [prompt for prompt in prompts if prompt in few] == few, "in order, each once"
    assert min(total, len(prompts)) <= len(few) < total + len(set(widths))
    for width in set(widths):
        share = sum(prompt.bucket.width == width for prompt in few) / len(few)
        assert share > 0
        assert abs(share - widths.count(width) / len(widths)) < len(set(widths)) / len(few)


def test_lint() -> None:
    def prompt(text: str, caption: str = "") -> PriorPrompt:
        return PriorPrompt(text, "i", "eyes", Size(1, 1), caption=caption)

    assert lint([prompt("1girl, city")], [EYES]) == []
    (problem,) = lint([prompt("1girl, Zxq_Eyes"), prompt("1girl, Zxq_Eyes")], [EYES])
    assert problem.level == "error"
    assert "leaks" in problem.what
    assert lint([prompt("1girl", "zxq eyes")], [EYES])[0].level == "error"
    (near,) = lint([prompt("zxqish")], [Concept("eyes", trigger="zxq")])
    assert near.level == "warning"


tags = st.lists(
    st.sampled_from(["zxq eyes", "zxq", "eyes", "zxq eyes girl", "1girl", "zxq_eyes", "(zxq eyes:1.3)", "hat"])
)


@given(tags, st.sampled_from(["match", "half", "random"]), st.booleans(), st.sampled_from(["", "girl"]))
def test_nothing_leaks(parts: list[str], mode: str, enrich: bool, class_word: str) -> None:
    concept = Concept("eyes", trigger="zxq eyes", class_word=class_word)
    settings = PromptSettings(prompts=mode, enrich=enrich)  # type: ignore[arg-type]
    prompts = derive_prompts(items(", ".join(parts)), concept, BANK, settings, per_image=2)
    assert not [problem for problem in lint(prompts, [concept]) if problem.level == "error"]
    assert all(part.strip() for prompt in prompts if prompt.text for part in prompt.text.split(","))
