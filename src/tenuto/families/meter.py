"""How much memory a computation holds, counted tensor by tensor, and without doing it: on the meta device tensors have
shapes and no numbers, so that a whole update of a large checkpoint is counted in a second, on any machine.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tenuto.families.base import Base
from tenuto.families.upcast import compute_in_float32, lacks

META = torch.device("meta")
_attention = F.scaled_dot_product_attention


class Meter(TorchDispatchMode):
    """Counts the bytes of every tensor that comes into being inside the block and is still alive."""

    def __init__(self, there: Iterable[Tensor] = ()) -> None:
        """there: tensors that exist already; what only shows them (views) is not counted."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        """The most bytes at any one time."""
        self._alive: dict[int, Any] = {_storage(tensor)._cdata: tensor for tensor in there}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        for value in answer if isinstance(answer, tuple | list) else (answer,):
            if isinstance(value, Tensor):
                self._count(_storage(value))
        return answer

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return
        self.now += size
        self.peak = max(self.peak, self.now)

        def gone(_: Any) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, gone)


def _storage(tensor: Tensor) -> Any:
    return tensor.untyped_storage()


def weightless(base: Base, dtype: torch.dtype | None = None) -> Base:
    """The same checkpoint without weights, on the meta device; `dtype` as if it had been loaded in that."""
    own = [part for part in vars(base).values() if isinstance(part, nn.Module)]
    networks = {id(part) for part in base.modules().values()}
    memo: dict[int, Any] = {id(base.words): base.words} if hasattr(base, "words") else {}
    for module in (*own, *base.text_encoders.values()):
        kind = (dtype or base.dtype) if id(module) in networks else None
        for weight in module.parameters():
            memo[id(weight)] = nn.Parameter(torch.empty_like(weight, device=META, dtype=kind), weight.requires_grad)
        for buffer in module.buffers():
            memo[id(buffer)] = torch.empty_like(buffer, device=META)
    twin = copy.deepcopy(base, memo)
    twin.device, twin.dtype = META, dtype or base.dtype
    if lacks(base.device, twin.dtype):
        for network in twin.modules().values():
            compute_in_float32(network)
    return twin


def bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def tensors_of(base: Base) -> list[Tensor]:
    """Every weight and buffer of a checkpoint, adapters included, each once."""
    modules = [part for part in vars(base).values() if isinstance(part, nn.Module)] + list(base.modules().values())
    found = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    return list({id(tensor): tensor for tensor in found}.values())


@contextmanager
def fused_attention() -> Iterator[None]:
    """Attention on the meta device is counted as every device's fused kernels do it, which keep no table of scores.

    torch itself would count the plain formula there. Tensors with numbers are not touched.
    """
    F.scaled_dot_product_attention = _fused  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = _attention


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **more: Any,
) -> Tensor:
    if query.device != META:
        return _attention(query, key, value, attn_mask, dropout_p, is_causal, **more)
    kernel: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    answer: Tensor = kernel(query, key, value, attn_mask=attn_mask, is_causal=is_causal)[0]
    return answer
