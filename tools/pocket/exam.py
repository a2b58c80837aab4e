"""An exam for the text encoder: which tags does the prompt hold? Its loss makes words easy to find for the U-Net.

The U-Net alone teaches small things (hair, eyes, hats) slowly: they are few latents, and their words must first stand
out. One learned query per group looks over the hidden states, as a cross-attention does, and names the group's tag.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tools.pocket.common import Log, rate, set_rate
from torch import Tensor, nn
from torch.nn import functional as F

from tenuto.pocket import world

UNSAID = -100
"""The prompt says nothing of a group: no question is asked."""
_PLACE = {tag: (column, row) for column, tags in enumerate(world.GROUPS.values()) for row, tag in enumerate(tags)}


def answers(line: dict[str, Any], said: Sequence[str]) -> list[int]:
    """For each group the number of the tag that was said, or that the name stands for."""
    known = [*said, *(line["implied"] if line["name"] and line["name"] in said else ())]
    marks = [UNSAID] * len(world.GROUPS)
    for tag in known:
        if tag in _PLACE:
            column, row = _PLACE[tag]
            marks[column] = row
    return marks


class Exam(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(len(world.GROUPS), width) * width**-0.5)
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.name = nn.ModuleList(nn.Linear(width, len(tags)) for tags in world.GROUPS.values())

    def forward(self, hidden: Tensor, marks: Tensor) -> Tensor:
        """Mean cross-entropy over what was said. hidden: [B, N, W]; marks: [B, groups]."""
        look = (self.query @ self.key(hidden).transpose(1, 2)).softmax(-1) @ self.value(hidden)
        losses = [
            F.cross_entropy(name(look[:, column]), marks[:, column], ignore_index=UNSAID, reduction="sum")
            for column, name in enumerate(self.name)
        ]
        return torch.stack(losses).sum() / (marks != UNSAID).sum().clamp(min=1)


Prompts = Callable[[int], tuple[Tensor, Tensor]]
"""How many -> token ids [B, N], marks [B, groups]."""


def school(text: nn.Module, exam: Exam, prompts: Prompts, log: Log, steps: int = 600) -> None:
    """Teach the text encoder alone, before the U-Net listens to it."""
    pupils = [*text.parameters(), *exam.parameters()]
    optimizer = torch.optim.AdamW(pupils, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0)
    losses: list[float] = []
    for step in range(steps):
        set_rate(optimizer, rate(step, step / steps, 1.5e-3, warm_up=50))
        ids, marks = (part.to(next(text.parameters()).device) for part in prompts(128))
        loss = exam(text(ids).last_hidden_state, marks)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(text.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            log(f"text encoder alone: {step + 1} exam {sum(losses) / len(losses):.3f}")
            losses = []
