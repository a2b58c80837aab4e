"""One adapted layer as a file holds it, and the arithmetic of it.

    LoRA   dW = alpha/r B A              A [r, in] or [r, in, k, k], B [out, r] or [out, r, 1, 1]
    LoCon  the same with a core          A [r, in, 1, 1], mid [r, r, k, k] (Tucker form of a convolution)
    DoRA   W' = m (W + dW) / |W + dW|    m [out], the norm taken over everything but out
    LoHa   dW = alpha/r (A1 B1) * (A2 B2)            Hyeon-Woo et al. 2021, arXiv:2108.06098
    LoKr   dW = alpha/r kron(C, A B)                 Yeh et al. 2023, arXiv:2309.14859

Every one of them is a LoRA of some rank, exactly; `Layer.lora` says which.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tenuto.words import TenutoError

Kind = Literal["LoRA", "LoHa", "LoKr"]

DOWN, UP, MID, ALPHA, MAGNITUDE = "lora_down.weight", "lora_up.weight", "lora_mid.weight", "alpha", "dora_scale"
"""What kohya calls the tensors of a layer; the names that `Layer.tensors` has, too."""

LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
FIELDS = {DOWN, UP, MID, ALPHA, MAGNITUDE, *LOHA, *LOKR}
"""Every tensor that we can read."""
FOREIGN = {
    "oft_blocks": "OFT", "oft_diag": "OFT", "a1.weight": "GLoRA", "on_input": "IA3", "diff": "a full difference",
    "diff_b": "a bias difference", "w_norm": "a norm difference", "b_norm": "a norm difference",
    "set_weight": "replaced weights", "lokr_t1": "LoKr with t1", "bias": "a bias",
}  # fmt: skip
"""What other tensors mean, for the message."""

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

    @classmethod
    def of_delta(cls, delta: Tensor) -> Lora:
        """A whole difference [out, in] or [out, in, k, k] as a LoRA: the smaller side's unit matrix is a factor."""
        ones = (1,) * (delta.ndim - 2)
        out, flat = delta.shape[0], delta.flatten(1)
        if out <= flat.shape[1]:
            return cls(delta, torch.eye(out).reshape(out, out, *ones), float(out))
        wide = flat.shape[1]
        return cls(torch.eye(wide).reshape(wide, *delta.shape[1:]), flat.reshape(out, wide, *ones), float(wide))

    def layer(self, dtype: torch.dtype) -> Layer:
        """As a file holds it."""
        tensors = {DOWN: self.down.to(dtype), UP: self.up.to(dtype), ALPHA: torch.tensor(self.alpha, dtype=dtype)}
        if self.magnitude is not None:
            tensors[MAGNITUDE] = self.magnitude.to(dtype).reshape(-1, *(1,) * (self.down.ndim - 1))
        return Layer(tensors)


@dataclass(frozen=True)
class Layer:
    """The tensors of one layer by kohya's names for them (FIELDS), as they were read. Make with `checked`."""

    tensors: Mapping[str, Tensor]

    @classmethod
    def checked(cls, tensors: Mapping[str, Tensor]) -> Layer:
        """Raises TenutoError when tensors are missing, of no float type, or of shapes that do not belong together."""
        layer = cls(tensors)
        for name, tensor in tensors.items():
            if not tensor.is_floating_point() or tensor.numel() == 0:
                raise TenutoError(f"{name} holds no weights ({str(tensor.dtype)[6:]} {list(tensor.shape)})")
        if ALPHA in tensors and (tensors[ALPHA].numel() != 1 or not math.isfinite(float(tensors[ALPHA]))):
            raise TenutoError("alpha is no finite number")
        _CHECKS[layer.kind](tensors)
        return layer

    @property
    def kind(self) -> Kind:
        if any(name in self.tensors for name in LOHA):
            return "LoHa"
        return "LoKr" if any(name in self.tensors for name in LOKR) else "LoRA"

    @property
    def is_dora(self) -> bool:
        return MAGNITUDE in self.tensors

    @property
    def dtype(self) -> torch.dtype:
        return next(tensor.dtype for name, tensor in self.tensors.items() if name != ALPHA)

    @property
    def rank(self) -> int:
        """As the file's maker means it: of the factors, not of the difference. LoKr of whole matrices has none: 0."""
        inner = {"LoRA": (DOWN,), "LoHa": ("hada_w1_b",), "LoKr": ("lokr_w1_b", "lokr_w2_b")}[self.kind]
        return next((self.tensors[name].shape[0] for name in inner if name in self.tensors), 0)

    @property
    def alpha(self) -> float:
        """A missing alpha means scale 1."""
        return float(self.tensors[ALPHA]) if ALPHA in self.tensors else float(self.rank or 1)

    def lora(self, kernel: int = 1) -> Lora:
        """The same difference as a plain LoRA, exactly but for rounding in float32; DoRA keeps its magnitude.

        kernel: side of a convolution whose factors are kept as matrices (LoHa and LoKr flatten them).
        Raises TenutoError for a magnitude per input, which no library that we build on carries.
        """
        plain = _CONVERSIONS[self.kind](self, kernel)
        return Lora(plain.down, plain.up, plain.alpha, self._magnitude(plain.shape[0]))

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


# -- what belongs together ------------------------------------------------------------------------------------------


def _check_lora(tensors: Mapping[str, Tensor]) -> None:
    down, up = _need(tensors, DOWN), _need(tensors, UP)
    if down.ndim not in (2, 4) or up.ndim != down.ndim or up.shape[1] != down.shape[0] or up[0, 0].numel() != 1:
        raise TenutoError(f"{DOWN} {list(down.shape)} and {UP} {list(up.shape)} do not belong together")
    if (mid := tensors.get(MID)) is not None and (
        mid.ndim != 4 or down[0, 0].numel() != 1 or mid.shape[:2] != (down.shape[0],) * 2
    ):
        raise TenutoError(f"{MID} {list(mid.shape)} does not belong to {DOWN} {list(down.shape)}")


def _check_loha(tensors: Mapping[str, Tensor]) -> None:
    for side in ("1", "2"):
        a, b = _need(tensors, f"hada_w{side}_a"), _need(tensors, f"hada_w{side}_b")
        core = tensors.get(f"hada_t{side}")
        _match(a, b, core, f"hada_w{side}")
    if ("hada_t1" in tensors) != ("hada_t2" in tensors):
        raise TenutoError("one of hada_t1 and hada_t2 is missing")
    for end in ("a", "b"):
        first, second = tensors[f"hada_w1_{end}"], tensors[f"hada_w2_{end}"]
        if first.shape != second.shape or first.ndim != 2:
            raise TenutoError(f"hada_w1_{end} {list(first.shape)} and hada_w2_{end} {list(second.shape)} differ")
    if "hada_t1" in tensors and tensors["hada_t1"].shape != tensors["hada_t2"].shape:
        raise TenutoError("hada_t1 and hada_t2 differ")


def _check_lokr(tensors: Mapping[str, Tensor]) -> None:
    for side in ("1", "2"):
        if (whole := tensors.get(f"lokr_w{side}")) is None:
            a, b = _need(tensors, f"lokr_w{side}_a"), _need(tensors, f"lokr_w{side}_b")
            _match(a, b, tensors.get("lokr_t2") if side == "2" else None, f"lokr_w{side}")
        elif whole.ndim not in ((2,) if side == "1" else (2, 4)):
            raise TenutoError(f"lokr_w{side} {list(whole.shape)} is no matrix")


def _match(a: Tensor, b: Tensor, core: Tensor | None, name: str) -> None:
    inner = a.shape[1:] if core is None else a.shape[:1]
    if a.ndim != 2 or b.ndim not in (2, 4) or (b.ndim == 4 and core is not None) or inner != b.shape[:1]:
        raise TenutoError(f"{name}_a {list(a.shape)} and {name}_b {list(b.shape)} do not belong together")
    if core is not None and (core.ndim != 4 or core.shape[:2] != (a.shape[0], b.shape[0])):
        raise TenutoError(f"the core {list(core.shape)} does not belong to {name}_a {list(a.shape)}")


def _need(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise TenutoError(f"{name} is missing")
    return tensors[name]


_CHECKS = {"LoRA": _check_lora, "LoHa": _check_loha, "LoKr": _check_lokr}


# -- each kind as a LoRA --------------------------------------------------------------------------------------------


def _lora(layer: Layer, kernel: int) -> Lora:
    down, up, mid = layer.tensors[DOWN], layer.tensors[UP], layer.tensors.get(MID)
    if mid is not None:
        down = torch.einsum("rskl,si->rikl", mid.float(), down.float().flatten(1))
    return Lora(down, up, layer.alpha)


def _loha(layer: Layer, kernel: int) -> Lora:
    """(A1 B1) * (A2 B2) has the rank r^2: its factors are all products of a column of A1 with one of A2."""
    a1, b1, a2, b2 = (layer.tensors[name].float() for name in LOHA[:4])
    scale = layer.alpha / layer.rank
    if "hada_t1" in layer.tensors:
        first, second = (_core(layer.tensors[f"hada_t{i}"], a, b) for i, a, b in (("1", a1, b1), ("2", a2, b2)))
        return Lora.of_delta(first * second * scale)
    rank = layer.rank**2
    if rank >= min(a1.shape[0], b1.shape[1]):
        return Lora.of_delta(_unflat((a1 @ b1) * (a2 @ b2) * scale, kernel))
    up = (a1[:, :, None] * a2[:, None, :]).flatten(1)
    down = _unflat((b1[:, None, :] * b2[None, :, :]).flatten(0, 1), kernel)
    return Lora(down, up.reshape(*up.shape, *(1,) * (down.ndim - 2)), rank * scale)


def _lokr(layer: Layer, kernel: int) -> Lora:
    tensors = {name: tensor.float() for name, tensor in layer.tensors.items()}
    whole = "lokr_w1" in tensors and "lokr_w2" in tensors
    scale = 1.0 if whole else layer.alpha / layer.rank
    w1 = tensors["lokr_w1"] if "lokr_w1" in tensors else tensors["lokr_w1_a"] @ tensors["lokr_w1_b"]
    if "lokr_w2" in tensors:
        return Lora.of_delta(_kron(w1, _unflat(tensors["lokr_w2"], kernel)) * scale)
    a, b = tensors["lokr_w2_a"], tensors["lokr_w2_b"]
    if "lokr_t2" in tensors:
        return Lora.of_delta(_kron(w1, _core(tensors["lokr_t2"], a, b)) * scale)
    up, down = torch.kron(w1, a), _kron(torch.eye(w1.shape[1]), _unflat(b, kernel))
    rank = down.shape[0]
    if rank >= min(up.shape[0], down[0].numel()):
        whole_w2 = (a @ b.flatten(1)).reshape(a.shape[0], *b.shape[1:])
        return Lora.of_delta(_kron(w1, _unflat(whole_w2, kernel)) * scale)
    return Lora(down, up.reshape(*up.shape, *(1,) * (down.ndim - 2)), rank * scale)


_CONVERSIONS = {"LoRA": _lora, "LoHa": _loha, "LoKr": _lokr}


def _core(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Tucker form: core [r r k k], a [r out], b [r in] -> [out in k k]."""
    return torch.einsum("rskl,ro,si->oikl", core.float(), a, b)


def _kron(w1: Tensor, w2: Tensor) -> Tensor:
    """Kronecker product of a matrix with a matrix or a convolution's weight."""
    return torch.kron(w1.reshape(*w1.shape, *(1,) * (w2.ndim - 2)).contiguous(), w2.contiguous())


def _unflat(factor: Tensor, kernel: int) -> Tensor:
    """[n, in k k] -> [n, in, k, k]."""
    if kernel == 1 or factor.ndim != 2 or factor.shape[1] % kernel**2:
        return factor
    return factor.reshape(factor.shape[0], -1, kernel, kernel)
