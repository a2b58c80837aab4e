"""Who takes part in the leaderboard: every method of the catalogue, every kind of adapter, and the trivial baselines.

Each method's strength is tried first (`tried`), then all stand on the board at one strength each (`entries`). A method
that is added to the catalogue takes part by itself: its weight is tried around its own default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from benchmarks.ready import PLAIN, Way
from tenuto.cli.demo import SETTINGS
from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.cached_prior import CachedPrior
from tenuto.regularizers.catalogue import REGULARIZERS
from tenuto.regularizers.trigger_contrast import TriggerContrast

FACTORS = (0.25, 1.0, 4.0)
"""The strengths that are tried, as multiples of the method's default; those that it does not allow are left out."""
FURTHER: Mapping[str, tuple[float, ...]] = dict.fromkeys(
    ("prior_prediction", "cached_prior", "output_preservation"), (16.0,)
)
"""Further factors for methods that did best at the last of these."""
SWEPT: dict[str, tuple[float, ...]] = {
    "drift_controller": (0.1, 0.2, 0.4),
    "trigger_contrast": (0.1, 0.4, 1.6, 6.4),
    "gram_penalty": (1.0, 30.0, 300.0),
    "max_norm": (0.25, 1.0, 4.0),
    "noise_offset": (0.05,),
    "multires_noise": (0.3,),
    "ema_average": (0.9, 0.99, 0.999),
    "timestep_window": (0.6, 0.8, 0.9),
}
"""Methods whose strength (their `dial`) is no weight, or is tried at other values than around its default; the middle
one stands on a quick board. Those that do not regularize are not tried."""
ADAPTER: Mapping[str, Any] = SETTINGS["training"]["adapter"]
RATE: float = SETTINGS["training"]["optimizer"]["lr"]
SHARE = 0.1
ALONE: Mapping[str, Mapping[str, Any]] = {"trigger_contrast": {"share": SHARE}}
"""Settings of methods whose defaults are meant for company."""
COMPANY: Mapping[str, Regularizer] = {"cached_prior": CachedPrior()}
"""Beside methods that do nothing alone."""
TOGETHER: Mapping[str, float] = {
    "cached_prior with trigger_contrast": 1.0,
    "cached_prior with trigger_contrast, half of each": 0.5,
}
"""Rows of two methods, one that holds where the base draws and one where the user's pictures are: name -> which share
of the rows of each. The weight of the second is tried."""
CONTRASTS = (0.1, 0.4, 1.6)
POOL, RATIO = 8, 0.5
"""Prior images per picture and prior rows per instance row of methods that read the images; for those that read kept
states they follow from the weight, as in anybody's project."""
MORE_POOLS = {"prior_preservation": {50: 0.625}}
"""Further pools with their ratios: the article's x50, each image used once. Only where everyone takes part: it is
dear, and no better than x8 or x25 where it was measured (docs/findings.md)."""
DEFAULT = "default"
"""What a project is held by that names no method: another one for a style."""
LIGHT = "cached_prior, light"
"""What a project without a trigger is held by that names no method."""
LOWER_RANKS = (4, 2)
"""The second one only where everyone takes part."""
LOWER_RATE = 5e-4
"""The plain LoRA's best on the validation concept (docs/evidence/learning-rate.json): it shall be no straw man."""
ADAPTERS: Mapping[str, Mapping[str, Any]] = {
    "DoRA": {"dora": True}, "LoHa": {"kind": "loha"}, "LoKr": {"kind": "lokr"}, "OFT": {"kind": "oft"},
    "BOFT": {"kind": "boft"},
}  # fmt: skip
"""Other kinds, without regularization, at the plain LoRA's rank; what is tried is their learning rate, for the plain
LoRA's may not suit them."""


@dataclass(frozen=True)
class Entry:
    """One way of training on the board."""

    method: str
    """Its row: a method of the catalogue, or a baseline."""
    strength: str
    way: Way
    name: str = ""
    """In the catalogue, or of the kind of adapter; empty: a baseline."""
    value: float | None = None
    """The strength as a number."""

    @property
    def label(self) -> str:
        return f"{self.method}, {self.strength}" if self.strength else self.method


def tried(only: Sequence[str] | None = None) -> list[Entry]:
    """The plain LoRA, and every method at each of its strengths: with further pools it takes the same one."""
    return [Entry(PLAIN, "", Way())] + [
        next(_at(name, value)) for name in _taking_part(only) for value in strengths(name)
    ]


def entries(chosen: Mapping[str, float], only: Sequence[str] | None = None) -> list[Entry]:
    """Everyone on the board: the baselines, and each method at its chosen strength; or just some of the methods, and
    what they have to be better than."""
    most = None if only is None else 1
    found = [Entry(PLAIN, "", Way())]
    found += [_plain(f"rank {rank}", adapter={**ADAPTER, "rank": rank}) for rank in LOWER_RANKS[:most]]
    found += [_plain(f"rate {LOWER_RATE:g}", optimizer={"lr": LOWER_RATE})]
    found += [Entry(DEFAULT, "", Way(None, None, None, steps=None))]
    found += [Entry(LIGHT, "weight 0.1", Way(None, None, {"cached_prior": CachedPrior(weight=0.1)}, steps=None))]
    methods = [[*_at(name, chosen[name])] for name in _taking_part(only)]
    return found + [entry for own in methods for entry in own[:most]]


def untried() -> dict[str, float]:
    """A strength for every method, without trying."""
    return {
        name: REGULARIZERS[name]().weight if name in REGULARIZERS and name not in SWEPT else _middle(strengths(name))
        for name in _taking_part(None)
    }


def _middle(values: Sequence[float]) -> float:
    return values[(len(values) - 1) // 2]


def strengths(name: str) -> list[float]:
    """The values of a method's strength that are tried."""
    if name in SWEPT:
        return list(SWEPT[name])
    if name in TOGETHER:
        return list(CONTRASTS)
    if name in ADAPTERS:
        return [RATE * factor for factor in FACTORS]
    method = REGULARIZERS[name]
    values = [method().weight * factor for factor in (*FACTORS, *FURTHER.get(name, ()))]
    return [value for value in values if _allowed(method, {"weight": value})]


def _taking_part(only: Sequence[str] | None) -> list[str]:
    alone = [name for name in REGULARIZERS if not why_not(name)]
    return [name for name in (*alone, *TOGETHER, *ADAPTERS) if only is None or name in only]


def _plain(what: str, **training: Mapping[str, Any]) -> Entry:
    return Entry(f"{PLAIN}, {what}", "", Way(training=training))


def company() -> dict[str, str]:
    """The methods that are measured beside another one -> the label of that one alone."""
    (name,) = COMPANY
    alone = next(_at(name, COMPANY[name].weight)).label
    return {own: alone for own in REGULARIZERS if REGULARIZERS[own]().idle_alone()}


def why_not(name: str) -> str | None:
    """Why a method cannot take part; None: it does."""
    if REGULARIZERS[name]().needs_masks():
        return "needs masks, and the ready sets have none"
    return None


def _at(name: str, value: float) -> Iterator[Entry]:
    """A method at a strength, in each of its pools."""
    if name in TOGETHER:
        yield Entry(name, f"weights {CachedPrior().weight:g} and {value:g}", _both(TOGETHER[name], value), name, value)
        return
    if name in ADAPTERS:
        training = {"adapter": {**ADAPTER, **ADAPTERS[name]}, "optimizer": {"lr": value}}
        yield Entry(f"{PLAIN}, {name}", f"rate {value:g}", Way(training=training), name, value)
        return
    field = REGULARIZERS[name].dial
    own = {name: REGULARIZERS[name].model_validate({**ALONE.get(name, {}), field: value})}
    together = {**(COMPANY if own[name].idle_alone() else {}), **own}
    for more, pool in _pools(name, together).items():
        yield Entry(name + more, f"{field} {value:g}", pool._replace(methods=together), name, value)


def _both(share: float, weight: float) -> Way:
    prior, contrast = CachedPrior(), TriggerContrast(weight=weight, share=share * SHARE)
    methods = {"cached_prior": prior, "trigger_contrast": contrast}
    return Way(None, share * prior.usual_ratio(), steps=None, methods=methods)


def _pools(name: str, together: Mapping[str, Regularizer]) -> dict[str, Way]:
    """What is added to the row's name, and the prior set of that row."""
    using = [own for own in together.values() if own.needs_prior()]
    if not using:
        return {"": Way()}
    if all(own.needs_states() for own in using):
        return {"": Way(None, None, steps=None)}
    more = MORE_POOLS.get(name, {})
    return {f", x{pool}" if more else "": Way(pool, ratio) for pool, ratio in {POOL: RATIO, **more}.items()}


def _allowed(method: type[Regularizer], settings: dict[str, Any]) -> bool:
    try:
        method.model_validate(settings)
    except ValidationError:
        return False
    return True
