"""Every kind of adapter, by the name that project files call it: `training.adapter.kind`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from tenuto.adapters.kinds import Kind
from tenuto.adapters.tuners.base import Tuner
from tenuto.adapters.tuners.loha import LoHaTuner
from tenuto.adapters.tuners.lokr import LoKrTuner
from tenuto.adapters.tuners.lora import LoraTuner
from tenuto.adapters.tuners.oft import BoftTuner, OftTuner

LORA, DORA = LoraTuner(dora=False), LoraTuner(dora=True)
KindName = Literal["lora", "loha", "lokr", "oft", "boft"]
TUNERS: Mapping[KindName, Tuner] = {
    "lora": LORA,
    "loha": LoHaTuner(),
    "lokr": LoKrTuner(),
    "oft": OftTuner(),
    "boft": BoftTuner(),
}
BY_FILE: Mapping[Kind, Tuner] = {tuner.file_kind: tuner for tuner in TUNERS.values()}
"""By what the layers of a file are called."""
