"""Empty modules and filling them from a single file, with every key and shape checked first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor

from tenuto.families.header import FLOATS, Header, Shape
from tenuto.families.keys import Origin
from tenuto.families.resting import Component
from tenuto.words import TenutoError


def empty(kind: Any, config: Mapping[str, Any]) -> Any:
    """A module of this config without weights: nothing is allocated or drawn."""
    with init_empty_weights(include_buffers=False):
        own = getattr(kind, "config_class", None)  # transformers' models take a config object, diffusers' its fields
        return kind(own(**config)) if own else kind(**config)


def fill(module: Any, header: Header, origins: Mapping[str, Origin], dtype: torch.dtype, part: str) -> None:
    """Give an empty module its weights. Raises TenutoError for missing, misshapen and non-float ones."""
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    check(header, {name: (origins[name], shape) for name, shape in wanted.items()}, part)
    with safe_open(header.path, framework="pt") as file:
        state = {
            name: view_of(file.get_tensor(origins[name].key), origins[name], shape).to(dtype).contiguous()
            for name, shape in wanted.items()
        }
    module.load_state_dict(state, assign=True)


def filled(
    made: Callable[[], Any], header: Header, origins: Mapping[str, Origin], dtype: torch.dtype, part: str
) -> Component:
    """A part whose empty module is `made`, with its weights."""

    def read() -> Any:
        module = made().eval()
        fill(module, header, origins, dtype, part)
        return module

    return Component.read(read, [header.path])


def check(header: Header, wanted: Mapping[str, tuple[Origin, Shape]], part: str) -> None:
    """Raises TenutoError where the file lacks one of these weights, or has it in another shape or as no float."""
    keys = {origin.key for origin, _ in wanted.values()}
    if missing := sorted(keys - header.shapes.keys()):
        raise TenutoError(
            f"{header.path}: {len(missing)} of {len(keys)} weights of its {part} are missing, first {missing[0]}; "
            "use the full checkpoint (or it is of an architecture that is not supported)"
        )
    wrong = {o.key: shape for o, shape in wanted.values() if not _fits(header.shapes[o.key], o, shape)}
    if wrong:
        key = min(wrong)
        raise TenutoError(
            f"{header.path}: {len(wrong)} weights of its {part} have another shape than they should, first {key} "
            f"{list(header.shapes[key])}; it is not a plain checkpoint of this family"
        )
    if odd := sorted(key for key in keys if header.types[key] not in FLOATS):
        raise TenutoError(
            f"{header.path}: {len(odd)} weights of its {part} are {header.types[odd[0]]}, first {odd[0]}; "
            "use the fp16, bf16 or fp32 release"
        )


def _fits(have: Shape, origin: Origin, want: Shape) -> bool:
    if origin.transposed:
        return have == want[::-1]
    if origin.third is not None:
        return have == (3 * want[0], *want[1:])
    return have == want or have == (*want, 1, 1)


def view_of(value: Tensor, origin: Origin, shape: Shape) -> Tensor:
    """A weight of ours inside the file's tensor; what is written to it is written there."""
    if origin.transposed:
        return value.T
    if origin.third is not None:
        return value.chunk(3)[origin.third]
    return value.view(shape)
