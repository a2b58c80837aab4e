"""[comparison]: how much is drawn and measured."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, NonNegativeInt, PositiveInt

from tenuto.families.sampling import Sampler as SamplerName
from tenuto.families.sampling import SamplerSettings
from tenuto.words import Settings


class ComparisonSettings(Settings):
    """[comparison]: how much is drawn and measured."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Noise seeds of pictures and states. With one training per arm the spread is over these; with several, over
    trainings."""
    prompts: PositiveInt = 8
    """Prompts per row (as trained, other style, place, view, subject)."""
    drift_prompts: PositiveInt = 32
    """Prompts near the set, and as many far from it, whose predictions are compared."""
    states: PositiveInt = 16
    """States per prompt on the base's sampling path, spread over t."""
    sampler: SamplerName = "dpmpp_2m"
    """As in [prior]."""
    steps: PositiveInt = 20
    """Denoising steps per picture."""
    guidance: float = Field(default=5.0, ge=0.0)
    """Classifier-free guidance."""
    negative: str = ""
    """Negative prompt."""
    weights: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0)
    """Strengths of the weight strip; must hold 0. Empty: no strip."""
    strip_prompts: PositiveInt = 16
    """Prompts of the weight strip."""
    strip_seeds: NonNegativeInt = 1
    """How many of the seeds draw the strip."""
    curve_weights: tuple[float, ...] = (0.25, 0.5, 0.75, 1.25, 1.5)
    """Strengths of the last checkpoint on the curve; the same for every arm."""
    curve_checkpoints: NonNegativeInt = 6
    """Earlier checkpoints on the curve, evenly spaced; 0: none."""
    curve_prompts: PositiveInt = 4
    """Prompts per row at each point of the curve, as far as rows have so many."""
    curve_seeds: NonNegativeInt | None = None
    """How many of the seeds draw the curve; unset: all."""
    second_lora: Path | None = None
    """Another LoRA to combine with: pictures with both are drawn, and whether their effects add up is measured
    (additivity)."""
    second_prompt: str = ""
    """What calls the second LoRA; put in front of each far prompt."""
    other_base: str | None = None
    """Another checkpoint of the same layers (a name, a file, a folder, a hub id): the same is drawn and measured there
    once more, without strip and curves, to see whether the LoRAs carry over. Unset: not done."""
    tagger: str | None = None
    """A tagger's folder or hub id: WD14-like (model.onnx and selected_tags.csv) or tenuto's own kind; unset: the one
    that the checkpoint carries, if any."""
    dino: str | None = None
    """Folder or hub id of a DINOv2 encoder ("facebook/dinov2-base"): how like the user's pictures it draws (dino_i),
    and whether the class turns into the concept (pres, div). Unset: pres and div are read by the tagger's own features
    if it has any (pocket's does), dino_i is not measured."""
    clip: str | None = None
    """Folder or hub id of a CLIP ("openai/clip-vit-large-patch14"): likeness to the pictures (clip_i) and to the
    prompts (clip_t). Unset: not measured."""
    concept_groups: tuple[str, ...] | None = None
    """Tag groups that the concept itself may change (no bake); unset: by kind."""
    loss_times: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    """Times at which losses for fit and gain are taken."""
    shown: PositiveInt = 3
    """Pictures per row that are kept for the report."""
    batch: PositiveInt = 16
    """Pictures at once."""

    @property
    def on_curve(self) -> int:
        """Prompts per row at each point of the curve."""
        return min(self.curve_prompts, self.prompts)

    def sampler_settings(self) -> SamplerSettings:
        return SamplerSettings(sampler=self.sampler, steps=self.steps, guidance=self.guidance, negative=self.negative)
