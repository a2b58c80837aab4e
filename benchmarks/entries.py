"""Who takes part in the leaderboard: every method of the catalogue at several strengths, and the trivial baselines.

A method that is added to the catalogue takes part by itself: its weight is swept around its own default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from benchmarks.ready import ADAPTER, PLAIN, Way
from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.cached_prior import CachedPrior
from tenuto.regularizers.catalogue import REGULARIZERS

FACTORS = (0.25, 1.0, 4.0)
"""The strengths that are tried, as multiples of the method's default; those that it does not allow are left out."""
SWEPT: dict[str, tuple[str, tuple[float, ...]]] = {
    "drift_controller": ("budget", (0.05, 0.1, 0.2)),
    "max_norm": ("limit", (0.25, 1.0, 4.0)),
    "ema_average": ("decay", (0.9, 0.99, 0.999)),
    "timestep_window": ("high", (0.6, 0.8, 0.9)),
}
"""Methods whose strength is another setting than their weight: the setting and its values, the usual one second."""
COMPANY: Mapping[str, Regularizer] = {"cached_prior": CachedPrior()}
"""Beside methods that do nothing alone."""
POOL, RATIO = 8, 0.5
"""Prior images per picture and prior rows per instance row of methods that read the images; for those that read kept
states they follow from the weight, as in anybody's project."""
MORE_POOLS = {"prior_preservation": {50: 0.625}}
"""Further pools with their ratios: the article's x50, each image used once."""
LOWER_RANKS = (2, 4)
ADAPTERS: Mapping[str, Mapping[str, Any]] = {
    "DoRA": {"dora": True}, "LoHa": {"kind": "loha"}, "LoKr": {"kind": "lokr"}, "OFT": {"kind": "oft"},
    "BOFT": {"kind": "boft"},
}  # fmt: skip
"""Other kinds, without regularization, at the plain LoRA's rank and learning rate, which may not suit them."""


@dataclass(frozen=True)
class Entry:
    """One way of training on the board."""

    method: str
    """Its row: a method of the catalogue, or a baseline."""
    strength: str
    way: Way

    @property
    def label(self) -> str:
        return f"{self.method}, {self.strength}" if self.strength else self.method


def entries(*, usual_only: bool = False, only: tuple[str, ...] = ()) -> list[Entry]:
    """Everyone who takes part; `usual_only`: each method at its usual strength alone."""
    found = [Entry(PLAIN, "", Way())]
    found += [_plain(f"rank {rank}", {"rank": rank}) for rank in LOWER_RANKS]
    found += [_plain(kind, own) for kind, own in ADAPTERS.items() if not only]
    for name, method in REGULARIZERS.items():
        if not why_not(name) and (not only or name in only):
            found += _of(name, method, usual_only)
    return found


def _plain(what: str, adapter: Mapping[str, Any]) -> Entry:
    return Entry(f"{PLAIN}, {what}", "", Way(training={"adapter": {**ADAPTER, **adapter}}))


def why_not(name: str) -> str | None:
    """Why a method cannot take part; None: it does."""
    if REGULARIZERS[name]().needs_masks():
        return "needs masks, and the ready sets have none"
    return None


def _of(name: str, method: type[Regularizer], usual_only: bool) -> Iterator[Entry]:
    for field, value in _strengths(name, method, usual_only):
        own = {name: method.model_validate({field: value})}
        together = {**(COMPANY if _lonely(own[name]) else {}), **own}
        for more, pool in _pools(name, together).items():
            yield Entry(name + more, f"{field} {value:g}", pool._replace(methods=together))


def _pools(name: str, together: Mapping[str, Regularizer]) -> dict[str, Way]:
    """What is added to the row's name, and the prior set of that row."""
    using = [own for own in together.values() if own.needs_prior()]
    if not using:
        return {"": Way()}
    if all(own.needs_states() for own in using):
        return {"": Way(None, None, steps=None)}
    more = MORE_POOLS.get(name, {})
    return {f", x{pool}" if more else "": Way(pool, ratio) for pool, ratio in {POOL: RATIO, **more}.items()}


def _lonely(method: Regularizer) -> bool:
    return method.needs_company() or (method.needs_sensor() > 0 and not method.holds())


def _strengths(name: str, method: type[Regularizer], usual_only: bool) -> list[tuple[str, float]]:
    if name in SWEPT:
        field, values = SWEPT[name]
        return [(field, values[1])] if usual_only else [(field, value) for value in values]
    usual = method().weight
    tried = [usual * factor for factor in ((1.0,) if usual_only else FACTORS)]
    return [("weight", weight) for weight in tried if _allowed(method, {"weight": weight})]


def _allowed(method: type[Regularizer], settings: dict[str, Any]) -> bool:
    try:
        method.model_validate(settings)
    except ValidationError:
        return False
    return True
