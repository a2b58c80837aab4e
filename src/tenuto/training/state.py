"""Everything that must survive a crash, as one value in one safetensors file.

Random streams are named (randomness.py), and which rows an update takes is a pure function of the project: so there
is no generator and no data position to save, only how many updates are done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.optim import Optimizer

from tenuto.files import write_tensors
from tenuto.words import TenutoError


@dataclass(frozen=True)
class TrainState:
    """After `update` updates: the adapter, the optimizer, and each regularizer's memory."""

    update: int
    plan: str
    """Fingerprint of everything that decides the result; another fingerprint is another training."""
    adapter: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    memories: Mapping[str, Mapping[str, Tensor]]
    threads: int
    """CPU threads: another number may change the last bits."""


def save_state(state: TrainState, path: Path) -> None:
    tensors = {f"adapter/{name}": value for name, value in state.adapter.items()}
    tensors |= {f"optimizer/{name}": value for name, value in state.optimizer.items()}
    tensors |= {f"memory/{own}/{name}": v for own, memory in state.memories.items() for name, v in memory.items()}
    header = {"update": state.update, "plan": state.plan, "threads": state.threads, "memories": list(state.memories)}
    write_tensors(path, tensors, {"tenuto_state": json.dumps(header)})


def load_state(path: Path) -> TrainState:
    """Raises TenutoError when the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            header: dict[str, Any] = json.loads((file.metadata() or {})["tenuto_state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise TenutoError(
            f"{path}: not a readable training state ({error}); delete it to go on from an older one"
        ) from error

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    memories = {own: part(f"memory/{own}/") for own in header["memories"]}
    return TrainState(
        header["update"], header["plan"], part("adapter/"), part("optimizer/"), memories, header["threads"]
    )


def pack_optimizer(optimizer: Optimizer) -> dict[str, Tensor]:
    """An optimizer's per-parameter memory as named tensors ("3.exp_avg"); numbers become 0-d tensors."""
    return {
        f"{index}.{name}": value.detach().cpu().clone() if isinstance(value, Tensor) else torch.tensor(value)
        for index, memory in optimizer.state_dict()["state"].items()
        for name, value in memory.items()
    }


def unpack_optimizer(optimizer: Optimizer, packed: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in packed.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
