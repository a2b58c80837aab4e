"""How much memory a computation holds, counted tensor by tensor, and without doing it: on the meta device tensors have
shapes and no numbers, so that a whole update of a large checkpoint is counted in a second, on any machine.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tenuto.families.base import Base
from tenuto.families.narrow import compute_in_float32, lacks, lie_in_float8, show_as

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
        answer = _answer(func, args, kwargs or {})
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


class Shaped(NamedTuple):
    """All that a tensor of the meta device is."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


class Other(NamedTuple):
    """Anything else: 1, 1.0 and True are equal, and make different tensors."""

    kind: type
    value: Any


class _HasNumbersError(Exception):
    """A tensor of another device: its numbers may decide on the answer."""


_known: dict[Any, Any] = {}


def _answer(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What an operator answers. For many of them torch works the shape out in Python, for a millisecond; the blocks of
    a network ask the same again and again, so each question is put once."""
    if not _makes_new(func):
        return func(*args, **kwargs)
    try:
        asked = (func, _shaped(args), _shaped(tuple(kwargs.items())))
    except _HasNumbersError:
        return func(*args, **kwargs)
    if asked not in _known:
        answer = func(*args, **kwargs)
        with suppress(_HasNumbersError):
            _known[asked] = _shaped(answer)
        return answer
    return _anew(_known[asked])


@cache
def _makes_new(func: Any) -> bool:
    """Whether an operator's answer shares memory with none of its arguments."""
    schema = func._schema
    return not any(own.alias_info for own in (*schema.arguments, *schema.returns))


def _shaped(value: Any) -> Any:
    """Arguments or answers of an operator, with the tensors' shapes in their place. Raises _HasNumbersError."""
    if isinstance(value, Tensor):
        if value.device != META:
            raise _HasNumbersError
        return Shaped(tuple(value.shape), value.stride(), value.dtype)
    return tuple(map(_shaped, value)) if isinstance(value, tuple | list) else Other(type(value), value)


def _anew(shaped: Any) -> Any:
    """The same with new tensors."""
    if isinstance(shaped, Shaped):
        return torch.empty_strided(shaped.shape, shaped.stride, dtype=shaped.dtype, device=META)
    return shaped.value if isinstance(shaped, Other) else tuple(map(_anew, shaped))


def weightless(base: Base, dtype: torch.dtype | None = None, *, fp8: bool = False) -> Base:
    """The same checkpoint without weights, on the meta device; `dtype` and `fp8` as if it had been loaded so."""
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
    show_as(twin.denoiser, twin.dtype)
    if fp8:
        lie_in_float8(twin.denoiser)
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
