"""Optimizers and learning-rate schedules: small settings that build the thing they describe."""

from __future__ import annotations

import contextlib
import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, ClassVar, Literal, final

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import nn
from torch.optim import AdamW, Optimizer

from tenuto.words import Settings, TenutoError

Betas = tuple[float, float]


class OptimizerSettings(Settings):
    """[training.optimizer]: how gradients become steps. `name` says which; each has settings of its own."""

    remembers: ClassVar[float]
    """What it keeps, in float32 numbers per trained number: the audit counts memory by it."""
    name: str
    """adamw, adamw_8bit, prodigy, adamw_schedulefree or adafactor."""
    lr: PositiveFloat
    """Learning rate after the warm-up."""
    weight_decay: NonNegativeFloat = 0.01
    """Decay of A and B, which for a LoRA pulls towards the base."""

    @abstractmethod
    def build(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """The optimizer itself."""

    @property
    @abstractmethod
    def title(self) -> str:
        """Its class and settings, as sd-scripts writes them into the header (ss_optimizer)."""

    def check(self) -> None:
        """Whether what it needs is installed. Raises TenutoError."""

    def rate(self, optimizer: Optimizer, asked: float) -> float:
        """The learning rate that is in force when `asked` is asked for."""
        return asked

    def schedulable(self) -> bool:
        """Whether it wants a learning rate that falls over the run."""
        return True

    @contextmanager
    def shipping(self, optimizer: Optimizer) -> Iterator[None]:
        """The parameters as they go into LoRA files, inside the block; bit for bit as trained afterwards."""
        yield


@final
class AdamWSettings(OptimizerSettings):
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101)."""

    remembers: ClassVar[float] = 2.0
    name: Literal["adamw"] = "adamw"
    lr: PositiveFloat = 1e-4
    betas: Betas = (0.9, 0.999)
    """Decay rates of the two moments."""

    def build(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        return AdamW(parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, fused=True)

    @property
    def title(self) -> str:
        return f"torch.optim.adamw.AdamW(weight_decay={self.weight_decay},betas={self.betas})"


@final
class AdamW8bitSettings(OptimizerSettings):
    """AdamW with both moments in 8 bits (Dettmers et al. 2022, arXiv:2110.02861): a quarter of their memory."""

    remembers: ClassVar[float] = 0.5
    name: Literal["adamw_8bit"] = "adamw_8bit"
    lr: PositiveFloat = 1e-4
    betas: Betas = (0.9, 0.999)
    """Decay rates of the two moments."""

    def build(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        kind = _extra("bitsandbytes", self.name).optim.AdamW8bit
        built: Optimizer = kind(parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)
        return built

    @property
    def title(self) -> str:
        return f"bitsandbytes.optim.adamw.AdamW8bit(weight_decay={self.weight_decay},betas={self.betas})"

    def check(self) -> None:
        _extra("bitsandbytes", self.name)


@final
class ProdigySettings(OptimizerSettings):
    """Prodigy (Mishchenko and Defazio 2023, arXiv:2306.06101): AdamW that finds its own learning rate.

    The rate in force is d * lr; d only grows, from `d0`, and stands in the log as part of `lr`.
    """

    remembers: ClassVar[float] = 4.0
    name: Literal["prodigy"] = "prodigy"
    lr: PositiveFloat = 1.0
    """A factor on the rate that it finds; leave it at 1."""
    betas: Betas = (0.9, 0.999)
    """Decay rates of the two moments."""
    d0: PositiveFloat = 1e-6
    """The first estimate."""
    d_coef: PositiveFloat = 1.0
    """A factor on the estimate: 0.5 is careful, 2 bold."""
    bias_correction: bool = True
    """Adam's bias correction."""
    safeguard_warmup: bool = True
    """Keep the warm-up out of the estimate."""

    def build(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        kind = _extra("prodigyopt", self.name).Prodigy
        with contextlib.redirect_stdout(None):  # it prints that its weight decay is decoupled
            built: Optimizer = kind(
                parameters,
                lr=self.lr,
                betas=self.betas,
                weight_decay=self.weight_decay,
                d0=self.d0,
                d_coef=self.d_coef,
                use_bias_correction=self.bias_correction,
                safeguard_warmup=self.safeguard_warmup,
            )
        return built

    @property
    def title(self) -> str:
        return f"prodigyopt.prodigy.Prodigy(weight_decay={self.weight_decay},betas={self.betas},d_coef={self.d_coef})"

    def check(self) -> None:
        _extra("prodigyopt", self.name)

    def rate(self, optimizer: Optimizer, asked: float) -> float:
        return asked * float(optimizer.param_groups[0]["d"])


@final
class ScheduleFreeSettings(OptimizerSettings):
    """Schedule-free AdamW (Defazio et al. 2024, arXiv:2405.15682): an average in the place of a falling rate.

    Gradients are taken at y, the LoRA is x:   y = (1 - beta1) z + beta1 x,   x the mean of all z so far,
    weighted by the squared rate. What is saved, sampled and watched is x.
    """

    remembers: ClassVar[float] = 2.0
    name: Literal["adamw_schedulefree"] = "adamw_schedulefree"
    lr: PositiveFloat = 1e-3
    """Larger than AdamW's: there is no falling rate to wait for."""
    betas: Betas = (0.9, 0.999)
    """How near gradients are taken to the average; decay rate of the second moment."""

    def build(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        kind = _extra("schedulefree", self.name).AdamWScheduleFree
        built: Any = kind(parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)
        built.train()
        optimizer: Optimizer = built
        return optimizer

    @property
    def title(self) -> str:
        return f"schedulefree.AdamWScheduleFree(weight_decay={self.weight_decay},betas={self.betas})"

    def check(self) -> None:
        _extra("schedulefree", self.name)

    def schedulable(self) -> bool:
        return False

    @contextmanager
    def shipping(self, optimizer: Optimizer) -> Iterator[None]:
        own: Any = optimizer
        parameters = [parameter for group in own.param_groups for parameter in group["params"]]
        trained = [parameter.detach().clone() for parameter in parameters]  # its own way back rounds
        own.eval()
        try:
            yield
        finally:
            own.train()
            with torch.no_grad():
                for parameter, value in zip(parameters, trained, strict=True):
                    parameter.copy_(value)


@final
class AdafactorSettings(OptimizerSettings):
    """Adafactor (Shazeer and Stern 2018, arXiv:1804.04235) at a given rate: second moments by row and column only."""

    remembers: ClassVar[float] = 0.1
    name: Literal["adafactor"] = "adafactor"
    lr: PositiveFloat = 1e-4
    clip_threshold: PositiveFloat = 1.0
    """Most that the root mean square of a step may be, in learning rates."""
    decay_rate: float = Field(-0.8, lt=0)
    """How fast the second moment follows: 1 - t ^ decay_rate is kept at step t."""
    scale_parameter: bool = False
    """Steps in proportion to the parameter: a LoRA's B begins at 0 and hardly moves then."""

    def build(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        from transformers.optimization import Adafactor

        built: Optimizer = Adafactor(
            parameters,
            lr=self.lr,
            clip_threshold=self.clip_threshold,
            decay_rate=self.decay_rate,
            weight_decay=self.weight_decay,
            scale_parameter=self.scale_parameter,
            relative_step=False,
            warmup_init=False,
        )
        return built

    @property
    def title(self) -> str:
        own = f"scale_parameter={self.scale_parameter},relative_step=False,warmup_init=False"
        return f"transformers.optimization.Adafactor({own},weight_decay={self.weight_decay})"


OPTIMIZERS: dict[str, type[OptimizerSettings]] = {
    "adamw": AdamWSettings,
    "adamw_8bit": AdamW8bitSettings,
    "prodigy": ProdigySettings,
    "adamw_schedulefree": ScheduleFreeSettings,
    "adafactor": AdafactorSettings,
}
"""Every optimizer, by its `name` in project files."""


def optimizer_of(table: Mapping[str, Any]) -> OptimizerSettings:
    """[training.optimizer] as the settings of the optimizer that it names; AdamW where it names none."""
    name = table.get("name", "adamw")
    if not isinstance(name, str) or name not in OPTIMIZERS:
        raise ValueError(f"no optimizer is called {name!r}; there are: {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name].model_validate(table)


def _extra(package: str, name: str) -> Any:
    """A package that is not installed with tenuto itself."""
    try:
        return import_module(package)
    except ImportError as error:
        raise TenutoError(
            f'training.optimizer.name = "{name}": {package} is not installed; pip install "tenuto[optimizers]"'
        ) from error


class LearningRateSettings(Settings):
    """[training.learning_rate]: how the rate moves over the run."""

    shape: Literal["constant", "cosine", "linear"] = "constant"
    """After the warm-up: constant, or down to 0 at the last update."""
    warmup: NonNegativeInt = 0
    """Updates over which the rate climbs from 0."""

    def factor(self, update: int, updates: int) -> float:
        """What the learning rate is multiplied by at this update (counted from 0)."""
        if update < self.warmup:
            return (update + 1) / self.warmup
        done = (update - self.warmup) / max(1, updates - self.warmup)
        return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[self.shape]
