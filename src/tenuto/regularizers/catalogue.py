"""Every regularizer, written out by hand. The key is the name in project files, logs and metadata."""

from __future__ import annotations

from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.prior_prediction import PriorPrediction
from tenuto.regularizers.prior_preservation import PriorPreservation

REGULARIZERS: dict[str, type[Regularizer]] = {
    "prior_preservation": PriorPreservation,
    "prior_prediction": PriorPrediction,
}
