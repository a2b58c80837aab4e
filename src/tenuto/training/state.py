"""Everything that must survive a crash, as one value in one safetensors file.

Random streams are named (randomness.py), and which rows an update takes is a pure function of the project: so there
is no generator and no data position to save, only how many updates are done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor
from torch.optim import Optimizer

from tenuto.checks import CHECK, tensors_check
from tenuto.files import first_line, parse_json, serialized, write_tensors
from tenuto.training.plan import Plan
from tenuto.words import TenutoError

Number = int | float | bool
HEADER = "tenuto_state"
GROUP = "group"
"""Begins the names of what an optimizer remembers apart from parameters."""


@dataclass(frozen=True)
class OptimizerMemory:
    """What an optimizer remembers: of parameters ("3.exp_avg") and of its groups ("group0.d")."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    numbers: Mapping[str, Number] = field(default_factory=dict)

    @classmethod
    def of(cls, optimizer: Optimizer) -> Self:
        found: dict[str, Any] = {}
        for index, parameter in enumerate(_parameters(optimizer)):
            memory = optimizer.state.get(parameter, {})
            found |= {f"{index}.{name}": value for name, value in memory.items()}
        for number, group in enumerate(optimizer.param_groups):
            found |= {f"{GROUP}{number}.{name}": value for name, value in group.items()}
        tensors = {name: v.detach().cpu().clone() for name, v in found.items() if isinstance(v, Tensor)}
        return cls(tensors, {name: v for name, v in found.items() if isinstance(v, int | float)})

    def give(self, optimizer: Optimizer) -> None:
        """Let the optimizer go on with it."""
        whole = optimizer.state_dict()
        state: dict[int, dict[str, Tensor | Number]] = {}
        for key, value in {**self.tensors, **self.numbers}.items():
            place, _, name = key.partition(".")
            if place.startswith(GROUP):
                whole["param_groups"][int(place.removeprefix(GROUP))][name] = value
            else:
                state.setdefault(int(place), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


@dataclass(frozen=True, kw_only=True)
class TrainState:
    """After `update` updates: the adapter, the optimizer, each regularizer's memory."""

    update: int
    plan: Plan
    """All that decides the result; another plan is another training."""
    adapter: Mapping[str, Tensor]
    optimizer: OptimizerMemory
    memories: Mapping[str, Mapping[str, Tensor]]
    threads: int
    """CPU threads: another number may change the last bits."""
    standing: Mapping[str, Any] = field(default_factory=dict)
    """Plain values that the training goes by: rows in a forward, loss scale, the best LoRA so far."""


def save_state(state: TrainState, path: Path) -> None:
    write_tensors(path, *_packed(state))


def state_bytes(state: TrainState) -> bytes:
    """What `save_state` writes."""
    header, body = serialized(*_packed(state))
    return header + body


def state_from(data: bytes) -> TrainState:
    """From what `state_bytes` gave, in another process."""
    length = int.from_bytes(data[:8], "little")
    return _unpacked(json.loads(data[8 : 8 + length])["__metadata__"], load(data))


def _packed(state: TrainState) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors = {f"adapter/{name}": value for name, value in state.adapter.items()}
    tensors |= {f"optimizer/{name}": value for name, value in state.optimizer.tensors.items()}
    tensors |= {f"memory/{own}/{name}": v for own, memory in state.memories.items() for name, v in memory.items()}
    header = {
        "update": state.update,
        "plan": state.plan.facts,
        "threads": state.threads,
        "memories": list(state.memories),
        "optimizer": dict(state.optimizer.numbers),
        "standing": dict(state.standing),
    }
    told = json.dumps(header)
    return tensors, {HEADER: told, CHECK: tensors_check(tensors, told)}


def load_state(path: Path) -> TrainState:
    """Raises TenutoError when the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return _unpacked(file.metadata() or {}, tensors)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TenutoError(f"{path}: not a readable training state ({first_line(error)})") from error


def _unpacked(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> TrainState:
    if metadata.get(CHECK, known := tensors_check(tensors, metadata[HEADER])) != known:  # older states have none
        raise ValueError("damaged: it does not match its checksum")
    header: dict[str, Any] = parse_json(metadata[HEADER])

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    return TrainState(
        update=header["update"],
        plan=Plan(header["plan"]),
        adapter=part("adapter/"),
        optimizer=OptimizerMemory(part("optimizer/"), header["optimizer"]),
        memories={own: part(f"memory/{own}/") for own in header["memories"]},
        threads=header["threads"],
        standing=header["standing"],
    )
