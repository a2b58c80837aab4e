"""Laws 2 to 4 as the scheduler keeps them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenuto.data.schedule import Draw, Update, arithmetic, plan_updates, usage
from tenuto.words import Size, TenutoError

SQUARE, TALL, WIDE = Size(128, 128), Size(96, 160), Size(160, 96)


@dataclass(frozen=True)
class Thing:
    id: str
    concept: str = "eyes"
    bucket: Size = SQUARE
    repeats: int = 1


def things(prefix: str, count: int, concept: str = "eyes", bucket: Size = SQUARE, repeats: int = 1) -> list[Thing]:
    return [Thing(f"{prefix}{number}", concept, bucket, repeats) for number in range(count)]


def ids(updates: list[Update], role: str) -> list[str]:
    return [draw.id for update in updates for draw in update.draws if draw.role == role]


def test_by_hand() -> None:
    """One picture, one prior image: nothing is left to chance."""
    plan = plan_updates([Thing("a")], [Thing("p")], batch=2, updates=2, ratio=0.5, seed=0)
    first = Update((Draw("a", 0, "instance"), Draw("a", 1, "instance"), Draw("p", 0, "prior")))
    second = Update((Draw("a", 2, "instance"), Draw("a", 3, "instance"), Draw("p", 1, "prior")))
    assert plan == [first, second]


@pytest.mark.parametrize(
    ("ratio", "after_each"),
    [
        (0, [0, 0, 0, 0, 0, 0, 0, 0]),
        (0.1, [0, 0, 1, 1, 2, 2, 2, 3]),  # 4, 8, ... 28, 30 rows
        (0.5, [2, 4, 6, 8, 10, 12, 14, 15]),
        (1, [4, 8, 12, 16, 20, 24, 28, 30]),
        (5, [20, 40, 60, 80, 100, 120, 140, 150]),
    ],
)
def test_ratio_is_kept_after_every_update(ratio: float, after_each: list[int]) -> None:
    plan = plan_updates(things("a", 10), things("p", 7), batch=4, epochs=3, ratio=ratio, seed=3)
    assert [len(ids(plan[: end + 1], "prior")) for end in range(len(plan))] == after_each
    assert [len(update.of("instance")) for update in plan] == [4] * 7 + [2]


def test_ratio_is_exact_decimal() -> None:
    """0.29 x 100 is 29, although 0.29 * 100 is 28.999999999999996."""
    assert (
        len(ids(plan_updates(things("a", 10), things("p", 3), batch=10, epochs=10, ratio=0.29, seed=0), "prior")) == 29
    )


@pytest.mark.parametrize("ratio", [0, 0.5, 1, 5])
def test_instance_stream_ignores_the_prior(ratio: float) -> None:
    items = things("a", 5) + things("b", 4, bucket=TALL, repeats=2)
    alone = plan_updates(items, batch=4, epochs=4, seed=7)
    mixed = plan_updates(items, things("p", 9), batch=4, epochs=4, ratio=ratio, seed=7)
    assert [update.of("instance") for update in mixed] == [update.draws for update in alone]


def test_each_epoch_uses_each_item_repeats_times() -> None:
    items = things("a", 5) + things("b", 3, bucket=TALL, repeats=3) + things("c", 2, "hat", WIDE, repeats=2)
    names = ids(plan_updates(items, batch=4, epochs=6, seed=1), "instance")
    per_epoch = 5 + 9 + 4
    for epoch in range(6):
        counts = Counter(names[epoch * per_epoch : (epoch + 1) * per_epoch])
        assert counts == {item.id: item.repeats for item in items}
    assert names[:per_epoch] != names[per_epoch : 2 * per_epoch]


def test_updates_hold_one_bucket_where_possible() -> None:
    items = things("a", 8) + things("b", 4, bucket=TALL)
    plan = plan_updates(items, batch=4, epochs=5, seed=1)
    assert all(len({draw.id[0] for draw in update.draws}) == 1 for update in plan)


def test_only_unavoidable_updates_are_mixed() -> None:
    """5 + 3 rows at batch 4: one whole square update, and one of what is left (1 + 3)."""
    plan = plan_updates(things("a", 5) + things("b", 3, bucket=TALL), batch=4, epochs=3, seed=2)
    mixed = [update for update in plan if len({draw.id[0] for draw in update.draws}) > 1]
    assert len(plan) == 6
    assert len(mixed) == 3


def test_visits_count_up() -> None:
    plan = plan_updates(things("a", 3, repeats=2), things("p", 2), batch=4, epochs=3, ratio=1, seed=0)
    seen: Counter[tuple[str, str]] = Counter()
    for update in plan:
        for draw in update.draws:
            assert draw.visit == seen[draw.role, draw.id]
            seen[draw.role, draw.id] += 1
    assert seen["instance", "a0"] == 6


def test_every_prior_image_before_any_twice() -> None:
    """Three buckets, sizes that do not divide: after each whole round, all counts are equal."""
    pool = things("p", 5) + things("q", 3, bucket=TALL) + things("r", 2, bucket=WIDE)
    items = things("a", 7) + things("b", 2, bucket=TALL)
    names = ids(plan_updates(items, pool, batch=2, epochs=20, ratio=1, seed=4), "prior")
    for turn in range(len(names) // 10):
        assert Counter(names[turn * 10 : (turn + 1) * 10]) == dict.fromkeys((item.id for item in pool), 1)


def test_x50_is_used_once_each() -> None:
    """The article's recipe: 50 epochs, 50 prior images per picture."""
    pool = [Thing(f"p{item}-{copy}", bucket=SQUARE if item % 2 else TALL) for item in range(6) for copy in range(50)]
    items = [Thing(f"a{item}", bucket=SQUARE if item % 2 else TALL) for item in range(6)]
    plan = plan_updates(items, pool, batch=2, epochs=50, ratio=1, seed=0)
    report = usage(plan, pool)
    assert (report.draws, report.most, report.unused, report.repeated) == (300, 1, (), 0)
    buckets = {thing.id: thing.bucket for thing in [*items, *pool]}
    for update in plan:  # and each beside a picture of its own size
        assert Counter(buckets[d.id] for d in update.of("prior")) == Counter(
            buckets[d.id] for d in update.of("instance")
        )


def test_fall_back_is_the_fullest_bucket() -> None:
    """No tall prior image: the bucket with most left stands in."""
    pool = things("p", 2) + things("q", 1, bucket=WIDE)
    names = ids(plan_updates([Thing("a", bucket=TALL)], pool, batch=1, updates=3, ratio=1, seed=0), "prior")
    assert names[0].startswith("p")
    assert sorted(names) == ["p0", "p1", "q0"]


def test_concepts_draw_from_their_own_pool() -> None:
    items = things("a", 4, "eyes") + things("h", 2, "hat")
    pool = things("p", 5, "eyes") + things("q", 3, "hat")
    plan = plan_updates(items, pool, batch=3, epochs=4, ratio={"eyes": 1, "hat": 2.5}, seed=0)
    counts = Counter(name[0] for name in ids(plan, "prior"))
    assert counts == {"p": 16, "q": 20}


def test_a_shared_pool_is_shared_in_rounds() -> None:
    items = things("a", 4, "eyes") + things("h", 4, "hat")
    pool = things("s", 8, concept="")
    report = usage(plan_updates(items, pool, batch=2, epochs=1, ratio=1, seed=0), pool)
    assert report.used == dict.fromkeys((item.id for item in pool), 1)


def test_ratio_zero_needs_no_pool_and_others_do() -> None:
    assert len(plan_updates([Thing("a")], batch=1, updates=2, ratio=0, seed=0)) == 2
    with pytest.raises(TenutoError, match=r"'eyes'.*no prior images"):
        plan_updates([Thing("a")], batch=1, updates=2, ratio=1, seed=0)


def test_usage_tells_the_unused() -> None:
    pool = things("p", 10)
    report = usage(plan_updates(things("a", 4), pool, batch=2, epochs=1, ratio=1, seed=0), pool)
    assert report.draws == 4
    assert len(report.unused) == 6
    assert set(report.unused) | set(report.used) == {item.id for item in pool}


def test_seed_decides() -> None:
    def plan(seed: int) -> list[Update]:
        return plan_updates(things("a", 9), things("p", 9), batch=3, epochs=2, ratio=1, seed=seed)

    assert plan(1) == plan(1)
    assert plan(1) != plan(2)


def test_longer_run_begins_like_the_shorter() -> None:
    items, pool = things("a", 5) + things("b", 3, bucket=TALL), things("p", 9)
    long = plan_updates(items, pool, batch=4, updates=20, ratio=1.5, seed=5)
    assert plan_updates(items, pool, batch=4, updates=7, ratio=1.5, seed=5) == long[:7]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": 0, "epochs": 1}, "training.batch = 0"),
        ({"batch": 1}, "steps or epochs"),
        ({"batch": 1, "epochs": 1, "updates": 1}, "steps or epochs"),
        ({"batch": 1, "epochs": -1}, "negative"),
        ({"batch": 1, "epochs": 1, "ratio": -0.5}, "prior.ratio = -0.5"),
        ({"batch": 1, "epochs": 1, "ratio": float("nan")}, "prior.ratio = nan"),
    ],
)
def test_nonsense_is_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(TenutoError, match=message):
        plan_updates([Thing("a")], [Thing("p")], seed=0, **arguments)  # type: ignore[arg-type]


def test_no_pictures() -> None:
    assert plan_updates([], batch=2, epochs=0, seed=0) == []
    with pytest.raises(TenutoError, match="no instance pictures"):
        plan_updates([], batch=2, epochs=1, seed=0)


def test_copies_of_an_id_are_refused() -> None:
    with pytest.raises(TenutoError, match="listed 2 times"):
        plan_updates([Thing("a"), Thing("a")], batch=2, epochs=1, seed=0)


buckets = st.sampled_from([SQUARE, TALL, WIDE])
concepts = st.sampled_from(["eyes", "hat"])
items_of = st.lists(st.tuples(concepts, buckets, st.integers(1, 3)), min_size=1, max_size=9)
pool_of = st.lists(st.tuples(concepts, buckets), max_size=15)


@given(items_of, pool_of, st.integers(1, 6), st.integers(0, 9), st.sampled_from([0, 0.3, 1, 2.5]))
def test_laws(
    rows: list[tuple[str, Size, int]], pool_rows: list[tuple[str, Size]], batch: int, updates: int, ratio: float
) -> None:
    items = [Thing(f"a{n}", *row) for n, row in enumerate(rows)]
    pool = [Thing(f"p{n}", *row) for n, row in enumerate(pool_rows)] + [Thing("shared", "")]
    plan = plan_updates(items, pool, batch=batch, updates=updates, ratio=ratio, seed=1)
    assert len(plan) == updates
    for count, update in enumerate(plan, 1):
        assert len(update.of("instance")) == batch
        assert len(ids(plan[:count], "prior")) == int(str(ratio).replace(".", "")) * batch * count // 10 ** (
            len(str(ratio).partition(".")[2])
        )
    report = usage(plan, pool)
    length = arithmetic(items, batch=batch, updates=updates, ratio=ratio)
    assert report.draws == sum(report.used.values()) == length.prior_rows
    assert length.instance_rows == batch * updates
    for concept in {item.concept for item in items}:
        mine = [item.id for item in pool if item.concept == concept] or ["shared"]
        counts = [report.used[name] for name in mine]
        assert max(counts) - min(counts) <= 1  # law 3
