"""Small steps and runs for tests of regularizers and of the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.data.cache import Cache
from tenuto.data.schedule import plan_updates
from tenuto.families.base import Base, Conditioning
from tenuto.families.process import from_alphas
from tenuto.prior.states import BasePath, State
from tenuto.randomness import noise
from tenuto.ranks import ALONE, Ranks
from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.step import At, Step
from tenuto.training.loop import Run
from tenuto.training.plan import Plan
from tenuto.training.rows import Row
from tenuto.training.settings import TrainingSettings
from tenuto.words import Role, Size

SQUARE, WIDE = Size(16, 16), Size(20, 12)
PROCESS = from_alphas(torch.linspace(0.9999, 0.005, 1000), "eps")
EVEN = torch.full((1000,), 1e-3)


@dataclass(frozen=True)
class Thing:
    """Stands in for an instance item or a prior image: named, in a bucket, with latents drawn by name."""

    id: str
    bucket: Size = SQUARE
    role: Role = "instance"
    concept: str = "c"
    repeats: int = 1
    caption: str = "a b"
    class_caption: str | None = None
    bare_caption: str | None = None
    mask: Tensor | None = None
    states: int = 0
    varied: bool = False

    def row(self, visit: int) -> Row:
        shape = (4, self.bucket.height // 2, self.bucket.width // 2)
        latents = noise(shape, 7, "thing", id=self.id)
        path = self.path() if self.states else None
        return Row(
            self.id, visit, self.role, self.bucket, self.caption, 1, latents, self.class_caption, self.bare_caption,
            self.mask, path, self.varied,
        )  # fmt: skip

    def prompt(self) -> str:
        return self.caption

    def path(self) -> BasePath:
        """A made-up base path."""
        return BasePath(self.caption, "", self.bucket, 1, self.states, self.state)

    def state(self, index: int) -> State:
        """A made-up state of a base path."""
        shape = (3, 4, self.bucket.height // 2, self.bucket.width // 2)
        x_t, answer, blank = noise(shape, 7, "state", id=self.id, index=index)
        return State(x_t, 100.0 + 200 * index, answer, blank)


def things(count: int, role: Role = "instance", bucket: Size = SQUARE) -> list[Thing]:
    return [Thing(f"{role}-{bucket}-{i}", bucket, role, caption=f"{role} {i}", **_more(role, i)) for i in range(count)]


def _more(role: Role, number: int) -> dict[str, Any]:
    """Instance things have other captions without the trigger."""
    if role == "prior":
        return {}
    return {"class_caption": f"dog {number}", "bare_caption": f"{number}"}


def make_run(
    base: Base,
    folder: Path,
    regularizers: Mapping[str, Regularizer] | None = None,
    *,
    items: Sequence[Thing] = (),
    prior: Sequence[Thing] = (),
    ratio: float = 1.0,
    steps: int = 4,
    parts: tuple[str, ...] = ("attention",),
    ranks: Ranks = ALONE,
    texts: Cache | None = None,
    **settings: object,
) -> Run:
    """A run on a fresh adapter, all draws decided by names."""
    items, prior = items or things(6), prior or things(8, "prior")
    given = {"watch_every": 0, "adapter": AdapterSettings(rank=4, parts=parts)} | settings
    own = TrainingSettings(steps=steps, batch=2, **given)
    wants = any(m.active() and m.needs_prior() for m in (regularizers or {}).values())
    updates = plan_updates(items, prior, batch=2, updates=steps, ratio=ratio if wants else 0.0, seed=3)
    return Run(
        base=base,
        adapter=Adapter.attach(base, own.adapter, 5),
        settings=own,
        regularizers=regularizers or {},
        updates=updates,
        sources={thing.id: thing for thing in (*items, *prior)},
        rows_per_epoch=len(items),
        sensor=[replace(thing, states=4).path() for thing in things(32, "prior", WIDE)],
        seed=3,
        folder=folder,
        plan=Plan({"test": 1}),
        ranks=ranks,
        texts=texts,
    )


def equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def hand_step(
    answers: Tensor, teacher: Tensor, target: Tensor, role: tuple[Role, ...], epoch: float = 0.0, **more: Any
) -> Step:
    """A step whose network answers what it is told to: row i's answer is `answers[i]`, the base's `teacher[i]`."""

    def model(x_t: Tensor, t: Tensor, cond: Conditioning, *, adapter: bool) -> Tensor:
        rows = t.long()
        return (answers if adapter else teacher)[rows]

    count = len(role)
    share = torch.tensor([1 / role.count(own) for own in role])
    texts: dict[At, tuple[str, ...]] = {"own": ("zxq",) * count, "class": ("dog",) * count}
    texts |= {"bare": ("",) * count, "blank": ("",) * count}
    given: dict[str, Any] = {
        "x_t": torch.zeros_like(target), "t": torch.arange(count), "target": target, "texts": texts,
        "told": lambda at, rows, *, adapter: Conditioning(torch.zeros(len(rows), 1, 1)),
        "role": role, "share": share, "ids": tuple(map(str, range(count))), "epoch": epoch,
        "marks": (frozenset[str](),) * count,
        "process": PROCESS, "chances": {"instance": EVEN, "prior": EVEN}, "model": model,
    }  # fmt: skip
    return Step(**(given | more))


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Distance over length, of all tensors together."""
    assert one.keys() == other.keys()
    away = sum(float((one[name].double() - other[name].double()).square().sum()) for name in one)
    return float((away / sum(float(one[name].double().square().sum()) for name in one)) ** 0.5)
