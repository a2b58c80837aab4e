"""The kinds of adapted layers that files hold: what their tensors are called, what belongs together, what it means.

    LoRA   dW = alpha/r B A              A [r, in] or [r, in, k, k], B [out, r] or [out, r, 1, 1]
    LoCon  the same with a core          A [r, in, 1, 1], mid [r, r, k, k] (Tucker form of a convolution)
    DoRA   W' = m (W + dW) / |W + dW|    m [out], the norm taken over everything but out
    LoHa   dW = alpha/r (A1 B1) * (A2 B2)            Hyeon-Woo et al. 2021, arXiv:2108.06098
    LoKr   dW = alpha/r kron(C, A B)                 Yeh et al. 2023, arXiv:2309.14859

Every one of them is a LoRA of some rank, exactly; `Layer.lora` says which. OFT and BOFT (rotation.py) are none: what
they change depends on the weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tenuto.words import TenutoError

Tensors = Mapping[str, Tensor]
Kind = Literal["LoRA", "LoHa", "LoKr", "OFT", "BOFT"]

DOWN, UP, MID, ALPHA, MAGNITUDE = "lora_down.weight", "lora_up.weight", "lora_mid.weight", "alpha", "dora_scale"
"""What kohya calls the tensors of a layer; the names that `Layer.tensors` has, too."""

LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
LOKR_INNER = ("lokr_w1_b", "lokr_w2_b")
BLOCKS = "oft_blocks"
FACTORS = (MID, DOWN, UP, *LOHA, *LOKR)
"""What dW is linear in, each by itself; the last one that a layer has takes a strength."""
FIELDS = {*FACTORS, ALPHA, MAGNITUDE, BLOCKS}
"""Every tensor that we can read."""
FOREIGN = {
    "oft_diag": "old OFT", "rescale": "OFT with rescale", "a1.weight": "GLoRA", "on_input": "IA3",
    "diff": "a full difference", "diff_b": "a bias difference", "w_norm": "a norm difference",
    "b_norm": "a norm difference", "set_weight": "replaced weights", "lokr_t1": "LoKr with t1", "bias": "a bias",
}  # fmt: skip
"""What other tensors mean, for the message."""


# -- what belongs together ------------------------------------------------------------------------------------------


def _check_lora(tensors: Tensors) -> None:
    down, up = _need(tensors, DOWN), _need(tensors, UP)
    if down.ndim not in (2, 4) or up.ndim != down.ndim or up.shape[1] != down.shape[0] or up[0, 0].numel() != 1:
        raise TenutoError(f"{DOWN} {list(down.shape)} and {UP} {list(up.shape)} do not belong together")
    if (mid := tensors.get(MID)) is not None and (
        mid.ndim != 4 or down[0, 0].numel() != 1 or mid.shape[:2] != (down.shape[0],) * 2
    ):
        raise TenutoError(f"{MID} {list(mid.shape)} does not belong to {DOWN} {list(down.shape)}")


def _check_loha(tensors: Tensors) -> None:
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


def _check_lokr(tensors: Tensors) -> None:
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


def _need(tensors: Tensors, name: str) -> Tensor:
    if name not in tensors:
        raise TenutoError(f"{name} is missing")
    return tensors[name]


def _check_blocks(tensors: Tensors) -> None:
    blocks = tensors[BLOCKS]
    if blocks.ndim not in (3, 4) or blocks.shape[-1] != blocks.shape[-2]:
        raise TenutoError(f"{BLOCKS} {list(blocks.shape)} are no square blocks")
    if blocks.ndim == 4 and (blocks.shape[-1] % 2 or blocks.shape[1] % (1 << (blocks.shape[0] - 1))):
        raise TenutoError(f"{BLOCKS} {list(blocks.shape)} make no butterfly")
    if odd := sorted(tensors.keys() - {BLOCKS, ALPHA}):
        raise TenutoError(f"{odd[0]} does not belong to {BLOCKS}")


# -- each kind as a LoRA --------------------------------------------------------------------------------------------


Product = tuple[Tensor, Tensor, float]
"""A [r, in …], B [out, r …] and alpha of a plain LoRA."""


def of_delta(delta: Tensor) -> Product:
    """A whole difference [out, in] or [out, in, k, k] as a LoRA: the smaller side's unit matrix is a factor."""
    ones = (1,) * (delta.ndim - 2)
    out, flat = delta.shape[0], delta.flatten(1)
    if out <= flat.shape[1]:
        return delta, torch.eye(out).reshape(out, out, *ones), float(out)
    wide = flat.shape[1]
    return torch.eye(wide).reshape(wide, *delta.shape[1:]), flat.reshape(out, wide, *ones), float(wide)


def _lora(own: Tensors, alpha: float, kernel: int) -> Product:
    down, up, mid = own[DOWN], own[UP], own.get(MID)
    if mid is not None:
        down = torch.einsum("rskl,si->rikl", mid.float(), down.float().flatten(1))
    return down, up, alpha


def _loha(own: Tensors, alpha: float, kernel: int) -> Product:
    """(A1 B1) * (A2 B2) has the rank r^2: its factors are all products of a column of A1 with one of A2."""
    a1, b1, a2, b2 = (own[name].float() for name in LOHA[:4])
    inner = b1.shape[0]
    scale = alpha / inner
    if "hada_t1" in own:
        first, second = (_core(own[f"hada_t{i}"], a, b) for i, a, b in (("1", a1, b1), ("2", a2, b2)))
        return of_delta(first * second * scale)
    if inner**2 >= min(a1.shape[0], b1.shape[1]):
        return of_delta(_unflat((a1 @ b1) * (a2 @ b2) * scale, kernel))
    up = (a1[:, :, None] * a2[:, None, :]).flatten(1)
    down = _unflat((b1[:, None, :] * b2[None, :, :]).flatten(0, 1), kernel)
    return down, up.reshape(*up.shape, *(1,) * (down.ndim - 2)), inner**2 * scale


def _lokr(own: Tensors, alpha: float, kernel: int) -> Product:
    tensors = {name: tensor.float() for name, tensor in own.items()}
    whole = "lokr_w1" in tensors and "lokr_w2" in tensors
    scale = 1.0 if whole else alpha / _inner(*LOKR_INNER)(own)
    w1 = tensors["lokr_w1"] if "lokr_w1" in tensors else tensors["lokr_w1_a"] @ tensors["lokr_w1_b"]
    if "lokr_w2" in tensors:
        return of_delta(_kron(w1, _unflat(tensors["lokr_w2"], kernel)) * scale)
    a, b = tensors["lokr_w2_a"], tensors["lokr_w2_b"]
    if "lokr_t2" in tensors:
        return of_delta(_kron(w1, _core(tensors["lokr_t2"], a, b)) * scale)
    up, down = torch.kron(w1, a), _kron(torch.eye(w1.shape[1]), _unflat(b, kernel))
    rank = down.shape[0]
    if rank >= min(up.shape[0], down[0].numel()):
        whole_w2 = (a @ b.flatten(1)).reshape(a.shape[0], *b.shape[1:])
        return of_delta(_kron(w1, _unflat(whole_w2, kernel)) * scale)
    return down, up.reshape(*up.shape, *(1,) * (down.ndim - 2)), rank * scale


def _none(own: Tensors, alpha: float, kernel: int) -> Product:
    raise TenutoError(
        "turns the weights of a checkpoint (OFT, BOFT) and is no LoRA without one; `tenuto lora merge --into` puts it "
        "into a checkpoint"
    )


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


# -- the table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileKind:
    """One kind of layer, as files hold it."""

    algorithm: str
    """What LyCORIS calls it."""
    marks: Callable[[Tensors], bool]
    """Whether these tensors are of this kind."""
    rank: Callable[[Tensors], int]
    weight: Callable[[Tensors], tuple[int, int]]
    """Outputs, and inputs times the kernel's places (0: any), of the weight that it is for."""
    check: Callable[[Tensors], None]
    lora: Callable[[Tensors, float, int], Product]
    """The LoRA that it is, of its tensors, alpha and kernel."""


def _any(names: Sequence[str]) -> Callable[[Tensors], bool]:
    return lambda own: any(name in own for name in names)


def _has_stages(own: Tensors) -> bool:
    return BLOCKS in own and own[BLOCKS].ndim == 4


def _size(own: Tensors) -> int:
    return own[BLOCKS].shape[-1]


def _inner(*names: str) -> Callable[[Tensors], int]:
    return lambda own: next((own[name].shape[0] for name in names if name in own), 0)


def _weight_of_blocks(own: Tensors) -> tuple[int, int]:
    return own[BLOCKS].shape[-3] * own[BLOCKS].shape[-1], 0


def _weight_of_lora(own: Tensors) -> tuple[int, int]:
    core = own[MID][0, 0].numel() if MID in own else 1
    return own[UP].shape[0], own[DOWN][0].numel() * core


def _weight_of_loha(own: Tensors) -> tuple[int, int]:
    return _weight_of_pair(own["hada_w1_a"], own["hada_w1_b"], own.get("hada_t1"))


def _weight_of_lokr(own: Tensors) -> tuple[int, int]:
    sides = [
        (whole.shape[0], whole[0].numel())
        if (whole := own.get(side)) is not None
        else _weight_of_pair(own[f"{side}_a"], own[f"{side}_b"], own.get("lokr_t2") if side == "lokr_w2" else None)
        for side in ("lokr_w1", "lokr_w2")
    ]
    return sides[0][0] * sides[1][0], sides[0][1] * sides[1][1]


def _weight_of_pair(a: Tensor, b: Tensor, core: Tensor | None) -> tuple[int, int]:
    return (a.shape[0], b[0].numel()) if core is None else (a.shape[1], b.shape[1] * core[0, 0].numel())


KINDS: Mapping[Kind, FileKind] = {
    "BOFT": FileKind("boft", _has_stages, _size, _weight_of_blocks, _check_blocks, _none),
    "OFT": FileKind("diag-oft", lambda own: BLOCKS in own, _size, _weight_of_blocks, _check_blocks, _none),
    "LoHa": FileKind("loha", _any(LOHA), _inner("hada_w1_b"), _weight_of_loha, _check_loha, _loha),
    "LoKr": FileKind("lokr", _any(LOKR), _inner(*LOKR_INNER), _weight_of_lokr, _check_lokr, _lokr),
    "LoRA": FileKind("lora", lambda own: True, _inner(DOWN), _weight_of_lora, _check_lora, _lora),
}
"""The first that the tensors bear the marks of."""
