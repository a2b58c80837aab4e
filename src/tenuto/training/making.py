"""From rows to steps: every draw is made here, prompts become conditioning, and the network is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import islice

import torch
from torch import Tensor

from tenuto.adapters.adapter import Adapter
from tenuto.data.cache import Cache
from tenuto.data.schedule import Update
from tenuto.families.base import Base, Conditioning
from tenuto.randomness import noise, stream
from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.draft import Draft, timesteps
from tenuto.regularizers.normal import BINS
from tenuto.regularizers.step import At, Rows, Step
from tenuto.training.means import Means
from tenuto.training.probe import ROWS
from tenuto.training.rows import ROLES, Row, Source, roles, shares
from tenuto.training.texts import Texts, Words
from tenuto.words import Role


class StepMaker:
    """Makes drafts of rows and steps of drafts, for one training."""

    def __init__(
        self,
        base: Base,
        adapter: Adapter,
        regularizers: Mapping[str, Regularizer],
        seed: int,
        means: Means,
        texts: Cache | None = None,
    ) -> None:
        """`texts`: where encoded prompts lie for every run."""
        self.base, self.adapter, self.regularizers, self.seed = base, adapter, regularizers, seed
        self.means = means
        self.forwards = 0
        self.chances = {role: self._chances(role) for role in ROLES}
        self.texts = Texts(base, adapter, texts)

    # -- draws --------------------------------------------------------------------------------------------------

    def draft(self, row: Row, epoch: float) -> Draft:
        """Every draw for a row happens here, named by its id and visit; then the methods may change it."""
        draft = self._plain(row, self._timestep(row), epoch, "noise")
        for method in self.regularizers.values():
            draft = method.draw(draft, self.seed)
        return draft

    def _plain(self, row: Row, t: float, epoch: float, purpose: str, **place: int) -> Draft:
        return Draft(
            id=row.id,
            visit=row.visit,
            role=row.role,
            size=row.size,
            caption=row.caption,
            class_caption=row.caption if row.class_caption is None else row.class_caption,
            bare_caption=row.caption if row.bare_caption is None else row.bare_caption,
            chunks=row.chunks,
            varied=row.varied,
            latents=row.latents,
            t=t,
            noise=noise(tuple(row.latents.shape), self.seed, purpose, row=row.id, visit=row.visit, **place),
            mask=row.mask,
            path=row.path,
            epoch=epoch,
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

    # -- what the methods may ask before the first update ---------------------------------------------------------

    def first_rows(self, updates: Sequence[Update], sources: Mapping[str, Source], role: Role) -> list[Row]:
        """The rows that the probe looks at."""
        draws = (draw for update in updates for draw in update.of(role) if not draw.visit)
        return [sources[draw.id].row(0) for draw in islice(draws, ROWS)]

    def prior_prompts(self, updates: Sequence[Update], sources: Mapping[str, Source]) -> dict[str, str]:
        """Of every prior row that will be drawn, by id."""
        names = dict.fromkeys(draw.id for update in updates for draw in update.of("prior"))
        return {name: sources[name].prompt() for name in names}

    def probed(self, row: Row, number: int) -> Draft:
        """The row at one bin of t."""
        width = self.base.process.steps / BINS
        share = float(torch.rand((), generator=stream(self.seed, "probe", row=row.id, bin=number)))
        return self._plain(row, int((number + share) * width), 0.0, "probe noise", bin=number)

    def alone(self, batch: Sequence[Draft]) -> Step:
        """A step that is no part of an update."""
        return self.step(batch, shares(batch, roles(batch)))

    # -- steps --------------------------------------------------------------------------------------------------

    def step(self, batch: Sequence[Draft], share: Tensor) -> Step:
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
            words = [Words(texts[at][i], batch[i].size, batch[i].chunks, not batch[i].varied) for i in rows]
            trained = adapter and self.adapter.trains_text()
            return self.texts.read(words) if trained else self.texts.told(at, words)

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
            epoch=batch[0].epoch,
            process=self.base.process,
            chances=self.chances,
            model=self.ask,
            mask=_masks(batch, device),
        )

    def ask(self, x_t: Tensor, t: Tensor, cond: Conditioning, *, adapter: bool) -> Tensor:
        """The network with the adapter, or the base alone. A forward with its backward counts as two forwards."""

        def answer(part: slice) -> Tensor:
            self.forwards += len(t[part]) * (2 if torch.is_grad_enabled() else 1)
            with nullcontext() if adapter else self.adapter.disabled():
                return self.base.predict(x_t[part], t[part], cond.rows(part))

        if torch.is_grad_enabled():
            return answer(slice(None))
        return self.means.without_gradient(len(t), answer)


def _masks(batch: Sequence[Draft], device: torch.device) -> Tensor | None:
    """[B 1 H W], or None where no row has a mask."""
    if all(draft.mask is None for draft in batch):
        return None
    whole = torch.ones(1, *batch[0].latents.shape[1:])
    return torch.stack([whole if draft.mask is None else draft.mask for draft in batch]).to(device)
