"""Every regularizer, written out by hand. The key is the name in project files, logs and metadata."""

from __future__ import annotations

from tenuto.regularizers.adapter_dropout import AdapterDropout
from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.blank_preservation import BlankPreservation
from tenuto.regularizers.cached_prior import CachedPrior
from tenuto.regularizers.caption_dropout import CaptionDropout
from tenuto.regularizers.direct_consistency import DirectConsistency
from tenuto.regularizers.drift_controller import DriftController
from tenuto.regularizers.ema_average import EmaAverage
from tenuto.regularizers.gram_penalty import GramPenalty
from tenuto.regularizers.hard_prompts import HardPrompts
from tenuto.regularizers.input_perturbation import InputPerturbation
from tenuto.regularizers.l2_to_base import L2ToBase
from tenuto.regularizers.masked_prior import MaskedPrior
from tenuto.regularizers.max_norm import MaxNorm
from tenuto.regularizers.multires_noise import MultiresNoise
from tenuto.regularizers.noise_offset import NoiseOffset
from tenuto.regularizers.output_preservation import OutputPreservation
from tenuto.regularizers.overdriven_prior import OverdrivenPrior
from tenuto.regularizers.prior_prediction import PriorPrediction
from tenuto.regularizers.prior_preservation import PriorPreservation
from tenuto.regularizers.random_strength import RandomStrength
from tenuto.regularizers.snr_weight import SnrWeight
from tenuto.regularizers.timestep_weight import TimestepWeight
from tenuto.regularizers.timestep_window import TimestepWindow
from tenuto.regularizers.trigger_contrast import TriggerContrast
from tenuto.regularizers.weight_decay import WeightDecay

REGULARIZERS: dict[str, type[Regularizer]] = {
    "prior_preservation": PriorPreservation,
    "prior_prediction": PriorPrediction,
    "cached_prior": CachedPrior,
    "drift_controller": DriftController,
    "random_strength": RandomStrength,
    "overdriven_prior": OverdrivenPrior,
    "hard_prompts": HardPrompts,
    "output_preservation": OutputPreservation,
    "trigger_contrast": TriggerContrast,
    "blank_preservation": BlankPreservation,
    "masked_prior": MaskedPrior,
    "direct_consistency": DirectConsistency,
    "l2_to_base": L2ToBase,
    "gram_penalty": GramPenalty,
    "max_norm": MaxNorm,
    "weight_decay": WeightDecay,
    "adapter_dropout": AdapterDropout,
    "ema_average": EmaAverage,
    "snr_weight": SnrWeight,
    "timestep_weight": TimestepWeight,
    "timestep_window": TimestepWindow,
    "input_perturbation": InputPerturbation,
    "caption_dropout": CaptionDropout,
    "noise_offset": NoiseOffset,
    "multires_noise": MultiresNoise,
}
