"""OFT and BOFT: every layer's outputs are turned (rotation.py). The layers are our own, in peft's clothes.

W' = W + s * (R W - W)          R is made of rotations of groups of `rank` outputs, all of them I at the start

At a strength between 0 and 1 the weights lie on the straight line between W and R W, which is what web UIs do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from peft import LoHaConfig
from peft.tuners.loha import LoHaModel
from peft.tuners.lycoris_utils import LycorisLayer
from torch import Tensor, nn

from tenuto.adapters.kinds import BLOCKS
from tenuto.adapters.layers import Layer
from tenuto.adapters.rotation import boft_size, limited, oft_size, turned
from tenuto.adapters.tuners.base import NAME, Rank, patterns
from tenuto.adapters.tuners.whole_change import WholeChange, WholeChangeLayer
from tenuto.words import TenutoError


class TurnedLayer(WholeChangeLayer, nn.Module):
    """A linear layer or a convolution whose outputs are turned. Its parameters are given by the tuner."""

    adapter_layer_names = (BLOCKS,)
    oft_blocks: Any
    r: Any
    alpha: Any
    scaling: Any
    get_base_layer: Any

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: Any, r: int, alpha: float) -> None:
        nn.Module.__init__(self)
        LycorisLayer.__init__(self, base_layer)
        self.oft_blocks = nn.ParameterDict({})
        self._active_adapter = adapter_name
        self.r[adapter_name], self.alpha[adapter_name] = r, alpha

    @property
    def _available_adapters(self) -> set[str]:
        return set(self.oft_blocks)

    def get_delta_weight(self, adapter_name: str, *, apply_rank_dropout: bool = False) -> Tensor:
        weight = self.get_base_layer().weight.float()
        change: Tensor = (turned(weight, self.oft_blocks[adapter_name]) - weight) * self.scaling[adapter_name]
        return change

    def create_adapter_parameters(self, adapter_name: str, r: int, **kwargs: Any) -> None:
        raise NotImplementedError

    reset_adapter_parameters = update_layer = _get_delta_activations = create_adapter_parameters


class Model(LoHaModel):
    """peft's way of putting layers on, with these layers."""

    prefix = "oft_"
    tuner_layer_cls = TurnedLayer
    layers_mapping: ClassVar[dict[Any, Any]] = {nn.Conv2d: TurnedLayer, nn.Linear: TurnedLayer}


class Turning(WholeChange):
    """What the two have in common."""

    ships = (
        "LyCORIS' oft_blocks: newer web UIs and LyCORIS read it, diffusers does not, and it cannot be made a LoRA of; "
        "`tenuto lora merge --into` puts it into a checkpoint"
    )
    fields = (BLOCKS,)

    def wrap(self, module: nn.Module, ranks: Mapping[str, Rank]) -> Model:
        return Model(module, LoHaConfig(**patterns(ranks)), NAME)

    def scale(self, tensors: Mapping[str, Tensor], rank: Rank) -> float:
        return 1.0

    def adopt(self, layer: Any, stored: Layer) -> None:
        blocks = limited(stored.tensors[BLOCKS].float(), stored.alpha * weight_outputs(layer))
        super().adopt(layer, Layer({BLOCKS: blocks}))

    def stored(self, state: Mapping[str, Tensor], rank: Rank, dtype: torch.dtype) -> Layer:
        """Here alpha is a limit of the rotation; 0: none."""
        return super().stored(state, Rank(rank.rank, 0.0), dtype)


def weight_outputs(layer: Any) -> int:
    return int(layer.get_base_layer().weight.shape[0])


@final
class OftTuner(Turning):
    """One rotation per group of outputs."""

    file_kind = "OFT"

    def fresh(self, shape: torch.Size, rank: Rank, name: str, seed: int) -> dict[str, Tensor]:
        size = _size(oft_size(shape[0], rank.rank), name, shape[0], rank)
        return {BLOCKS: torch.zeros(shape[0] // size, size, size)}


@final
class BoftTuner(Turning):
    """Rotations of groups, regrouped from stage to stage."""

    file_kind = "BOFT"

    def fresh(self, shape: torch.Size, rank: Rank, name: str, seed: int) -> dict[str, Tensor]:
        size = _size(boft_size(shape[0], rank.rank), name, shape[0], rank)
        groups = shape[0] // size
        return {BLOCKS: torch.zeros(groups.bit_length(), groups, size, size)}


def _size(found: int | None, name: str, outputs: int, rank: Rank) -> int:
    if found is None:
        raise TenutoError(
            f"training.adapter.rank = {rank.rank} gives no groups of {name}'s {outputs} outputs; raise it, or leave "
            "the layer out with training.adapter.skip"
        )
    return found
