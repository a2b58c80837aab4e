"""The mix: which rows make up every update of a run, as plain data, known before the first step.

Instance rows form one stream. Each epoch is a stretch of it in which every item stands exactly `repeats` times, and
the stream is cut into updates of `batch` rows, so only the very last update can be short. Within its epoch, rows are
ordered so that updates hold a single bucket wherever the numbers allow.

Prior rows join at `ratio` per instance row:      prior rows after u updates = floor(sum over rows of ratio(concept))

They come from the concept's own prior images (or from the shared ones, concept "", where it has none), in rounds: a
round uses every image once before the next begins (law 3). Within a round, the image for an instance row comes from
the same bucket; when that bucket is used up in this round, from the bucket that has most left.

The two streams are drawn apart: the instance rows are the same whatever the ratio.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Protocol

from tenuto.randomness import shuffler
from tenuto.words import Role, Size, TenutoError

Ratio = float | Mapping[str, float]
"""Prior rows per instance row: one number, or one per concept (absent: 0)."""


class InstanceItem(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def concept(self) -> str: ...
    @property
    def bucket(self) -> Size: ...
    @property
    def repeats(self) -> int: ...


class PriorItem(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def concept(self) -> str: ...
    @property
    def bucket(self) -> Size: ...


@dataclass(frozen=True)
class Draw:
    """One row."""

    id: str
    visit: int
    """How many rows of this item came before."""
    role: Role


@dataclass(frozen=True)
class Update:
    """The rows of one optimizer step: instance rows first, then prior rows."""

    draws: tuple[Draw, ...]

    def of(self, role: Role) -> tuple[Draw, ...]:
        return tuple(draw for draw in self.draws if draw.role == role)


@dataclass(frozen=True)
class Arithmetic:
    """How long a run is, in all its units."""

    rows_per_epoch: int
    batch: int
    updates: int
    instance_rows: int
    prior_rows: int

    @property
    def epochs(self) -> float:
        return self.instance_rows / self.rows_per_epoch if self.rows_per_epoch else 0.0


def arithmetic(
    items: Sequence[InstanceItem],
    *,
    batch: int,
    updates: int | None = None,
    epochs: int | None = None,
    ratio: Ratio = 0.0,
) -> Arithmetic:
    """The run's length without drawing anything. Prior rows are exact for whole epochs or one ratio for all."""
    per_epoch = sum(item.repeats for item in items)
    rows = _instance_rows(per_epoch, batch, updates, epochs)
    exact = _ratios(items, ratio)
    weighted = sum((exact[item.concept] * item.repeats for item in items), Fraction(0))
    prior = int(weighted * rows / per_epoch) if per_epoch else 0
    return Arithmetic(per_epoch, batch, -(-rows // batch), rows, prior)


def plan_updates(
    items: Sequence[InstanceItem],
    prior_items: Sequence[PriorItem] = (),
    *,
    batch: int,
    updates: int | None = None,
    epochs: int | None = None,
    ratio: Ratio = 0.0,
    seed: int,
) -> list[Update]:
    """Every update of the run. A pure function: same arguments, same plan; an update's number is where to resume.

    Give `updates` or `epochs`. Raises TenutoError when ids repeat, when there is nothing to train on, or when prior
    rows are asked for a concept that has no prior images.
    """
    _refuse_copies(items, "instance")
    _refuse_copies(prior_items, "prior")
    rows = _instance_rows(sum(item.repeats for item in items), batch, updates, epochs)
    ratios = _ratios(items, ratio)
    pools = _pools([concept for concept, value in ratios.items() if value], prior_items, seed)
    visits: Counter[tuple[Role, str]] = Counter()
    debts: dict[tuple[str, Size], Fraction] = defaultdict(Fraction)

    def draw(role: Role, name: str) -> Draw:
        visits[role, name] += 1
        return Draw(name, visits[role, name] - 1, role)

    plan = []
    stream = islice(_instance_stream(items, batch, seed), rows)
    while chunk := list(islice(stream, batch)):
        for item in chunk:
            debts[item.concept, item.bucket] += ratios[item.concept]
        names = [item.id for item in chunk]
        prior = [pools[concept].take(bucket) for concept, bucket in _called_in(debts)]
        plan.append(Update(tuple([draw("instance", name) for name in names] + [draw("prior", name) for name in prior])))
    return plan


def _instance_rows(per_epoch: int, batch: int, updates: int | None, epochs: int | None) -> int:
    if batch < 1:
        raise TenutoError(f"training.batch = {batch}: at least 1 row per update is needed")
    if (updates is None) == (epochs is None):
        raise TenutoError("training: give steps or epochs, one of them")
    rows = epochs * per_epoch if epochs is not None else (updates or 0) * batch
    if rows < 0:
        raise TenutoError(f"training: {updates if epochs is None else epochs} is negative; give 0 or more")
    if not per_epoch and (updates or epochs):
        raise TenutoError("training: no instance pictures to train on; check the concepts' `images` and `repeats`")
    return rows


def _ratios(items: Sequence[InstanceItem], ratio: Ratio) -> dict[str, Fraction]:
    """Per concept and exact: 0.1 means a tenth, not its nearest binary number."""
    concepts = {item.concept for item in items}
    given = ratio if isinstance(ratio, Mapping) else dict.fromkeys(concepts, ratio)
    for concept, value in given.items():
        if not 0 <= value < float("inf"):
            raise TenutoError(f"prior.ratio = {value} (concept {concept!r}): give a number of 0 or more")
    return {concept: Fraction(str(given.get(concept, 0))) for concept in sorted(concepts)}


def _refuse_copies(items: Iterable[InstanceItem] | Iterable[PriorItem], role: str) -> None:
    for name, count in Counter(item.id for item in items).items():
        if count > 1:
            raise TenutoError(f"{role} item {name} is listed {count} times; list it once (use repeats for more weight)")


def _pools(concepts: Iterable[str], prior_items: Sequence[PriorItem], seed: int) -> dict[str, _Rounds]:
    """Where each concept's prior rows come from. Concepts that share a pool share its rounds."""
    owners = {item.concept for item in prior_items}
    rounds: dict[str, _Rounds] = {}
    pools: dict[str, _Rounds] = {}
    for concept in concepts:
        owner = concept if concept in owners else ""
        if owner not in owners:
            remedy = "build them or set ratio = 0"
            raise TenutoError(f"concept {concept!r}: prior rows are asked for, but it has no prior images; {remedy}")
        if owner not in rounds:
            rounds[owner] = _Rounds([item for item in prior_items if item.concept == owner], owner, seed)
        pools[concept] = rounds[owner]
    return pools


def _called_in(debts: dict[tuple[str, Size], Fraction]) -> Iterator[tuple[str, Size]]:
    """Pay whole rows out of what all concepts and buckets are owed together, the largest debt first."""
    for _ in range(int(sum(debts.values()))):
        largest = max(debts, key=lambda key: debts[key])
        debts[largest] -= 1
        yield largest


def _instance_stream(items: Sequence[InstanceItem], batch: int, seed: int) -> Iterator[InstanceItem]:
    """Rows without end, epoch after epoch. The order within an epoch aims at updates of one bucket."""
    open_rows: list[InstanceItem] = []
    epoch = 0
    while True:
        ordered = _epoch(items, open_rows, batch, seed, epoch)
        yield from ordered
        kept = (len(open_rows) + len(ordered)) % batch
        open_rows = (open_rows + ordered)[-kept:] if kept else []
        epoch += 1


def _epoch(
    items: Sequence[InstanceItem], open_rows: Sequence[InstanceItem], batch: int, seed: int, epoch: int
) -> list[InstanceItem]:
    """One epoch's rows: first what completes the update left open, then whole updates, then the rest."""
    rng = shuffler(seed, "instance order", epoch=epoch)
    left: dict[Size, list[InstanceItem]] = defaultdict(list)
    for turn in range(max(item.repeats for item in items)):
        again = [item for item in items if item.repeats > turn]
        rng.shuffle(again)
        for item in again:
            left[item.bucket].append(item)

    first: list[InstanceItem] = []
    wanted = (batch - len(open_rows)) % batch if open_rows else 0
    same = {item.bucket for item in open_rows}
    for bucket in sorted(left, key=lambda size: (size not in same, -(len(left[size]) % batch), size)):
        taken = min(wanted - len(first), len(left[bucket]))
        first += left[bucket][:taken]
        left[bucket] = left[bucket][taken:]

    whole: list[list[InstanceItem]] = []
    rest: list[InstanceItem] = []
    for bucket in sorted(left, key=lambda size: (-(len(left[size]) % batch), size)):
        rows, full = left[bucket], len(left[bucket]) // batch * batch
        whole += [rows[at : at + batch] for at in range(0, full, batch)]
        rest += rows[full:]
    mixed = len(rest) // batch * batch
    whole += [rest[at : at + batch] for at in range(0, mixed, batch)]
    rng.shuffle(whole)
    return first + [item for rows in whole for item in rows] + rest[mixed:]


class _Rounds:
    """One pool of prior images, handed out in rounds. Lives inside plan_updates only."""

    def __init__(self, pool: Sequence[PriorItem], concept: str, seed: int) -> None:
        self.pool, self.concept, self.seed = pool, concept, seed
        self.round = 0
        self.left: dict[Size, list[str]] = {}

    def take(self, bucket: Size) -> str:
        if not self.left:
            self._deal()
        source = bucket if bucket in self.left else max(self.left, key=lambda size: (len(self.left[size]), size))
        name = self.left[source].pop()
        if not self.left[source]:
            del self.left[source]
        return name

    def _deal(self) -> None:
        rng = shuffler(self.seed, "prior order", concept=self.concept, round=self.round)
        for item in rng.sample(self.pool, len(self.pool)):
            self.left.setdefault(item.bucket, []).append(item.id)
        self.round += 1


@dataclass(frozen=True)
class Usage:
    """Which prior images a run uses, how often, and which it does not."""

    used: Counter[str]
    """id -> rows."""
    unused: tuple[str, ...]

    @property
    def draws(self) -> int:
        return self.used.total()

    @property
    def most(self) -> int:
        """Uses of the image that is used most."""
        return max(self.used.values(), default=0)

    @property
    def repeated(self) -> int:
        """Images that are used more than once."""
        return sum(count > 1 for count in self.used.values())


def usage(updates: Iterable[Update], prior_items: Sequence[PriorItem]) -> Usage:
    """What the plan does with the prior images."""
    used = Counter(draw.id for update in updates for draw in update.draws if draw.role == "prior")
    return Usage(used, tuple(item.id for item in prior_items if item.id not in used))
