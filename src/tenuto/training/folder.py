"""What lies in a training's folder: its log, saved states, LoRA snapshots and, at the end, the LoRA."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tenuto.events import Listener, silent, warn
from tenuto.files import write_text
from tenuto.training.journal import Journal
from tenuto.training.plan import Plan
from tenuto.training.state import TrainState, load_state, save_state
from tenuto.words import TenutoError

STATES_KEPT = 2


@dataclass(frozen=True)
class RunFolder:
    """The folder of one training."""

    path: Path
    listener: Listener = silent

    @property
    def journal(self) -> Journal:
        return Journal(self.path / "log.jsonl")

    @property
    def lora(self) -> Path:
        """The finished LoRA."""
        return self.path / "lora.safetensors"

    @property
    def best(self) -> Path:
        """The LoRA of the best reading so far."""
        return self.path / "lora-best.safetensors"

    @property
    def states(self) -> Path:
        return self.path / "states"

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

    def snapshot(self, update: int) -> Path:
        """Where the LoRA as it was after so many updates is kept."""
        return self.snapshots / f"lora-{update:06d}.safetensors"

    def keep_state(self, state: TrainState) -> None:
        """Older states go when the new one is whole."""
        save_state(state, self.states / f"{state.update:06d}.safetensors")
        keep_newest(self.states, STATES_KEPT)

    def newest_state(self, plan: Plan) -> TrainState | None:
        """Where to go on from; None: at the beginning. Raises TenutoError when it is of another plan."""
        saved = sorted(self.states.glob("*.safetensors"))
        while saved:
            try:
                state = load_state(saved.pop())
            except TenutoError as error:
                if not saved:
                    raise TenutoError(
                        f"{error}, and there is no older one; delete {self.path} to begin anew"
                    ) from error
                warn(self.listener, f"{error}; an older one is used")
                continue
            if state.plan != plan:
                raise TenutoError(
                    f"{self.path}: holds a training by another plan: {plan.against(state.plan)}; put that back, give "
                    "this training another folder (--out), or delete that one"
                )
            return state
        return None

    def check(self) -> None:
        """That it can be written to. Raises TenutoError."""
        for place in (self.path, self.states, self.snapshots):
            trial = place / ".trial"
            write_text(trial, "")
            trial.unlink()


def keep_newest(folder: Path, count: int) -> None:
    """Delete all but so many of the folder's safetensors, the oldest first."""
    for old in sorted(folder.glob("*.safetensors"))[: -count or None]:
        old.unlink()
