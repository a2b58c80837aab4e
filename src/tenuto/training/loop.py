"""The training loop. A new idea goes behind a regularizer's hook; no feature has its name in `train`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from tenuto.adapters.adapter import Adapter
from tenuto.adapters.files import save_lora
from tenuto.data.schedule import Update
from tenuto.events import Event, Listener, progress, silent, warn
from tenuto.families.base import Base, Conditioning
from tenuto.randomness import noise, stream
from tenuto.regularizers.base import Memory, Regularizer
from tenuto.regularizers.step import Step
from tenuto.training.journal import Journal
from tenuto.training.objective import objective
from tenuto.training.rows import Row, Source, micro_batches, shares
from tenuto.training.settings import TrainingSettings
from tenuto.training.state import TrainState, load_state, pack_optimizer, save_state, unpack_optimizer
from tenuto.words import Size, Stopped, TenutoError

STATES_KEPT = 2


class NotFinite(TenutoError):
    """The loss is not a finite number; the message names the rows and the state to go on from."""


@dataclass(kw_only=True)
class Run:
    """One training: what it works on and where it stands."""

    base: Base
    adapter: Adapter
    settings: TrainingSettings
    regularizers: Mapping[str, Regularizer]
    updates: Sequence[Update]
    sources: Mapping[str, Source]
    """Item or prior image id -> where its rows come from."""
    rows_per_epoch: int
    """Instance rows in an epoch (repeats counted)."""
    seed: int
    folder: Path
    plan: str
    """Fingerprint of all that decides the result."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Header of the LoRA files."""
    listener: Listener = silent
    stop: Callable[[], bool] = lambda: False
    watch: Mapping[str, Callable[[], float]] = field(default_factory=dict)
    """Readings taken every `watch_every` updates, by their name in the log."""
    sample: Callable[[int], None] = lambda update: None
    """Draws the sample pictures of an update."""

    def __post_init__(self) -> None:
        self.done = 0
        self.forwards = 0
        self.journal = Journal(self.folder / "log.jsonl")
        self.regularizers = {name: method for name, method in self.regularizers.items() if method.active()}
        self.memories: dict[str, Memory] = {
            name: method.init(self.adapter) for name, method in self.regularizers.items()
        }
        self.optimizer: Optimizer = self.settings.optimizer.build(self.adapter.parameters())
        self._texts: dict[tuple[str, Size, int], Conditioning] = {}

    @property
    def epoch(self) -> float:
        """Epochs done, a fraction."""
        return self.done * self.settings.batch / self.rows_per_epoch

    # -- one update ---------------------------------------------------------------------------------------------

    def remaining(self) -> Iterator[list[Row]]:
        """The rows of every update that is still to be done."""
        for update in self.updates[self.done :]:
            yield [self.sources[draw.id].row(draw.visit) for draw in update.draws]

    def learn(self, rows: Sequence[Row]) -> dict[str, float]:
        """Gradients of one update, micro-batch by micro-batch. Returns the value of every term of the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        totals: dict[str, float] = {}
        for batch in micro_batches(rows, self.settings.micro_batch):
            terms = objective(self.make_step(batch, shares(batch, rows)), self.regularizers)
            loss = torch.stack(list(terms.values())).sum()
            if not torch.isfinite(loss):
                raise self.not_finite(batch, terms)
            loss.backward()  # type: ignore[no-untyped-call]
            for name, value in terms.items():
                totals[name] = totals.get(name, 0.0) + float(value.detach())
        return totals

    def make_step(self, batch: Sequence[Row], share: Tensor) -> Step:
        """Every draw of a micro-batch happens here: noise and timestep, named by the row's id and visit."""
        device, process = self.base.device, self.base.process
        x0 = torch.stack([row.latents for row in batch]).to(device)
        eps = torch.stack(
            [noise(tuple(row.latents.shape), self.seed, "noise", row=row.id, visit=row.visit) for row in batch]
        ).to(device)
        t = torch.tensor([self._timestep(row) for row in batch], device=device)
        return Step(
            x_t=process.noisy(x0, eps, t),
            t=t,
            target=process.target(x0, eps, t),
            cond=self._read(batch) if self.adapter.trains_text() else self._told(batch),
            base_cond=self._told(batch),
            role=tuple(row.role for row in batch),
            share=share.to(device),
            ids=tuple(row.id for row in batch),
            epoch=self.epoch,
            model=self.ask,
        )

    def _timestep(self, row: Row) -> int:
        generator = stream(self.seed, "timestep", row=row.id, visit=row.visit)
        return int(torch.randint(self.base.process.steps, (), generator=generator))

    def ask(self, x_t: Tensor, t: Tensor, cond: Conditioning, *, adapter: bool) -> Tensor:
        """The network with the adapter, or the base alone. A forward with its backward counts as two forwards."""
        self.forwards += len(t) * (2 if torch.is_grad_enabled() else 1)
        if adapter:
            return self.base.predict(x_t, t, cond)
        with self.adapter.disabled():
            return self.base.predict(x_t, t, cond)

    def _read(self, batch: Sequence[Row]) -> Conditioning:
        """The captions as the text encoder reads them now."""
        return self.base.encode_text([row.caption for row in batch], [row.size for row in batch], batch[0].chunks)

    def _told(self, batch: Sequence[Row]) -> Conditioning:
        """The captions as the base reads them, each encoded once."""
        keys = [(row.caption, row.size, row.chunks) for row in batch]
        for caption, size, chunks in dict.fromkeys(keys):
            if (caption, size, chunks) not in self._texts:
                with torch.no_grad(), self.adapter.disabled():
                    self._texts[caption, size, chunks] = self.base.encode_text([caption], [size], chunks)
        return Conditioning.join([self._texts[key] for key in keys])

    def apply(self) -> dict[str, float]:
        """Clip, step, let the regularizers look, move the clock. Returns what to log."""
        parameters = self.adapter.parameters()
        limit = self.settings.clip_norm or float("inf")
        norm = float(clip_grad_norm_(parameters, limit))
        rate = self.settings.optimizer.lr * self.settings.learning_rate.factor(self.done, len(self.updates))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        for name, regularizer in self.regularizers.items():
            self.memories[name] = regularizer.after_update(self.adapter, self.memories[name])
        self.done += 1
        return {"lr": rate, "gradient_norm": norm, "clipped": float(norm > limit)}

    # -- what happens now and then -----------------------------------------------------------------------------

    def due(self, every: int) -> bool:
        """Whether something that happens every so many updates happens now; the last update counts."""
        return every > 0 and (self.done % every == 0 or self.done == len(self.updates))

    def handle_due(self, entry: dict[str, float]) -> None:
        """Log, watch, save, sample; stop when asked to."""
        if self.due(self.settings.watch_every):
            entry |= {name: read() for name, read in self.watch.items()}
        self.journal.write(entry)
        self.listener(Event("log", dict(entry)))
        progress(self.listener, "training", self.done, len(self.updates), **entry)
        stopping = self.stop()
        if self.due(self.settings.save_every) or stopping:
            self.save()
        if self.due(self.settings.sample_every):
            self.sample(self.done)
        if stopping and self.done < len(self.updates):
            raise Stopped(
                f"stopped after update {self.done} of {len(self.updates)}; the same command goes on from there"
            )

    def state_path(self, update: int) -> Path:
        return self.folder / "states" / f"{update:06d}.safetensors"

    def snapshot_path(self, update: int) -> Path:
        """Where the LoRA as it was after so many updates is kept."""
        return self.folder / "snapshots" / f"lora-{update:06d}.safetensors"

    def save(self) -> None:
        """The LoRA so far, then the state; older ones go when the new ones are whole."""
        save_lora(self.adapter, self.snapshot_path(self.done), self.metadata)
        state = TrainState(
            self.done,
            self.plan,
            self.adapter.state(),
            pack_optimizer(self.optimizer),
            self.memories,
            torch.get_num_threads(),
        )
        save_state(state, self.state_path(self.done))
        _keep_newest(self.folder / "states", STATES_KEPT)
        if self.settings.keep is not None:
            _keep_newest(self.folder / "snapshots", self.settings.keep)

    def resume(self) -> None:
        """Go on from the newest saved state, if there is one. Raises TenutoError when it is of another plan."""
        saved = sorted((self.folder / "states").glob("*.safetensors"))
        if not saved:
            self.journal.cut(0)
            return
        state = load_state(saved[-1])
        if state.plan != self.plan:
            raise TenutoError(
                f"{self.folder}: holds a training with other settings or data; give this one another folder (--out), "
                "or delete that one"
            )
        if state.threads != torch.get_num_threads():
            warn(
                self.listener,
                f"saved with {state.threads} CPU threads, now {torch.get_num_threads()}: last bits may differ",
            )
        self.adapter.load(state.adapter)
        unpack_optimizer(self.optimizer, state.optimizer)
        self.memories |= dict(state.memories)
        self.done = state.update
        self.journal.cut(self.done)
        logged = self.journal.read()  # a power cut may have taken the log's last lines
        self.forwards = int(logged[-1]["forwards"]) if logged else 0

    def not_finite(self, batch: Sequence[Row], terms: Mapping[str, Tensor]) -> NotFinite:
        values = ", ".join(f"{name} = {float(value.detach()):g}" for name, value in terms.items())
        names = ", ".join(f"{row.role} {row.id[:20]} ({row.caption[:40]})" for row in batch)
        return NotFinite(
            f"update {self.done + 1}: the loss is not finite ({values}) on rows: {names}; nothing was applied, the "
            f'last good state is in {self.folder / "states"}; lower training.optimizer.lr or use precision = "fp32"'
        )


def train(run: Run) -> Path:
    """Train to the end, from wherever the run's folder stands. Returns the LoRA file. Raises Stopped, NotFinite."""
    run.resume()
    run.base.checkpointing(run.settings.gradient_checkpointing)
    for rows in run.remaining():
        start = time.perf_counter()
        entry = {"update": float(run.done + 1), "epoch": run.epoch}
        entry |= {f"weight.{name}": method.weight_at(run.epoch) for name, method in run.regularizers.items()}
        entry |= {f"loss.{name}": value for name, value in run.learn(rows).items()}
        entry |= {"prior_rows": float(sum(row.role == "prior" for row in rows))}
        entry |= run.apply()
        run.handle_due(entry | {"seconds": time.perf_counter() - start, "forwards": float(run.forwards)})
    target = run.folder / "lora.safetensors"
    save_lora(run.adapter, target, run.metadata)
    return target


def _keep_newest(folder: Path, count: int) -> None:
    for old in sorted(folder.glob("*.safetensors"))[: -count or None]:
        old.unlink()
