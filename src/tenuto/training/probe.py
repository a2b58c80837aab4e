"""The probe: a few fixed states of the first rows, asked of the base alone before the first update.

Where the prior images' own paths are kept, the base has answered already, and nothing is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from tenuto.adapters.adapter import Adapter
from tenuto.prior.states import BasePath, State, evenly
from tenuto.ranks import ALONE, Ranks
from tenuto.regularizers.base import Activations
from tenuto.regularizers.draft import Draft
from tenuto.regularizers.normal import BINS, bins_of
from tenuto.regularizers.step import At, Rows, Step, squared_error
from tenuto.training.listening import Listening
from tenuto.training.rows import Row, micro_batches
from tenuto.words import Role

ROWS = 8
"""Rows of each role that are looked at, once in every bin of t: 8 x BINS x 2 forwards for a prompt's effect, none where
every state of their paths says it."""

STATES_READ = 2
"""Of each of the controller's paths, two of four places evenly spaced in t, as a comparison reads them (drift is
largest at low noise, where a sampler takes few of its steps), and of another path the other two: prompts differ more in
how far they drift than the places of one prompt do."""

AT_ONCE = 16
"""Controller states in one forward."""


class BaseProbe:
    """Answers `regularizers.base.Probe`."""

    def __init__(
        self,
        rows: Callable[[Role], Sequence[Row]],
        prompts: Callable[[], Mapping[str, str]],
        draft: Callable[[Row, int], Draft],
        step: Callable[[Sequence[Draft]], Step],
        adapter: Adapter,
        timesteps: int,
        paths: Sequence[BasePath] = (),
        ranks: Ranks = ALONE,
    ) -> None:
        """draft: a row at a bin of t; step: drafts as a step (one size and text length); timesteps: of the process;
        paths: the controller's."""
        self._prompts = prompts
        self._rows, self._draft, self._step, self._adapter, self._ranks = rows, draft, step, adapter, ranks
        self._timesteps = timesteps
        self._sensor = [(path, index) for number, path in enumerate(paths) for index in self._read_of(path, number)]
        self._steps: dict[Role, list[Step]] = {}
        self._effects: dict[tuple[Role, At], Tensor] = {}

    def prior_prompts(self) -> Mapping[str, str]:
        return self._prompts()

    @torch.no_grad()
    def effect(self, role: Role, at: At) -> Tensor:
        if (role, at) not in self._effects:
            states = self._kept(role) if at == "own" else []
            self._effects[role, at] = self._kept_effect(states) if states else self._asked_effect(role, at)
        return self._effects[role, at]

    def _kept(self, role: Role) -> list[State]:
        """Every state of the first rows' paths, with the base's answers to the prompt and to no words; none where a row
        has no such path, or a bin no state. A prompt without words has no effect to tell."""
        paths = [row.path for row in self._rows(role)]
        if any(path is None or path.negative for path in paths):
            return []
        states = [path.read(index) for path in paths if path and path.prompt for index in range(path.count)]
        seen = {int(bins_of(torch.tensor(state.t), self._timesteps)) for state in states if state.blank is not None}
        return states if len(seen) == BINS and all(state.blank is not None for state in states) else []

    def _kept_effect(self, states: Sequence[State]) -> Tensor:
        """One by one: paths differ in size."""
        asked = [(state, state.blank) for state in states if state.blank is not None]
        return self._by_bin(
            [(torch.tensor([state.t]), squared_error(state.answer[None], blank[None])) for state, blank in asked]
        )

    def _asked_effect(self, role: Role, at: At) -> Tensor:
        def moved(step: Step, rows: Rows) -> Tensor:
            return squared_error(
                step.predict(rows, at=at, adapter=False), step.predict(rows, at="blank", adapter=False)
            )

        asked = [(step, tuple(row for row, text in enumerate(step.texts[at]) if text)) for step in self._of(role)]
        return self._by_bin([(step.t[list(rows)], moved(step, rows)) for step, rows in asked if rows])

    def _by_bin(self, moved: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """The mean in each bin of t [BINS], of (t [R], values [R])."""
        sums, counts = torch.zeros(BINS), torch.zeros(BINS)
        for t, values in moved:
            bins = bins_of(t, self._timesteps).cpu()
            sums.index_add_(0, bins, values.cpu())
            counts.index_add_(0, bins, torch.ones(len(t)))
        return sums / counts.clamp(min=1)

    @torch.no_grad()
    def error(self) -> float:
        errors = [step.error(step.rows("instance"), adapter=False).cpu() for step in self._of("instance")]
        return float(torch.cat(errors).mean()) if errors else 0.0

    def forget(self) -> None:
        """Let go of the states that were looked at; their answers have been told."""
        self._steps.clear()

    @torch.no_grad()
    def activations(self, count: int) -> dict[str, Activations]:
        each = max(1, count // max(1, len(self._sensor)))
        with Listening(self._adapter, each) as heard:
            for batch in micro_batches([self._at(number) for number in range(len(self._sensor))], AT_ONCE):
                heard.visits = [draft.visit for draft in batch]
                self._step(batch).predict(adapter=False)
        return heard.found()

    def sensor_effects(self) -> Tensor:
        states = [(path.weight, path.read(index)) for path, index in self._sensor]
        if not states or any(state.blank is None for _, state in states):
            raise ValueError("controller states need both answers of the base")
        return torch.stack([w * (s.answer - s.blank).square().sum() for w, s in states if s.blank is not None])

    @torch.no_grad()
    def sensor_moved(self, states: Sequence[int]) -> Tensor:
        moved = torch.zeros(len(self._sensor))
        for batch in micro_batches([self._at(number) for number in self._ranks.part(states)], AT_ONCE):
            step = self._step(batch)
            gaps = (step.predict() - step.target).square().sum(dim=(1, 2, 3)).cpu()
            numbers = [draft.visit for draft in batch]
            moved[numbers] = gaps * torch.tensor([self._sensor[number][0].weight for number in numbers])
        return self._ranks.sum(moved)[list(states)]

    def _read_of(self, path: BasePath, number: int) -> list[int]:
        """By turns that fall in step with no others, of kinds of prompts or of concepts (Thue-Morse)."""
        shares = [path.read(index).t / self._timesteps for index in range(path.count)]
        places = evenly(shares, 2 * STATES_READ)
        return places[number.bit_count() % 2 :: 2] or places

    def _at(self, number: int) -> Draft:
        """A controller state as a row; `visit` is its number."""
        path, index = self._sensor[number]
        state = path.read(index)
        return Draft(
            id="controller",
            visit=number,
            role="prior",
            size=path.size,
            caption=path.prompt,
            class_caption=path.prompt,
            bare_caption=path.prompt,
            chunks=path.chunks,
            latents=state.x_t,
            t=state.t,
            noise=state.x_t,
            fixed=(state.x_t, state.answer),
        )

    def _of(self, role: Role) -> list[Step]:
        if role not in self._steps:
            drafts = [self._draft(row, number) for row in self._rows(role) for number in range(BINS)]
            self._steps[role] = [self._step(batch) for batch in micro_batches(drafts, BINS)]
        return self._steps[role]
