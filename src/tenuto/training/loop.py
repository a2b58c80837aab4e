"""The training loop. A new idea goes behind a regularizer's hook; no feature has its name in `train`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
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
from tenuto.prior.states import BasePath
from tenuto.randomness import noise, stream
from tenuto.regularizers.base import Done, Memory, Place, Regularizer
from tenuto.regularizers.draft import Draft, timesteps
from tenuto.regularizers.normal import BINS
from tenuto.regularizers.step import At, Rows, Step
from tenuto.training.journal import Journal
from tenuto.training.objective import multiplier, objective, penalties
from tenuto.training.probe import ROWS, BaseProbe
from tenuto.training.rows import Row, Source, micro_batches, shares
from tenuto.training.settings import TrainingSettings
from tenuto.training.state import TrainState, load_state, pack_optimizer, save_state, unpack_optimizer
from tenuto.words import Role, Size, Stopped, TenutoError

STATES_KEPT = 2
TEXTS_KEPT = 256
"""Encoded captions that are remembered: shuffled ones never end."""
ROLES: tuple[Role, ...] = ("instance", "prior")
Words = tuple[str, Size, int]
"""(text, picture size, text passes): what conditioning depends on."""


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
    sensor: Sequence[BasePath] = ()
    """Paths that the drift controller reads, at prompts of its own."""
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
        self.memories: dict[str, Memory] = {}
        self.optimizer: Optimizer = self.settings.optimizer.build(self.adapter.parameters())
        self.terms: Mapping[str, float] = {}
        self.chances = {role: self._chances(role) for role in ROLES}
        self.probe = BaseProbe(self._first_rows, self._probe_draft, self._alone, self.adapter, self.sensor)
        self._text = lru_cache(TEXTS_KEPT)(self._encode)

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
        self.begin()
        self.optimizer.zero_grad(set_to_none=True)
        drafts = [self.draft(row) for row in rows]
        totals: dict[str, float] = {}
        apart = any(method.apart() for method in self.regularizers.values())
        for batch in micro_batches(drafts, self.settings.micro_batch, apart=apart):
            with self._during(batch):
                step = self.make_step(batch, shares(batch, drafts))
                self._backward(objective(step, self.regularizers, self.memories), batch, totals)
        self._backward(penalties(self.adapter, self.regularizers, self.memories, self.epoch), drafts, totals)
        self.terms = totals
        return totals

    @contextmanager
    def _during(self, batch: Sequence[Draft]) -> Iterator[None]:
        place = Place(self.done, self.epoch, self.seed, frozenset(draft.role for draft in batch))
        with ExitStack() as around:
            for method in self.regularizers.values():
                around.enter_context(method.during(self.adapter, place))
            yield

    def begin(self) -> None:
        """Every method's memory, unless a saved state brought it."""
        if self.regularizers and not self.memories:
            self.memories = {name: method.init(self.adapter, self.probe) for name, method in self.regularizers.items()}
            self.probe.forget()

    def _backward(self, terms: Mapping[str, Tensor], batch: Sequence[Draft], totals: dict[str, float]) -> None:
        if not terms:
            return
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            raise self.not_finite(batch, terms)
        loss.backward()  # type: ignore[no-untyped-call]
        for name, value in terms.items():
            totals[name] = totals.get(name, 0.0) + float(value.detach())

    def draft(self, row: Row) -> Draft:
        """Every draw for a row happens here, named by its id and visit; then the methods may change it."""
        draft = self._plain(row, self._timestep(row), "noise")
        for method in self.regularizers.values():
            draft = method.draw(draft, self.seed)
        return draft

    def _plain(self, row: Row, t: float, purpose: str, **place: int) -> Draft:
        return Draft(
            id=row.id,
            visit=row.visit,
            role=row.role,
            size=row.size,
            caption=row.caption,
            class_caption=row.caption if row.class_caption is None else row.class_caption,
            bare_caption=row.caption if row.bare_caption is None else row.bare_caption,
            chunks=row.chunks,
            latents=row.latents,
            t=t,
            noise=noise(tuple(row.latents.shape), self.seed, purpose, row=row.id, visit=row.visit, **place),
            mask=row.mask,
            path=row.path,
            epoch=self.epoch,
        )

    def make_step(self, batch: Sequence[Draft], share: Tensor) -> Step:
        """A micro-batch of drafts, fixed."""
        device = self.base.device
        states = [draft.noisy(self.base.process) for draft in batch]
        texts: dict[At, tuple[str, ...]] = {
            "own": tuple(draft.caption for draft in batch),
            "class": tuple(draft.class_caption for draft in batch),
            "bare": tuple(draft.bare_caption for draft in batch),
            "blank": ("",) * len(batch),
        }

        def told(at: At, rows: Rows, *, adapter: bool) -> Conditioning:
            words = [(texts[at][i], batch[i].size, batch[i].chunks) for i in rows]
            return self._read(words) if adapter and self.adapter.trains_text() else self._told(words)

        return Step(
            x_t=torch.stack([x_t for x_t, _ in states]).to(device),
            t=timesteps([draft.t for draft in batch]).to(device),
            target=torch.stack([target for _, target in states]).to(device),
            told=told,
            texts=texts,
            role=tuple(draft.role for draft in batch),
            share=share.to(device),
            ids=tuple(draft.id for draft in batch),
            marks=tuple(draft.marks for draft in batch),
            epoch=self.epoch,
            process=self.base.process,
            chances=self.chances,
            model=self.ask,
            mask=_masks(batch, device),
        )

    def _chances(self, role: Role) -> Tensor:
        """How likely each timestep is [T]: all the same, unless a method says otherwise."""
        chances = torch.full((self.base.process.steps,), 1 / self.base.process.steps)
        for method in self.regularizers.values():
            chances = method.timesteps(chances, role)
        return chances

    def _timestep(self, row: Row) -> int:
        generator = stream(self.seed, "timestep", row=row.id, visit=row.visit)
        chances = self.chances[row.role]
        if bool((chances == chances[0]).all()):
            return int(torch.randint(len(chances), (), generator=generator))
        return int(torch.multinomial(chances, 1, generator=generator))

    def ask(self, x_t: Tensor, t: Tensor, cond: Conditioning, *, adapter: bool) -> Tensor:
        """The network with the adapter, or the base alone. A forward with its backward counts as two forwards."""
        self.forwards += len(t) * (2 if torch.is_grad_enabled() else 1)
        if adapter:
            return self.base.predict(x_t, t, cond)
        with self.adapter.disabled():
            return self.base.predict(x_t, t, cond)

    def _read(self, words: Sequence[Words]) -> Conditioning:
        """Prompts of one length as the text encoder reads them now."""
        return self.base.encode_text([text for text, _, _ in words], [size for _, size, _ in words], words[0][2])

    def _told(self, words: Sequence[Words]) -> Conditioning:
        """Prompts as the base reads them, each encoded once."""
        return Conditioning.join([self._text(*each) for each in words])

    def _encode(self, text: str, size: Size, chunks: int) -> Conditioning:
        with torch.no_grad(), self.adapter.disabled():
            return self.base.encode_text([text], [size], chunks)

    # -- what the methods may ask before the first update ---------------------------------------------------------

    def _first_rows(self, role: Role) -> list[Row]:
        draws = (draw for update in self.updates for draw in update.of(role) if not draw.visit)
        return [self.sources[draw.id].row(0) for draw in islice(draws, ROWS)]

    def _probe_draft(self, row: Row, number: int) -> Draft:
        """The row at one bin of t."""
        width = self.base.process.steps / BINS
        share = float(torch.rand((), generator=stream(self.seed, "probe", row=row.id, bin=number)))
        return self._plain(row, int((number + share) * width), "probe noise", bin=number)

    def _alone(self, batch: Sequence[Draft]) -> Step:
        return self.make_step(batch, shares(batch, batch))

    # -- after the gradients --------------------------------------------------------------------------------------

    def apply(self) -> dict[str, float]:
        """Clip, step, let the regularizers look, move the clock. Returns what to log."""
        parameters = self.adapter.parameters()
        limit = self.settings.clip_norm or float("inf")
        norm = float(clip_grad_norm_(parameters, limit))
        rate = self.settings.optimizer.lr * self.settings.learning_rate.factor(self.done, len(self.updates))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.done += 1
        done = Done(
            self.done, self.epoch, self.terms, rate, self.seed, self.probe, lambda text: warn(self.listener, text)
        )
        notes: dict[str, float] = {}
        for name, method in self.regularizers.items():
            self.memories[name] = method.after_update(self.adapter, self.memories[name], done)
            notes |= {f"{name}.{key}": value for key, value in method.notes(self.memories[name]).items()}
        return {"lr": rate, "gradient_norm": norm, "clipped": float(norm > limit), **notes}

    def weights(self) -> dict[str, float]:
        """Each method's weight as it is in the loss now."""
        return {
            name: method.weight_at(self.epoch) * multiplier(name, self.regularizers, self.memories)
            for name, method in self.regularizers.items()
        }

    @contextmanager
    def as_shipped(self) -> Iterator[None]:
        """The adapter as it goes into LoRA files, inside the block; afterwards it is as trained."""
        trained = None
        for name, method in self.regularizers.items():
            state = method.shipped(self.adapter, self.memories.get(name, {}), self.epoch)
            if state is not None:
                trained = trained or self.adapter.state()
                self.adapter.load(state)
        try:
            yield
        finally:
            if trained is not None:
                self.adapter.load(trained)

    # -- what happens now and then -----------------------------------------------------------------------------

    def due(self, every: int) -> bool:
        """Whether something that happens every so many updates happens now; the last update counts."""
        return every > 0 and (self.done % every == 0 or self.done == len(self.updates))

    def handle_due(self, entry: dict[str, float]) -> None:
        """Log, watch, save, sample; stop when asked to."""
        if self.due(self.settings.watch_every):
            with self.as_shipped():
                entry |= {name: read() for name, read in self.watch.items()}
        self.journal.write(entry)
        self.listener(Event("log", dict(entry)))
        progress(self.listener, "training", self.done, len(self.updates), **entry)
        stopping = self.stop()
        if self.due(self.settings.save_every) or stopping:
            self.save()
        if self.due(self.settings.sample_every):
            with self.as_shipped():
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
        with self.as_shipped():
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
        self.memories = {name: state.memories.get(name, {}) for name in self.regularizers}
        self.done = state.update
        self.journal.cut(self.done)
        logged = self.journal.read()  # a power cut may have taken the log's last lines
        self.forwards = int(logged[-1]["forwards"]) if logged else 0

    def not_finite(self, batch: Sequence[Draft], terms: Mapping[str, Tensor]) -> NotFinite:
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
    run.begin()
    for rows in run.remaining():
        start = time.perf_counter()
        entry = {"update": float(run.done + 1), "epoch": run.epoch}
        entry |= {f"weight.{name}": weight for name, weight in run.weights().items()}
        entry |= {f"loss.{name}": value for name, value in run.learn(rows).items()}
        entry |= {"prior_rows": float(sum(row.role == "prior" for row in rows))}
        entry |= run.apply()
        run.handle_due(entry | {"seconds": time.perf_counter() - start, "forwards": float(run.forwards)})
    target = run.folder / "lora.safetensors"
    with run.as_shipped():
        save_lora(run.adapter, target, run.metadata)
    return target


def _masks(batch: Sequence[Draft], device: torch.device) -> Tensor | None:
    """[B 1 H W], or None where no row has a mask."""
    if all(draft.mask is None for draft in batch):
        return None
    whole = torch.ones(1, *batch[0].latents.shape[1:])
    return torch.stack([whole if draft.mask is None else draft.mask for draft in batch]).to(device)


def _keep_newest(folder: Path, count: int) -> None:
    for old in sorted(folder.glob("*.safetensors"))[: -count or None]:
        old.unlink()
