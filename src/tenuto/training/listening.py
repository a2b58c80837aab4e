"""What goes through the adapted layers while the base answers."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from tenuto.adapters.adapter import Adapter
from tenuto.randomness import stream
from tenuto.regularizers.base import Activations

DENOISER = "lora_unet."


class Listening:
    """Inside the block, keeps some inputs of each layer of the denoiser, and sums over all of them."""

    def __init__(self, adapter: Adapter, each: int) -> None:
        """each: inputs that are kept of every state and layer."""
        self.visits: list[int] = []
        """Numbers of the states of the current forward: with the layer's name they name the draws."""
        self._layers: dict[str, Any] = {
            name: layer.get_base_layer() for name, layer in adapter.layers().items() if name.startswith(DENOISER)
        }
        self._each = each
        self._kept: dict[str, list[Tensor]] = {name: [] for name in self._layers}
        self._sums: dict[str, Tensor] = {}
        self._energy = dict.fromkeys(self._layers, 0.0)
        self._places = dict.fromkeys(self._layers, 0)
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        for name, layer in self._layers.items():
            self._hooks.append(layer.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()

    def found(self) -> dict[str, Activations]:
        """By the layer's name."""
        return {
            name: Activations(
                torch.cat(kept), self._sums[name] / self._places[name], self._energy[name] / self._places[name]
            )
            for name, kept in self._kept.items()
            if kept
        }

    def _hook(self, name: str) -> Any:
        def hear(layer: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> None:
            inputs = places_of(layer, given[0].float())
            outputs = answer.float().flatten(2).transpose(1, 2) if isinstance(layer, nn.Conv2d) else answer.float()
            self._sums[name] = self._sums.get(name, torch.zeros(())) + inputs.square().sum(dim=(0, 1)).cpu()
            self._energy[name] += float(outputs.square().sum())
            self._places[name] += inputs.shape[0] * inputs.shape[1]
            for row, state in zip(inputs, self.visits, strict=False):
                generator = stream(0, "activations", layer=name, state=state)
                chosen = torch.randint(len(row), (self._each,), generator=generator)
                self._kept[name].append(row[chosen.to(row.device)].cpu())

        return hear


def places_of(layer: nn.Module, x: Tensor) -> Tensor:
    """The inputs of a layer [B places in]: tokens of a linear layer, patches of a convolution."""
    if isinstance(layer, nn.Conv2d):
        patches = unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
        return patches.transpose(1, 2)
    return x.reshape(x.shape[0], -1, x.shape[-1])
