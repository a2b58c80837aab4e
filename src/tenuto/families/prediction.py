"""What the network answers (eps or v), and whether the last timestep is noise alone: found in the file, or told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tenuto.families.process import Prediction
from tenuto.words import TenutoError

Told = Literal["auto", "eps", "v"]

DIFFUSERS: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v"}
"""`prediction_type` in a diffusers scheduler config."""


@dataclass(frozen=True)
class Noising:
    """How a checkpoint's noise process differs from its family's."""

    prediction: Prediction
    zero_terminal_snr: bool = False
    """Betas rescaled so that x_T is noise alone (Lin et al. 2023, arXiv:2305.08891)."""
    why: str = "the family's rule"
    """Where that is known from."""

    def __str__(self) -> str:
        snr = " with zero terminal SNR" if self.zero_terminal_snr else ""
        return f"answers {self.prediction}{snr} (from {self.why})"

    def onto(self, scheduler: Mapping[str, Any]) -> dict[str, Any]:
        """A diffusers scheduler config that says so."""
        name = next(name for name, own in DIFFUSERS.items() if own == self.prediction)
        return {**scheduler, "prediction_type": name, "rescale_betas_zero_snr": self.zero_terminal_snr}


@dataclass(frozen=True)
class Wish:
    """[base] prediction and zero_terminal_snr: what the user says about the checkpoint."""

    prediction: Told = "auto"
    zero_terminal_snr: bool | None = None

    def over(self, found: Noising) -> Noising:
        """The user's word counts, the file's is the rest. A change of prediction drops what the file says of SNR."""
        if self.prediction == "auto" and self.zero_terminal_snr is None:
            return found
        prediction = found.prediction if self.prediction == "auto" else self.prediction
        snr = found.zero_terminal_snr and prediction == found.prediction
        return Noising(prediction, snr if self.zero_terminal_snr is None else self.zero_terminal_snr, "the project")


def noising_of_folder(scheduler: Mapping[str, Any]) -> Noising:
    """From a diffusers scheduler config."""
    kind = scheduler.get("prediction_type", "epsilon")
    if kind not in DIFFUSERS:
        raise TenutoError(
            f"scheduler_config.json: prediction_type {kind!r} is none of {', '.join(DIFFUSERS)}; "
            "mend it or set base.prediction"
        )
    return Noising(DIFFUSERS[kind], bool(scheduler.get("rescale_betas_zero_snr")), "scheduler_config.json")


def decided(name: str, found: Noising, wish: Wish) -> Noising:
    """What holds. Raises TenutoError for what no network can do."""
    noising = wish.over(found)
    if noising.zero_terminal_snr and noising.prediction == "eps":
        raise TenutoError(
            f"{name}: zero terminal SNR with eps: at the last timestep the noise says nothing about the picture; "
            'set base.prediction = "v" or base.zero_terminal_snr = false'
        )
    return noising
