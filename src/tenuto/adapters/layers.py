"""One adapted layer as a file holds it (kinds.py), and the plain LoRA that it is: dW = alpha/r B A."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tenuto.adapters.kinds import ALPHA, BLOCKS, DOWN, KINDS, MAGNITUDE, UP, Kind, Tensors
from tenuto.adapters.rotation import limited, turned
from tenuto.words import TenutoError

_WIDE = ("conv", "conv1", "conv2", "conv_in", "conv_out")
"""Last words of 3x3 convolutions in U-Nets of the Stable Diffusion family."""


@dataclass(frozen=True)
class Lora:
    """alpha / rank * up @ down on one layer; with a magnitude it is a DoRA."""

    down: Tensor
    """[rank, in] or [rank, in, k, k]."""
    up: Tensor
    """[out, rank] or [out, rank, 1, 1]."""
    alpha: float
    magnitude: Tensor | None = None
    """[out]: norm of each output's weights after the update (DoRA)."""

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight that it changes: [out, in] or [out, in, k, k]."""
        return (self.up.shape[0], *self.down.shape[1:])

    def factors(self) -> tuple[Tensor, Tensor]:
        """(B [out, rank] times the scale, A [rank, in k k]) in float32: dW = B A."""
        return self.up.float().flatten(1) * self.scale, self.down.float().flatten(1)

    def delta(self) -> Tensor:
        """dW in float32, of `shape`, without the magnitude."""
        up, down = self.factors()
        return (up @ down).reshape(self.shape)

    def norm(self) -> float:
        """|dW|, the Frobenius norm, from the factors: |B A|^2 = tr(B'B AA')."""
        up, down = (factor.double() for factor in self.factors())
        return math.sqrt(max(float(((up.T @ up) * (down @ down.T)).sum()), 0.0))

    def fitted(self, shape: Sequence[int]) -> Lora:
        """The same for a weight of this shape: files may keep a 1x1 convolution as a matrix, or the other way round.

        Raises TenutoError when it is for a weight of another shape.
        """
        if self.shape == tuple(shape):
            return self
        if math.prod(self.shape) != math.prod(shape) or self.shape[:2] != tuple(shape[:2]):
            raise TenutoError(
                f"the LoRA is for a weight of {list(self.shape)}, the model's is {list(shape)}; it was made for "
                "another base"
            )
        ones = (1,) * (len(shape) - 2)
        down, up = self.down.flatten(1), self.up.flatten(1)
        return Lora(down.reshape(self.rank, *shape[1:]), up.reshape(*up.shape, *ones), self.alpha, self.magnitude)

    def layer(self, dtype: torch.dtype) -> Layer:
        """As a file holds it."""
        tensors = {DOWN: self.down.to(dtype), UP: self.up.to(dtype), ALPHA: torch.tensor(self.alpha, dtype=dtype)}
        if self.magnitude is not None:
            tensors[MAGNITUDE] = self.magnitude.to(dtype).reshape(-1, *(1,) * (self.down.ndim - 1))
        return Layer(tensors)


@dataclass(frozen=True)
class Layer:
    """The tensors of one layer by kohya's names for them (FIELDS), as they were read. Make with `checked`."""

    tensors: Tensors

    @classmethod
    def checked(cls, tensors: Tensors) -> Layer:
        """Raises TenutoError when tensors are missing, of no float type, or of shapes that do not belong together."""
        layer = cls(tensors)
        for name, tensor in tensors.items():
            if not tensor.is_floating_point() or tensor.numel() == 0:
                raise TenutoError(f"{name} holds no weights ({str(tensor.dtype)[6:]} {list(tensor.shape)})")
        if ALPHA in tensors and (tensors[ALPHA].numel() != 1 or not math.isfinite(float(tensors[ALPHA]))):
            raise TenutoError("alpha is no finite number")
        KINDS[layer.kind].check(tensors)
        return layer

    @property
    def kind(self) -> Kind:
        return next(kind for kind, row in KINDS.items() if row.marks(self.tensors))

    @property
    def is_dora(self) -> bool:
        return MAGNITUDE in self.tensors

    @property
    def dtype(self) -> torch.dtype:
        return next(tensor.dtype for name, tensor in self.tensors.items() if name != ALPHA)

    @property
    def rank(self) -> int:
        """As the file's maker means it: of the factors, not of the difference; of rotations the outputs in a group.
        LoKr of whole matrices has none: 0."""
        return KINDS[self.kind].rank(self.tensors)

    @property
    def inputs(self) -> int:
        """Of the weight that it is for, times the kernel's places; 0: any."""
        return KINDS[self.kind].weight(self.tensors)[1]

    @property
    def alpha(self) -> float:
        """A missing alpha means scale 1, and no limit of a rotation."""
        if ALPHA in self.tensors:
            return float(self.tensors[ALPHA])
        return 0.0 if BLOCKS in self.tensors else float(self.rank or 1)

    def lora(self, kernel: int = 1) -> Lora:
        """The same difference as a plain LoRA, exactly but for rounding in float32; DoRA keeps its magnitude.

        kernel: side of a convolution whose factors are kept as matrices (LoHa and LoKr flatten them).
        Raises TenutoError for a magnitude per input, which no library that we build on carries, and for rotations.
        """
        down, up, alpha = KINDS[self.kind].lora(self.tensors, self.alpha, kernel)
        return Lora(down, up, alpha, self._magnitude(up.shape[0]))

    def moved(self, weight: Tensor, kernel: int = 1) -> Tensor:
        """W' in float32. Raises TenutoError where the layer is for a weight of another shape."""
        if (blocks := self.tensors.get(BLOCKS)) is not None:
            self.check_fits(weight.shape)
            return turned(weight, limited(blocks.float(), self.alpha * weight.shape[0]))
        lora = self.lora(kernel).fitted(weight.shape)
        return moved(weight, lora.delta(), lora.magnitude)

    def check_fits(self, shape: Sequence[int]) -> None:
        """That it is for a weight of this shape. Raises TenutoError."""
        outputs, inputs = KINDS[self.kind].weight(self.tensors)
        if outputs != shape[0] or inputs not in (0, math.prod(shape[1:])):
            wanted = f"{outputs} x {inputs}" if inputs else f"{outputs} outputs"
            raise TenutoError(f"it is for a weight of {wanted}, the model's is {list(shape)}; made for another base")

    def _magnitude(self, out: int) -> Tensor | None:
        if not self.is_dora:
            return None
        magnitude = self.tensors[MAGNITUDE]
        if magnitude.shape[0] != out or magnitude.numel() != out:
            raise TenutoError(
                f"its dora_scale {list(magnitude.shape)} is a magnitude per input; only magnitudes per output "
                f"[{out}, 1] can be used: train with wd_on_output"
            )
        return magnitude.flatten()


def moved(weight: Tensor, delta: Tensor, magnitude: Tensor | None) -> Tensor:
    """W + dW, and with a magnitude m [out] (W + dW) m / |W + dW|, the norm taken per output; in float32."""
    whole = weight.float() + delta
    if magnitude is None:
        return whole
    scale: Tensor = magnitude.float() / whole.flatten(1).norm(dim=1)
    return whole * scale.reshape(-1, *(1,) * (weight.ndim - 1))


def kernel_of(layer: str) -> int:
    """Side of the convolution of this name; 1 for linear layers and 1x1 convolutions."""
    return 3 if layer.startswith("lora_unet.") and layer.rpartition(".")[2] in _WIDE else 1
