"""The prior plan is arithmetic: sizes, names, batches, cost."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenuto.families.sampling import SamplerSettings
from tenuto.prior.plan import PlannedImage, PriorPlan, plan_prior
from tenuto.words import Size

SQUARE, WIDE = Size(16, 16), Size(24, 16)


@dataclass(frozen=True)
class Prompt:
    text: str
    source: str
    copy: int = 0
    concept: str = "eyes"
    bucket: Size = SQUARE
    caption: str = ""


def prompts(sources: int, copies: int, **more: object) -> list[Prompt]:
    made = [Prompt(f"picture {s}", f"item{s}", c) for s in range(sources) for c in range(copies)]
    return [replace(prompt, **more) for prompt in made]  # type: ignore[arg-type]


def plan_of(
    wanted: list[Prompt], *, steps: int = 25, guidance: float = 5.0, batch: int = 4, seed: int = 0
) -> PriorPlan:
    return plan_prior(wanted, SamplerSettings(steps=steps, guidance=guidance), seed=seed, batch=batch)


def one_pass(text: str) -> int:
    return 1


def test_the_articles_pool_and_its_cost() -> None:
    plan = plan_of(prompts(50, 50))
    assert len(plan.images) == len({image.id for image in plan.images}) == 2500
    assert len({image.seed for image in plan.images}) == 2500
    assert plan.forwards == 125_000
    assert plan_of(prompts(50, 50), guidance=1).forwards == 62_500
    # a pace of 1 µs per forward and pixel: 125,000 forwards x 256 pixels = 32 s
    assert plan.minutes(1e-6) == pytest.approx(32 / 60)
    assert plan.minutes(1e-6, plan.images[:250]) == pytest.approx(3.2 / 60)


def test_no_images_is_a_plan() -> None:
    plan = plan_of([])
    assert (plan.forwards, plan.batches(one_pass), plan.minutes(1.0), dict(plan.counts())) == (0, [], 0, {})


def test_a_larger_pool_starts_with_the_smaller() -> None:
    small, large = plan_of(prompts(3, 8)), plan_of(prompts(3, 50))
    assert large.images[: len(small.images)] == small.images
    kept = {batch.key for batch in small.batches(one_pass)}
    assert kept <= {batch.key for batch in large.batches(one_pass)}  # 8 is two batches of 4: none is made again


def test_one_more_picture_leaves_full_batches_alone() -> None:
    before = {batch.key for batch in plan_of(prompts(3, 9)).batches(one_pass)}
    after = {batch.key for batch in plan_of([*prompts(1, 9, source="new"), *prompts(3, 9)]).batches(one_pass)}
    assert len(before - after) <= 1  # the batch of leftovers
    assert len(before & after) == 6


def test_names_follow_from_what_decides_the_image() -> None:
    def first(plan: PriorPlan) -> PlannedImage:
        return plan.images[0]

    plain = first(plan_of(prompts(1, 1)))
    assert first(plan_of(prompts(1, 1))) == plain
    assert first(plan_of(prompts(1, 1, caption="1girl"))).id == plain.id
    others = [
        plan_of(prompts(1, 1), seed=1),
        plan_of(prompts(1, 1), steps=24),
        plan_of(prompts(1, 1), guidance=4.5),
        plan_of(prompts(1, 1, text="else")),
        plan_of(prompts(1, 1, bucket=WIDE)),
        plan_of(prompts(1, 1, concept="jar")),
        plan_prior(prompts(1, 1), SamplerSettings(steps=25, negative="bad"), seed=0, batch=4),
    ]
    assert len({plain.id, *(first(plan).id for plan in others)}) == 8
    assert first(plan_of(prompts(1, 1), batch=8)).id == plain.id


def test_names_are_those_of_older_stores() -> None:
    wanted = [Prompt("1girl, é", "s", 1, "c", Size(64, 96), "1girl")]
    fancy = SamplerSettings(sampler="euler", steps=8, guidance=4, negative="low “quality”, \\(a\\)")
    names = [plan_prior(wanted, sampler, seed=3, batch=4).images[0].id for sampler in (SamplerSettings(), fancy)]
    assert names == ["0d5e1a020dac9bc3e46e", "63e55816d2aef2294ddc"]


def test_doubles_give_one_image() -> None:
    assert len(plan_of([*prompts(2, 3), *prompts(2, 3)]).images) == 6


def test_batches_know_their_text() -> None:
    wanted = [Prompt("short", "a"), Prompt("long", "b"), Prompt("short too", "c")]
    plan = plan_prior(wanted, SamplerSettings(negative="longest"), seed=0, batch=4)
    lengths = {"short": 1, "short too": 1, "long": 2, "longest": 3}
    assert [(len(batch), batch.passes) for batch in plan.batches(lambda text: lengths[text])] == [(3, 3)]
    free = plan_prior(wanted, SamplerSettings(negative="longest", guidance=1), seed=0, batch=4)
    assert [(len(b), b.passes) for b in free.batches(lambda text: lengths[text])] == [(2, 1), (1, 2)]


@settings(max_examples=50, deadline=None)
@given(
    pools=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([SQUARE, WIDE]), st.integers(0, 9)), max_size=8),
    batch=st.integers(1, 5),
)
def test_batches_hold_every_image_once(pools: list[tuple[str, Size, int]], batch: int) -> None:
    wanted = [
        Prompt(f"{number}", f"item{number}", copy, concept, bucket)
        for number, (concept, bucket, count) in enumerate(pools)
        for copy in range(count)
    ]
    plan = plan_of(wanted, batch=batch)
    batches = plan.batches(lambda text: 1 + len(text) % 2)
    assert sorted(i.id for b in batches for i in b.images) == sorted(i.id for i in plan.images)
    assert len({b.key for b in batches}) == len(batches)
    for made in batches:
        assert 1 <= len(made) <= batch
        assert len({(image.concept, image.bucket) for image in made.images}) == 1
    assert sum(plan.counts().values()) == len(wanted)
    groups = {(i.concept, i.bucket, len(i.prompt) % 2) for i in plan.images}
    short = [b for b in batches if len(b) < batch]
    assert len(short) <= len(groups)  # at most one short batch each
