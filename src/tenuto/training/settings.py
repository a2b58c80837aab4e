"""[training]: how long, how large, how careful."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from pydantic import (
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    field_validator,
    model_validator,
)

from tenuto.adapters.adapter import AdapterSettings
from tenuto.training.best import BestSettings
from tenuto.training.optimizers import AdamWSettings, LearningRateSettings, OptimizerSettings, optimizer_of
from tenuto.words import Settings

SAVED = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TrainingSettings(Settings):
    """[training]: either `steps` or `epochs` says how long."""

    steps: PositiveInt | None = None
    """Optimizer updates."""
    epochs: PositiveInt | None = None
    """Passes over the instance images (times their repeats)."""
    batch: PositiveInt = 4
    """Instance rows per update. Prior rows come on top: batch x ratio."""
    micro_batch: PositiveInt | None = None
    """Most rows in one forward; smaller needs less memory and changes the result only by rounding. Unset: all."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the base; the LoRA itself is always trained in fp32. fp16, for cards without bf16, scales the loss: an update
    whose gradients run over is left out, logged as `overflow`, and the scale halved."""
    compile: bool = False
    """Let torch.compile make the denoiser faster: minutes at the start of each training. Where it fails, that is said
    and the training goes on without it."""
    save_precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Of the LoRA files. fp32: what was trained, bit for bit; fp16: half the size, rounded in the fourth digit."""
    gradient_checkpointing: bool = False
    """Less memory, the same gradients, a third more arithmetic; where a fast GPU waits for Python, twice the time."""
    clip_norm: PositiveFloat | None = 1.0
    """Joint limit of the gradient norm; how often it was hit is logged."""
    save_every: PositiveInt = 100
    """Updates between saved states: an interrupted training goes on from the last one."""
    keep: NonNegativeInt | None = None
    """How many of the LoRA snapshots that are saved on the way to keep; unset: all."""
    sample_every: NonNegativeInt = 0
    """Updates between sample pictures; 0: none."""
    sample_prompts: tuple[str, ...] = ()
    """Prompts of the sample pictures; empty: the first instance caption."""
    watch_every: NonNegativeInt = 50
    """Updates between drift readings in the log; 0: none."""
    tensorboard: bool = False
    """Also write TensorBoard logs (needs the extra: pip install "tenuto[tensorboard]")."""
    start_from: str | None = None
    """A LoRA file to go on training from, in any common naming; its layers, ranks and alphas stand for `adapter`."""
    tags_in_file: bool = True
    """Write how often each tag occurs in the instance captions into the LoRA's header, where web UIs show it."""
    adapter: AdapterSettings = AdapterSettings()
    """Which layers are adapted, and how."""
    optimizer: SerializeAsAny[OptimizerSettings] = AdamWSettings()
    """How gradients become steps; `name` says which optimizer."""
    learning_rate: LearningRateSettings = LearningRateSettings()
    """Schedule of the learning rate."""
    best: BestSettings = BestSettings()
    """Whether the best LoRA on the way is kept, and when to end early."""

    @field_validator("optimizer", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return optimizer_of(value) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give steps or epochs, not both")
        return self

    @model_validator(mode="after")
    def _fitting_schedule(self) -> Self:
        if self.learning_rate.shape != "constant" and not self.optimizer.schedulable():
            raise ValueError(f'{self.optimizer.name} takes no falling rate: set learning_rate.shape = "constant"')
        return self

    @model_validator(mode="after")
    def _readings_for_the_best(self) -> Self:
        if self.best.keep and not self.watch_every:
            raise ValueError("best.keep needs readings: set watch_every")
        return self
