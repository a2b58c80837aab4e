"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from tenuto.evaluation.metrics import METRICS
from tenuto.evaluation.metrics.additivity import additivity
from tenuto.evaluation.metrics.alignment import clip_t
from tenuto.evaluation.metrics.bake import bake
from tenuto.evaluation.metrics.bleed import style_bleed
from tenuto.evaluation.metrics.compliance import tag_compliance
from tenuto.evaluation.metrics.concept import concept_strength, fit, gain
from tenuto.evaluation.metrics.diversity import div, pres
from tenuto.evaluation.metrics.drift import bin_of, by_bin, drift, guided_drift, quantile, ratio
from tenuto.evaluation.metrics.fidelity import dino_i
from tenuto.evaluation.metrics.necessity import trigger_necessity
from tenuto.evaluation.metrics.selectivity import selectivity
from tenuto.evaluation.metrics.slider import power, spearman, until, usable_weight, while_rising
from tenuto.evaluation.readings import TAGGER_FEATURES, Evidence, Gap, Losses, Pair, Seen, gaps_from_json, gaps_to_json

TAGS = {"style": ("flat", "lineart"), "place": ("city", "beach"), "hat": ("crown", "cap"), "concepts": ("crazy eyes",)}


def seen(*pictures: tuple[float, float, float], hat: float = 0.0) -> Seen:
    """One (P lineart, P beach, P concept) per picture."""
    return Seen(
        TAGS,
        {
            "style": torch.tensor([[1.0 - line, line] for line, _, _ in pictures]),
            "place": torch.tensor([[1.0 - beach, beach] for _, beach, _ in pictures]),
            "hat": torch.tensor([[hat, 0.0] for _ in pictures]),
            "concepts": torch.tensor([[float(concept)] for _, _, concept in pictures]),
        },
        single=("style", "place"),
    )


def gap(d: float, g: float, kind: str = "near", t: float = 0.1, prompt: str = "p", **more: float) -> Gap:
    return Gap(prompt=prompt, kind=kind, t=t, d=d, du=more.pop("du", 0.0), g=g, dg=more.pop("dg", d), **more)


class TestDrift:
    def test_is_a_ratio_of_sums_and_no_mean_of_ratios(self) -> None:
        assert ratio([gap(1, 1), gap(1, 9)]) == pytest.approx(0.2)  # (1 + 1) / (1 + 9), not (1 + 1/9) / 2

    def test_scale_free_and_split_free(self) -> None:  # no. 22
        gaps = [gap(0.3, 2.0, t=0.05), gap(0.1, 0.7, t=0.6), gap(0.9, 3.0, t=0.9)]
        scaled = [replace(g, d=g.d * 49, g=g.g * 49) for g in gaps]
        assert ratio(scaled) == pytest.approx(ratio(gaps), rel=1e-12)
        assert ratio(list(reversed(gaps))) == pytest.approx(ratio(gaps), rel=1e-12)
        parts = [(sum(g.d for g in part), sum(g.g for g in part)) for part in (gaps[:1], gaps[1:])]
        assert sum(d for d, _ in parts) / sum(g for _, g in parts) == pytest.approx(ratio(gaps), rel=1e-12)

    def test_at_one_t_the_same_in_eps_and_v_form(self) -> None:  # no. 22
        torch.manual_seed(0)
        f_th, f_0, u_0, x_t = torch.randn(4, 6, dtype=torch.float64)
        a = 0.6

        def in_v(eps: Any) -> Any:  # v = a eps - s x0 = (eps - s x_t) / a
            return (eps - 0.8 * x_t) / a

        def nd(one: Any, base: Any, empty: Any) -> float:
            found = ratio([gap(float((one - base).square().sum()), float((base - empty).square().sum()))])
            assert found is not None
            return found

        assert nd(in_v(f_th), in_v(f_0), in_v(u_0)) == pytest.approx(nd(f_th, f_0, u_0), rel=1e-12)

    def test_grows_with_the_square_of_strength_in_a_linear_network(self) -> None:  # no. 23
        torch.manual_seed(1)
        delta, g = torch.randn(2, 5)
        drifts = {
            s: ratio([gap(float((s * delta).square().sum()), float(g.square().sum()))]) or 0
            for s in (0.25, 0.5, 1.0, 2.0)
        }
        assert power(drifts) == pytest.approx(2.0, abs=0.01)

    @pytest.mark.parametrize("w", [1.0, 5.0, 7.0])
    def test_guided_equals_plain_when_both_branches_drift_alike(self, w: float) -> None:  # no. 23
        d = torch.tensor([0.3, -0.2])
        u = d.clone()
        guided = float((w * d - (w - 1) * u).square().sum())
        one = gap(float(d.square().sum()), 2.0, dg=guided)
        value = guided_drift(Evidence(gaps=(one,), guidance=w)).value
        assert value == pytest.approx(float(d.square().sum()) / (w * w * 2.0))
        if w == 1.0:
            assert value == pytest.approx(ratio([one]))

    def test_empty_prompt_takes_the_others_mean_effect_in_its_bin(self) -> None:  # no. 24
        gaps = [
            gap(0, 4.0, t=0.1),
            gap(0, 2.0, t=0.2),
            gap(0, 100.0, t=0.9),
            gap(6.0, 0.0, kind="empty", t=0.15, prompt=""),
        ]
        value = drift(Evidence(gaps=tuple(gaps)))
        assert value.detail["empty"] == pytest.approx(6.0 / 3.0)
        assert value.value == pytest.approx(6.0 / (4 + 2 + 100 + 3))

    def test_only_the_empty_prompt_gives_no_number(self) -> None:
        assert drift(Evidence(gaps=(gap(1.0, 0.0, kind="empty"),))).value is None

    def test_bins_p95_and_floor(self) -> None:
        gaps = tuple(gap(d, 1.0, t=t, prompt=str(d)) for d, t in ((0.1, 0.1), (0.2, 0.3), (0.3, 0.6), (0.8, 0.99)))
        value = drift(Evidence(gaps=gaps, floor=0.05))
        assert value.value == pytest.approx(0.35 - 0.05)
        assert value.detail["bins"] == pytest.approx([0.1, 0.2, 0.3, 0.8])
        assert value.detail["worst_bin"] == pytest.approx(0.8)
        assert value.detail["p95"] == pytest.approx(0.3 + 0.85 * 0.5)
        assert [bin_of(t) for t in (0.0, 0.24, 0.25, 0.75, 1.0)] == [0, 0, 1, 3, 3]

    def test_bin_with_hardly_any_effect_is_floored(self) -> None:
        bins = by_bin([gap(1.0, 1e-9, t=0.1), gap(1.0, 100.0, t=0.6)])
        assert bins[0] == pytest.approx(1.0 / (0.01 * 100 / 4))

    def test_untouched_model_is_exactly_zero(self) -> None:
        assert drift(Evidence(gaps=(gap(0.0, 1.0),))).value == 0.0

    def test_style_without_trigger_is_undefined(self) -> None:
        value = drift(Evidence(gaps=(gap(1, 1),), style_concept=True, missing={"trigger": "none"}))
        assert value.value is None
        assert "style" in (value.reason or "")

    def test_quantile(self) -> None:
        assert quantile([3.0], 0.95) == 3.0
        assert quantile([0.0, 1.0], 0.95) == pytest.approx(0.95)

    def test_gaps_survive_json(self) -> None:
        gaps = (gap(1.0, 2.0, d_trigger=3.0, g_trigger=4.0),)
        assert gaps_from_json(gaps_to_json(gaps)) == gaps


class TestSelectivity:
    def test_decibels_of_signal_over_leak(self) -> None:
        value = selectivity(Evidence(gaps=(gap(0.1, 1.0, d_trigger=2.0, g_trigger=2.0),)))
        assert value.value == pytest.approx(10.0)  # 1.0 / 0.1
        assert value.detail["nR_trigger_removed"] == pytest.approx(0.1)

    def test_nothing_moved_is_not_infinite(self) -> None:
        value = selectivity(Evidence(gaps=(gap(0.0, 1.0, d_trigger=1.0, g_trigger=1.0),)))
        assert value.value is None
        assert value.reason is not None
        assert value.reason.startswith("n/a")


class TestConcept:
    def test_mean_over_pictures_of_the_unbiased_rows_only(self) -> None:
        rows = {"trained": seen((1, 0, 1.0)), "style": seen((0, 0, 0.2), (0, 0, 0.4)), "place": seen((0, 1, 0.9))}
        value = concept_strength(Evidence(arm=rows, concept="crazy eyes"))
        assert value.value == pytest.approx(0.5)
        assert value.detail["as_trained"] == pytest.approx(1.0)

    def test_reasons(self) -> None:
        assert concept_strength(Evidence(missing={"tagger": "no tagger"})).reason == "no tagger"
        assert "detector" in (concept_strength(Evidence(arm={"style": seen((0, 0, 0))})).reason or "")
        assert "bank" in (concept_strength(Evidence(concept="crazy eyes")).reason or "")

    def test_gain_fit_and_memorisation(self) -> None:
        evidence = Evidence(
            train=Losses((1.0, 1.0), (0.5, 0.7)),
            held_out=Losses((1.0,), (0.9,)),
            unbiased=Losses((0.5, 0.5), (0.5, 0.6)),
        )
        assert gain(evidence).value == pytest.approx(-0.05)
        assert fit(evidence).value == pytest.approx(0.1)
        assert fit(evidence).detail["memorisation"] == pytest.approx(0.3)
        assert gain(Evidence()).value is None
        assert fit(Evidence()).value is None


def test_bake_counts_changed_readings_outside_the_concept() -> None:
    base, arm = seen((0.1, 0.1, 0), (0.1, 0.9, 0)), seen((0.9, 0.1, 1), (0.9, 0.9, 1))
    evidence = Evidence(
        arm={"trained": arm},
        base={"trained": base},
        asked={"trained": (("city",), ("lineart",))},
        own={"style": "lineart"},
        concept_groups=frozenset({"hat"}),
    )
    value = bake(evidence)
    assert value.detail["groups"] == {"style": 1.0, "place": 0.0}
    assert value.value == pytest.approx(0.5)
    assert value.detail["towards_set"]["style"] == pytest.approx(0.8)  # only the first prompt does not ask for lineart
    assert bake(replace(evidence, arm={"trained": base})).value == 0.0


def test_bake_of_a_group_with_several_tags_is_per_tag() -> None:
    value = bake(
        Evidence(
            arm={"trained": seen((0, 0, 0), hat=0.9)},
            base={"trained": seen((0, 0, 0), hat=0.1)},
            asked={"trained": ((),)},
        )
    )
    assert value.detail["groups"]["hat"] == pytest.approx(0.5)


def test_style_bleed_lists_its_three_places() -> None:
    rows = {"without": seen((0.7, 0, 0)), "style": seen((0.5, 0, 0)), "second": seen((0.3, 0, 0))}
    base = {row: seen((0.1, 0, 0)) for row in rows}
    evidence = Evidence(arm=rows, base=base, asked=dict.fromkeys(rows, ((),)), own={"style": "lineart"})
    value = style_bleed(evidence)
    assert (value.detail["a"], value.detail["b"], value.detail["c"]) == pytest.approx((0.6, 0.4, 0.2))
    assert value.value == pytest.approx(0.4)
    asked = replace(evidence, asked=dict.fromkeys(rows, (("lineart",),)))
    assert "every prompt asks" in (style_bleed(asked).reason or "")
    assert "no one style" in (style_bleed(replace(evidence, own={})).reason or "")
    style = replace(evidence, style_concept=True, concept="crazy eyes")
    assert "b" not in style_bleed(style).detail


def test_tag_compliance_is_relative_to_the_base() -> None:
    asked = {"trained": (("lineart", "beach", "unreadable"), ("city",))}
    base, arm = seen((0.9, 0.9, 0), (0, 0.1, 0)), seen((0.9, 0.2, 0), (0, 0.9, 0))
    value = tag_compliance(Evidence(arm={"trained": arm}, base={"trained": base}, asked=asked))
    assert value.value == pytest.approx(1 / 3)
    assert value.detail["tags"] == 3
    nothing = tag_compliance(Evidence(arm={"trained": arm}, base={"trained": base}, asked={"trained": ((), ())}))
    assert nothing.value is None


def test_trigger_necessity() -> None:
    evidence = Evidence(arm={"trained": seen((0, 0, 0.8)), "without": seen((0, 0, 0.2))}, concept="crazy eyes")
    assert trigger_necessity(evidence).value == pytest.approx(0.75)
    weak = replace(evidence, arm={"trained": seen((0, 0, 0.01)), "without": seen((0, 0, 0.0))})
    assert trigger_necessity(weak).value is None
    assert trigger_necessity(replace(evidence, missing={"trigger": "no trigger"})).reason == "no trigger"


class TestSlider:
    def strip(self, compliance: Sequence[float], concept: Sequence[float]) -> Evidence:
        """Ten prompts asking for the beach; a share of them shows it."""
        strip = {
            float(s): seen(*[(0.0, 1.0 if n < round(10 * share) else 0.0, level) for n in range(10)])
            for s, (share, level) in enumerate(zip(compliance, concept, strict=True))
        }
        return Evidence(strip=strip, asked={"strip": (("beach",),) * 10}, concept="crazy eyes")

    def test_ends_where_prompts_are_no_longer_followed(self) -> None:
        value = usable_weight(self.strip([1.0, 1.0, 0.8], [0, 0.5, 1.0]))
        assert value.value == pytest.approx(1.5)  # 1.0 -> 0.8 crosses 0.9 half way
        assert value.detail["ends_by"] == "compliance"
        assert value.detail["few_prompts"]

    def test_ends_where_the_concept_falls(self) -> None:
        value = usable_weight(self.strip([1.0, 1.0, 1.0], [0, 0.9, 0.3]))
        assert value.value == pytest.approx(1.0)
        assert value.detail["ends_by"] == "concept"

    def test_whole_strip(self) -> None:
        assert usable_weight(self.strip([1.0, 1.0, 1.0], [0, 0.5, 0.9])).value == 2.0

    def test_needs_the_base(self) -> None:
        assert usable_weight(Evidence()).value is None

    def test_helpers(self) -> None:
        assert until([0, 1, 2], [0.8, 1, 1], 0.9) == 0
        assert while_rising([0, 1, 2, 3], [0, 1.0, 0.95, 1.1], [0.1] * 4) == 3
        assert spearman([1, 2, 3], [1, 5, 9]) == pytest.approx(1)
        assert spearman([1, 2, 3], [1, 1, 1]) is None
        assert power({1.0: 1.0}) is None


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_answers_nothing_with_a_reason(name: str) -> None:
    value = METRICS[name](Evidence(missing={"tagger": "no tagger"}))
    assert value.value is None
    assert value.reason


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_finite_for_an_untouched_model(name: str) -> None:
    rows = {row: seen((0.2, 0.7, 0.0), (0.6, 0.1, 0.0)) for row in ("trained", "without", "style", "place", "far")}
    asked = dict.fromkeys((*rows, "strip"), (("beach",), ("lineart",)))
    evidence = Evidence(
        arm=rows, base=rows | {"trigger": rows["trained"]}, asked=asked, strip={0.0: rows["style"], 1.0: rows["style"]},
        gaps=(gap(0.0, 1.0, d_trigger=0.0, g_trigger=1.0),), own={"style": "lineart"}, concept="crazy eyes",
    )  # fmt: skip
    value = METRICS[name](evidence)
    assert value.value is None or math.isfinite(value.value)


def test_seen_survives_json() -> None:
    one = seen((0.25, 0.5, 0.75))
    other = Seen.from_json(one.to_json())
    assert other.tags == one.tags
    assert other.single == one.single
    assert all(torch.equal(other.probabilities[g], one.probabilities[g]) for g in one.tags)


def directed(*degrees: float, encoder: str = "dino") -> Seen:
    """Pictures whose features point in these directions."""
    angles = torch.tensor(degrees).deg2rad()
    return Seen({}, {}, features={encoder: torch.stack([angles.cos(), angles.sin()], dim=1)})


class TestAdditivity:  # no. 25
    @staticmethod
    def error(own: Sequence[float], other: Sequence[float], both: Sequence[float]) -> float | None:
        """Of effects on a base that answers 3, 4."""
        base = torch.tensor([3.0, 4.0])
        pair = Pair.of(base, *(base + torch.tensor(effect) for effect in (own, other, both)))
        return additivity(Evidence(pairs=(pair,))).value

    def test_two_that_add_up_have_none(self) -> None:
        assert self.error((1, 2), (-4, 8), (-3, 10)) == 0

    def test_half_where_one_has_no_effect_beside_its_equal(self) -> None:
        assert self.error((3, 4), (0, 5), (3, 4)) == 0.5

    def test_one_where_two_that_have_nothing_in_common_cancel(self) -> None:
        assert self.error((3, 0), (0, 5), (0, 0)) == 1

    def test_is_symmetric_and_a_ratio_of_sums(self) -> None:
        assert self.error((0.1, 0.7), (0.3, -0.2), (0.9, 0.4)) == self.error((0.3, -0.2), (0.1, 0.7), (0.9, 0.4))
        value = additivity(Evidence(pairs=(Pair(1, 2, 3), Pair(5, 0, 1))))
        assert value.value == 4 / 8
        assert value.detail == {"share": 6 / 8, "states": 2, "disturbed": 4 / 2}

    def test_a_strong_one_hides_what_it_does_to_a_weak_one(self) -> None:
        strong = additivity(Evidence(pairs=(Pair(99, 1, 1),)))
        weak = additivity(Evidence(pairs=(Pair(1, 1, 0.1),)))
        assert (strong.value, strong.detail["disturbed"]) == (0.01, 1)
        assert (weak.value, weak.detail["disturbed"]) == (0.05, 0.1)
        assert "disturbed" not in additivity(Evidence(pairs=(Pair(1, 0, 0),))).detail

    def test_says_why_not(self) -> None:
        assert additivity(Evidence(missing={"second": "no second LoRA was named"})).reason == "no second LoRA was named"
        assert "neither" in str(additivity(Evidence(pairs=(Pair(0, 0, 0),))).reason)


class TestEncoders:
    def test_fidelity_is_the_mean_cosine_with_real_pictures(self) -> None:
        evidence = Evidence(
            arm={"trained": directed(0, 60), "style": directed(90)},
            base={"trained": directed(90, 90)},
            real={"dino": directed(0, 90).features["dino"]},
        )
        value = dino_i(evidence)
        assert value.value == pytest.approx((1 + 0 + 0.5 + math.sqrt(0.75)) / 4)
        assert value.detail["base"] == pytest.approx(0.5)
        assert value.detail["elsewhere"] == pytest.approx(0.5)
        assert value.detail["real"] == pytest.approx(0, abs=1e-6)
        assert dino_i(replace(evidence, missing={"dino": "none"})).reason == "none"

    def test_alignment_goes_picture_by_picture(self) -> None:
        evidence = Evidence(
            arm={"trained": directed(0, 90, encoder="clip")},
            base={"trained": directed(90, 90, encoder="clip")},
            prompts={"trained": directed(0, 90, encoder="clip").features["clip"]},
        )
        value = clip_t(evidence)
        assert value.value == pytest.approx(1)
        assert value.detail["base"] == pytest.approx(0.5)

    def test_the_class_turning_into_the_concept_is_seen(self) -> None:
        evidence = Evidence(
            arm={"without": directed(0, 0, 60, 60)},
            base={"without": directed(60, 0, 90, 90)},
            asked={"without": (("a",), ("b",), ("a",), ("b",))},
            real={"dino": directed(0).features["dino"]},
        )
        assert pres(evidence).value == pytest.approx((1 + 1 + 0.5 + 0.5) / 4 - (0.5 + 1 + 0 + 0) / 4)
        assert div(evidence).value == pytest.approx(0.5 / ((1 - math.sqrt(0.75) + 1) / 2))  # pairs of "a", pairs of "b"
        assert div(replace(evidence, arm={"without": directed(5, 5, 5, 5)})).value == pytest.approx(0, abs=1e-6)
        once = replace(evidence, asked={"without": (("a",), ("b",), ("c",), ("d",))})
        assert "two noise seeds" in str(div(once).reason)
        assert (pres(evidence).detail["read_by"], div(evidence).detail["read_by"]) == ("DINO", "DINO")

    def test_a_taggers_features_stand_in_for_dino(self) -> None:
        def both(*degrees: float) -> Seen:
            """To the tagger, all pictures are one."""
            own = directed(*[0] * len(degrees), encoder=TAGGER_FEATURES).features
            return replace(directed(*degrees), features={**directed(*degrees).features, **own})

        named = Evidence(
            arm={"without": both(60, 60)},
            base={"without": both(90, 90)},
            asked={"without": (("a",), ("b",))},
            real=both(0).features,
        )
        assert pres(named).value == pytest.approx(0.5)
        assert pres(named).detail["read_by"] == "DINO"
        unnamed = replace(
            named, real={TAGGER_FEATURES: both(0).features[TAGGER_FEATURES]}, missing={"dino": "no DINO was named"}
        )
        assert pres(unnamed).value == pytest.approx(0)
        assert pres(unnamed).detail["read_by"] == "the tagger's features"
        assert "two noise seeds" in str(div(unnamed).reason)
        assert pres(replace(unnamed, real={})).reason == "no DINO was named"
        assert dino_i(unnamed).reason == "no DINO was named"
