"""The report: honest sentences, and one file that needs nothing else."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tenuto.evaluation.curve import Point, Quantity, Ratio
from tenuto.evaluation.record import Comparison, Number
from tenuto.evaluation.report import Extras, render, write_report
from tenuto.evaluation.tables import facts, table, unmeasured
from tenuto.evaluation.verdict import verdict
from tenuto.evaluation.wording import number_text
from tests.evaluation.made_up import made_up


def arms(
    drift: tuple[float | None, float | None],
    concept: tuple[float | None, float | None] = (0.8, 0.8),
    reason: str | None = None,
) -> Comparison:
    def one(n: int) -> dict[str, Number]:
        return {
            "drift": Number(mean=drift[n], reason=reason),
            "concept_strength": Number(mean=concept[n], reason=reason),
        }

    return Comparison(arms={"plain": one(0), "held": one(1)})


def ratio(
    mean: float | None,
    quantity: Quantity = "drift",
    seeds: tuple[float | None, ...] = (),
    interval: tuple[float, float] | None = None,
) -> Ratio:
    found = [value for value in seeds if value is not None]
    return Ratio(
        quantity=quantity, tolerance=0.02, mean=mean, per_seed=list(seeds), interval=interval, reached=len(found)
    )


@pytest.mark.parametrize(
    ("value", "tone", "words"),
    [(0.25, "good", "4.0 times less"), (0.95, "even", "about as much"), (1.6, "bad", "1.6 times more")],
)
def test_verdict_says_what_the_matched_numbers_say(value: float, tone: str, words: str) -> None:
    found = verdict(arms((1, value)).model_copy(update={"matched": [ratio(value, seeds=(value,))]}))
    assert found.tone == tone
    assert words in found.sentence
    assert found.sentence.startswith("At the same concept strength")


def test_verdict_admits_what_bake_says_against_it() -> None:
    found = verdict(arms((1, 1)).model_copy(update={"matched": [ratio(0.3, seeds=(0.3,)), ratio(1.5, "bake", (1.5,))]}))
    assert "but changes 1.5 times as many" in found.sentence


def test_verdict_admits_doubt_and_missing_seeds() -> None:
    found = verdict(
        arms((1, 1)).model_copy(update={"matched": [ratio(0.8, seeds=(0.4, None, 1.2), interval=(0.4, 1.2))]})
    )
    assert any("2 of 3 seeds" in text for text in found.caveats)
    assert any("no difference" in text for text in found.caveats)


@pytest.mark.parametrize(("held", "told"), [(0.79, False), (0.81, False), (0.78, True), (0.4, True)])
def test_verdict_says_when_the_held_concept_is_weaker_than_the_tolerance(held: float, told: bool) -> None:
    found = verdict(arms((1, 0.3), (0.8, held)).model_copy(update={"matched": [_met_below()]}))
    assert any("weaker as trained" in text for text in found.caveats) is told


def _met_below() -> Ratio:
    return ratio(0.3, seeds=(0.3,)).model_copy(update={"level": "weaker"})


def test_verdict_when_held_never_gets_there() -> None:
    points = {
        arm: [Point(step=1, strength=1.0, seed=0, concept=c, drift=1.0)] for arm, c in (("plain", 0.8), ("held", 0.4))
    }
    found = verdict(
        arms((1.0, 0.2), (0.8, 0.4)).model_copy(update={"curves": points, "matched": [ratio(None, seeds=(None,))]})
    )
    assert "never gets as strong" in found.sentence
    assert found.tone == "even"


def test_verdict_without_readings() -> None:
    assert verdict(arms((None, None), reason="no trigger")).sentence == "Drift could not be measured: no trigger."
    assert "did not move" in verdict(arms((0.0, 0.0))).sentence
    assert (
        verdict(arms((1.0, 0.5), (None, None), "no tagger"))
        .caveats[0]
        .startswith("Concept strength could not be measured (no tagger)")
    )
    assert verdict(Comparison(arms={"plain": {}})).tone == "unknown"


def test_numbers_as_people_read_them() -> None:
    assert number_text(0.1, "drift") == "0.10 (32 %)"
    assert number_text(0.0, "drift") == "0 (0 %)"
    assert number_text(0.314, "bake") == "31 %"
    assert (number_text(-0.004, "style_bleed"), number_text(-0.0002, "pres")) == ("0 %", "0.000"), "nothing has no sign"
    assert number_text(None) == "–"
    assert number_text(float("nan"), "drift") == "–"
    assert number_text(15840.0, "forwards") == "15 840"
    assert number_text(231.0, "seconds") == "3.9 min"


class Tags(HTMLParser):
    """Checks that what is opened is closed, and notes every address."""

    VOID = frozenset({"meta", "img", "br", "path", "use", "line", "rect", "input", "link", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_page_is_whole_small_and_needs_nothing_else(tmp_path: Path) -> None:
    comparison, extras = made_up(tmp_path)
    write_report(comparison, tmp_path, tmp_path / "report.html", extras)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert all(link.startswith(("data:image/webp;base64,", "#")) for link in tags.links)
    assert "<script" not in page
    assert len(page) < 4_000_000
    assert not re.search(r"#0[1-9a]0[2-9ab]0[3-9abc]", page.split("</style>", 1)[1])
    for words in (
        "Made-up numbers",
        "without “zxq eyes”",
        "prefers-color-scheme",
        "Turning the weight up",
        "pool: prior images",
        "2222",
    ):
        assert words in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert render(comparison, tmp_path, extras) == page


def test_hostile_text_is_escaped(tmp_path: Path) -> None:
    comparison, _ = made_up(tmp_path)
    evil = comparison.model_copy(
        update={"concept": {"name": "<script>alert(1)</script>", "kind": "concept", "trigger": "</b><script>"}}
    )
    assert "<script" not in render(
        evil, tmp_path, Extras(commands=("<script>",), notes=("<script>",), project="<script>")
    )


def test_bare_comparison_still_makes_a_page(tmp_path: Path) -> None:
    page = render(arms((None, None), (None, None), "no tagger"), tmp_path, Extras())
    assert "no tagger" in page


def test_what_no_arm_has_a_number_for_is_one_line_of_why() -> None:
    comparison = arms((None, None), (0.5, 0.4), "no predictions")
    assert unmeasured(comparison) == {"no predictions": ["Drift (nD)"]}
    assert [row["key"] for row in table(comparison)] == ["concept_strength"]


def test_the_first_screen_says_which_number_is_of_few_seeds() -> None:
    def arm(*usable: float | None) -> dict[str, Number]:
        return {"drift": Number(mean=0.1, per_seed=[0.1] * 3), "usable_weight": Number(mean=1.0, per_seed=list(usable))}

    comparison = Comparison(arms={"plain": arm(1.0, None, None), "held": arm(1.0, 1.0, None)})
    assert {fact["name"]: fact["seeds"] for fact in facts(comparison)} == {
        "Drift (nD)": "",
        "Usable weight": "1 of 3 seeds",
    }
