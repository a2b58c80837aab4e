"""How noise is added and what the network answers, as data.

x_t = a x0 + s n          the network answers  y = u x0 + w n          a, s: schedule at t; u, w: kind of answer

Symbols: x0 clean latents [B C H W], n standard normal noise [B C H W], t timesteps [B], a s u w [B 1 1 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tenuto.words import TenutoError

Prediction = Literal["eps", "v", "flow"]
Coefficients = tuple[Tensor, Tensor]

ANSWERS: dict[Prediction, Callable[[Tensor, Tensor], Coefficients]] = {
    "eps": lambda a, s: (torch.zeros_like(a), torch.ones_like(s)),  # Ho et al. 2020, arXiv:2006.11239
    "v": lambda a, s: (-s, a),  # Salimans and Ho 2022, arXiv:2202.00512
    "flow": lambda a, s: (-torch.ones_like(a), torch.ones_like(s)),  # Lipman et al. 2022, arXiv:2210.02747
}


@dataclass(frozen=True)
class Process:
    """Everything about noising follows from the schedule and the kind of answer."""

    prediction: Prediction
    schedule: Callable[[Tensor], Coefficients]
    """t [B] -> (a, s), each [B 1 1 1]."""
    steps: int = 1000
    """Training timesteps; t runs over 0 .. steps - 1 (a fraction for flow)."""

    def noisy(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t [B C H W]."""
        a, s = self.schedule(t)
        return a * x0 + s * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What a perfect network would answer [B C H W]."""
        u, w = ANSWERS[self.prediction](*self.schedule(t))
        return u * x0 + w * noise

    def x0(self, x_t: Tensor, answer: Tensor, t: Tensor) -> Tensor:
        """The clean latents that an answer implies: solves the two lines at the top for x0."""
        a, s = self.schedule(t)
        u, w = ANSWERS[self.prediction](a, s)
        return (w * x_t - s * answer) / (a * w - s * u)


def from_alphas(alphas_cumprod: Tensor, prediction: Prediction) -> Process:
    """A variance-preserving process: a = sqrt(alpha_bar_t), s = sqrt(1 - alpha_bar_t), t whole numbers.

    alpha_bar may end at 0 (zero terminal SNR) where v is answered: x0 is then -v. With eps it would be 0 / 0.
    """
    if prediction == "eps" and not bool((alphas_cumprod > 0).all()):
        raise TenutoError("the last timestep is noise alone, and eps says nothing about the picture there; answer v")

    def schedule(t: Tensor) -> Coefficients:
        alpha = alphas_cumprod.to(t.device)[t.long()].view(-1, 1, 1, 1)
        return alpha.sqrt(), (1 - alpha).sqrt()

    return Process(prediction, schedule, steps=len(alphas_cumprod))


def linear_flow(steps: int = 1000) -> Process:
    """Rectified flow: a = 1 - t, s = t with t in [0, 1] (Liu et al. 2022, arXiv:2209.03003)."""
    return Process("flow", lambda t: ((1 - t).view(-1, 1, 1, 1), t.view(-1, 1, 1, 1)), steps)
