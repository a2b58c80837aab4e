"""The training loop. A new idea goes behind a regularizer's hook; no feature has its name in `train`."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from tenuto.adapters.adapter import Adapter
from tenuto.adapters.onto import save_lora
from tenuto.data.cache import Cache
from tenuto.data.schedule import Update
from tenuto.events import Event, Listener, note, progress, silent, warn
from tenuto.families.base import Base
from tenuto.prior.states import BasePath
from tenuto.ranks import ALONE, Ranks
from tenuto.regularizers.base import NOTHING_HEARD, Done, Memory, Place, Regularizer
from tenuto.regularizers.draft import Draft
from tenuto.training.best import SCORE, Best
from tenuto.training.folder import RunFolder, keep_newest
from tenuto.training.making import StepMaker
from tenuto.training.means import Means
from tenuto.training.objective import hear, multiplier, objective, penalties, silence
from tenuto.training.plan import Plan
from tenuto.training.probe import BaseProbe
from tenuto.training.rows import Row, Source, importance, micro_batches, roles, shares
from tenuto.training.settings import SAVED, TrainingSettings
from tenuto.training.state import OptimizerMemory, TrainState
from tenuto.training.together import add_gradients, all_roles, all_terms, in_step, state_of_first
from tenuto.training.watch import Watch
from tenuto.words import Role, Stopped, TenutoError


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
    plan: Plan = field(default_factory=Plan)
    """All that decides the result."""
    header: Callable[[int], Mapping[str, str]] = lambda done: {}
    """Header of the LoRA as it is after so many updates."""
    sensor: Sequence[BasePath] = ()
    """Paths that the drift controller reads, at prompts of its own."""
    listener: Listener = silent
    stop: Callable[[], bool] = lambda: False
    watch: Sequence[Watch] = ()
    """Take their readings every `watch_every` updates."""
    sample: Callable[[int], None] = lambda update: None
    """Draws the sample pictures of an update."""
    ranks: Ranks = ALONE
    """The processes that train this together; each has its part of every update's rows, and the first one writes."""
    texts: Cache | None = None
    """Where encoded prompts lie for every run."""

    def __post_init__(self) -> None:
        self.done = 0
        self.best = Best()
        self.files = RunFolder(self.folder, self.listener)
        self.journal = self.files.journal
        self.regularizers = {name: method for name, method in self.regularizers.items() if method.active()}
        self.memories: dict[str, Memory] = {}
        self.parameters = self.adapter.parameters()
        self.optimizer: Optimizer = self.settings.optimizer.build(self.parameters)
        self.scaler = GradScaler(self.base.device.type, enabled=self.settings.precision == "fp16")
        self.terms: Mapping[str, float] = {}
        self.heard: dict[str, Tensor] = {}
        self.rows: Mapping[Role, int] = {}
        self.importance = importance(self.updates)
        self.means = Means(self.base, self.settings.micro_batch, self.settings.compile, self.listener)
        self.maker = StepMaker(self.base, self.adapter, self.regularizers, self.seed, self.means, self.texts)
        first = partial(self.maker.first_rows, self.updates, self.sources)
        prompts = partial(self.maker.prior_prompts, self.updates, self.sources)
        timesteps = self.base.process.steps
        self.probe = BaseProbe(
            first, prompts, self.maker.probed, self.maker.alone, self.adapter, timesteps, self.sensor, self.ranks
        )

    @property
    def epoch(self) -> float:
        """Epochs done, a fraction."""
        return self.done * self.settings.batch / self.rows_per_epoch

    # -- one update ---------------------------------------------------------------------------------------------

    def remaining(self) -> Iterator[list[Row]]:
        """This rank's rows of every update that is still to be done."""
        while not self.over():
            rows = self._rows(self.done)
            self.maker.texts.foresee(rows, (self._rows(update) for update in range(self.done, len(self.updates))))
            yield rows

    def over(self) -> bool:
        """Whether no update is left."""
        return self.done >= len(self.updates) or self.ended()

    def _rows(self, update: int) -> list[Row]:
        return [self.sources[draw.id].row(draw.visit) for draw in self.ranks.part(self.updates[update].draws)]

    def learn(self, rows: Sequence[Row]) -> dict[str, float]:
        """Gradients of one update, of all ranks' rows. Returns the value of every term of the loss.

        What fails for want of memory is made again by other means: rows and draws are named, so it is the same update.
        """
        self.begin()
        drafts = [self.maker.draft(row, self.epoch) for row in rows]
        self.rows = all_roles(self.ranks, roles(drafts))
        own = self._own_gradients(drafts)
        add_gradients(self.ranks, self.parameters)
        self.terms = all_terms(self.ranks, own, ("instance", *self.regularizers))
        self.heard = {name: self.ranks.sum(value) for name, value in self.heard.items()}
        return dict(self.terms)

    def _own_gradients(self, drafts: Sequence[Draft]) -> dict[str, float]:
        while True:
            try:
                totals = self._gradients(drafts)
                if self.means.sound(self.parameters, lambda: self._gradients_again(drafts)):
                    return totals
            except Exception as error:
                if not self.means.give_way(error):
                    raise
            self.means.make_room()

    def _gradients_again(self, drafts: Sequence[Draft]) -> None:
        """Nothing but the gradients is taken from them."""
        heard, forwards = self.heard, self.maker.forwards
        self._gradients(drafts)
        self.heard, self.maker.forwards = heard, forwards

    def _gradients(self, drafts: Sequence[Draft]) -> dict[str, float]:
        """Micro-batch by micro-batch."""
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(torch.zeros((), device=self.base.device))  # it must know its scale where a rank has no row
        totals: dict[str, float] = {}
        self.heard = silence(self.regularizers, self.memories)
        apart = any(method.apart() for method in self.regularizers.values())
        for batch in micro_batches(drafts, self.means.rows, apart=apart):
            self.means.tried(len(batch))
            with self._during(batch):
                step = self.maker.step(batch, shares(batch, self.rows, self.importance))
                self._backward(objective(step, self.regularizers, self.memories), batch, totals)
                hear(step, self.regularizers, self.memories, self.heard)
        if self.ranks.first:
            self._backward(penalties(self.adapter, self.regularizers, self.memories, self.epoch), drafts, totals)
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
        values = torch.stack(list(terms.values()))
        loss = values.sum()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        total, *each = torch.stack([loss, *values]).tolist()  # waits for the device, once
        if not math.isfinite(total):
            raise self.not_finite(batch, dict(zip(terms, each, strict=True)))
        for name, value in zip(terms, each, strict=True):
            totals[name] = totals.get(name, 0.0) + value

    # -- after the gradients --------------------------------------------------------------------------------------

    def apply(self, rows: Sequence[Row] = ()) -> dict[str, float]:
        """Clip, step, let the regularizers look, move the clock. Returns what to log; errors name the rows."""
        limit = self.settings.clip_norm or float("inf")
        self.scaler.unscale_(self.optimizer)
        norm = float(clip_grad_norm_(self.parameters, limit))
        asked = self.settings.optimizer.lr * self.settings.learning_rate.factor(self.done, len(self.updates))
        for group in self.optimizer.param_groups:
            group["lr"] = asked
        entry = {"gradient_norm": norm, "clipped": float(norm > limit)}
        if math.isfinite(norm):
            self.scaler.step(self.optimizer)
            self.done += 1
            rate = self.settings.optimizer.rate(self.optimizer, asked)
            entry |= {"lr": rate} | self._look(rate)
        elif self.scaler.get_scale() > 1:  # float16 ran over: this update is left out, the next scale is smaller
            self.done += 1
            entry |= {"lr": 0.0, "gradient_norm": 0.0}
        else:
            raise self.not_finite(rows, {"gradient_norm": norm})
        if self.scaler.is_enabled():
            entry |= {"overflow": float(not math.isfinite(norm)), "loss_scale": self.scaler.get_scale()}
            self.scaler.update()
        return entry

    def _look(self, rate: float) -> dict[str, float]:
        """What the methods do after the optimizer's step, and note."""
        tell, notes = partial(warn, self.listener), dict[str, float]()
        for name, method in self.regularizers.items():
            heard = self.heard.get(name, NOTHING_HEARD)
            done = Done(self.done, self.epoch, self.terms, heard, rate, self.seed, self.probe, tell)
            self.memories[name] = method.after_update(self.adapter, self.memories[name], done)
            notes |= {f"{name}.{key}": value for key, value in method.notes(self.memories[name]).items()}
        return notes

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
        with self.settings.optimizer.shipping(self.optimizer):
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

    def ended(self) -> bool:
        """Whether the best LoRA so far has not been bettered for as long as one was to wait."""
        patience = self.settings.best.patience
        return patience is not None and self.best.since >= patience

    def handle_due(self, entry: dict[str, float]) -> None:
        """Watch, log, save, sample; stop when any rank is asked to."""
        if self.ranks.first:
            if self.due(self.settings.watch_every):
                entry |= self._watch()
            self.journal.write(entry)
            self.listener(Event("log", dict(entry)))
            progress(self.listener, "training", self.done, len(self.updates), **entry)
        if self.settings.best.keep:
            self.best = Best(**self.ranks.told(self.best.standing()))
        stopping = self.ranks.any(self.stop())
        if self.due(self.settings.save_every) or stopping or self.ended():
            self.save()
        if self.due(self.settings.sample_every) and self.ranks.first:
            with self.as_shipped():
                self.sample(self.done)
        if stopping and self.done < len(self.updates):
            raise Stopped(
                f"stopped after update {self.done} of {len(self.updates)}; the same command goes on from there"
            )

    def _watch(self) -> dict[str, float]:
        """Readings of the adapter as it is shipped; the best one's LoRA is kept."""
        best = self.settings.best
        with self.as_shipped():
            readings = {name: value for read in self.watch for name, value in read().items()}
            if best.keep:
                score = best.score(readings)
                readings |= {} if score is None else {SCORE: score}
                self.best = self.best.after(score, self.done)
                if self.best.update == self.done:
                    self._write(self.files.best)
        if self.ended() and self.done < len(self.updates):
            note(
                self.listener,
                f"ended after update {self.done} of {len(self.updates)}: no better score for {self.best.since} "
                f"readings; the best LoRA is that of update {self.best.update}, {self.files.best}",
            )
        return readings

    def _write(self, path: Path) -> None:
        """The adapter as it is, as a LoRA file."""
        save_lora(self.adapter, path, self.header(self.done), SAVED[self.settings.save_precision])

    def save(self) -> None:
        """The LoRA so far, then the state; older ones go when the new ones are whole."""
        state = self.state()
        if self.ranks.first:
            with self.as_shipped():
                self._write(self.files.snapshot(self.done))
            self.files.keep_state(state)
            if self.settings.keep is not None:
                keep_newest(self.files.snapshots, self.settings.keep)
        if not in_step(self.ranks, state):
            self.go_on_from(state_of_first(self.ranks, state) or state)

    def state(self) -> TrainState:
        """Everything that must survive."""
        return TrainState(
            update=self.done,
            plan=self.plan,
            adapter=self.adapter.state(),
            optimizer=OptimizerMemory.of(self.optimizer),
            memories=self.memories,
            threads=torch.get_num_threads(),
            standing={
                "means": self.means.standing(),
                "scaler": self.scaler.state_dict(),
                "best": self.best.standing(),
            },
        )

    def resume(self) -> None:
        """Go on from the newest saved state, if there is one. Raises TenutoError when it is of another plan."""
        if not self.ranks.same(json.dumps(self.plan.facts, sort_keys=True)):
            raise TenutoError(
                "the processes of this job see different projects, pictures, prior images or checkpoints; give every "
                "machine the same files"
            )
        state = state_of_first(self.ranks, self.files.newest_state(self.plan) if self.ranks.first else None)
        if self.ranks.first:
            self.journal.cut(state.update if state else 0)
            logged = self.journal.read()  # a power cut may have taken the log's last lines
            self.maker.forwards = int(logged[-1]["forwards"]) if logged else 0
        if state:
            self.go_on_from(state)

    def go_on_from(self, state: TrainState) -> None:
        """Stand where this state was taken."""
        if state.threads != torch.get_num_threads():
            warn(
                self.listener,
                f"saved with {state.threads} CPU threads, now {torch.get_num_threads()}: last bits may differ",
            )
        self.adapter.load(state.adapter)
        state.optimizer.give(self.optimizer)
        self.memories = {name: state.memories.get(name, {}) for name in self.regularizers}
        self.means.stand(state.standing["means"])
        self.scaler.load_state_dict(state.standing["scaler"])
        self.best = Best(**state.standing["best"])
        self.done = state.update

    def cost(self, start: float) -> dict[str, float]:
        """Seconds since then, and the forwards of all ranks so far."""
        forwards = float(self.ranks.sum(torch.tensor(self.maker.forwards)))
        return {"seconds": time.perf_counter() - start, "forwards": forwards}

    def finish(self) -> Path:
        """The LoRA at the end, as strong as the methods let it be. What they asked for that is logged."""
        start, before = time.perf_counter(), self.maker.forwards
        with self.as_shipped():
            asked = [method.shipped_strength(self.adapter, self.probe) for method in self.regularizers.values()]
            strength = math.prod(own for own, _ in asked)
            with self.adapter.rescaled(strength):
                if self.ranks.first:
                    self._write(self.files.lora)
        cost = self.cost(start)
        if self.ranks.first and self.maker.forwards > before:
            self.journal.write({"update": float(self.done), "epoch": self.epoch, **cost})
        if strength != 1:
            why = "; ".join(words for own, words in asked if own != 1)
            note(self.listener, f"the finished LoRA ships at {strength:.2f} of its strength, {why}")
        return self.files.lora

    def not_finite(self, rows: Sequence[Draft | Row], values: Mapping[str, float]) -> NotFinite:
        """The error that names the rows; nothing of this update was applied or saved."""
        told = ", ".join(f"{name} = {value:g}" for name, value in values.items())
        names = ", ".join(f"{row.role} {row.id[:20]} ({row.caption[:40]})" for row in rows)
        return NotFinite(
            f"update {self.done + 1}: not finite ({told}) on rows: {names}; nothing was applied, the last good state "
            f'is in {self.files.states}; lower training.optimizer.lr or use precision = "fp32"'
        )


def train(run: Run) -> Path:
    """Train to the end, from wherever the run's folder stands. Returns the LoRA file. Raises Stopped, NotFinite.

    What is finished is left as it is: the header of its file tells when it was made.
    """
    run.resume()
    finished = run.over()
    run.base.checkpointing(run.settings.gradient_checkpointing)
    run.means.begin()
    run.begin()
    for rows in run.remaining():
        start = time.perf_counter()
        entry = {"update": float(run.done + 1), "epoch": run.epoch}
        entry |= {f"weight.{name}": weight for name, weight in run.weights().items()}
        entry |= {f"loss.{name}": value for name, value in run.learn(rows).items()}
        entry |= {"prior_rows": float(run.rows["prior"])}
        entry |= run.apply(rows)
        run.handle_due(entry | run.cost(start))
    return run.files.lora if finished and run.files.lora.is_file() else run.finish()
