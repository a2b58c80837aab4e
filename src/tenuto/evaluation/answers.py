"""What models answer at the base's own states: the predictions that drift and additivity are measured on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tenuto.evaluation.bench import Bench, State, Wanted, asked_at, callable_at, every_few, share_of
from tenuto.evaluation.keys import Keys
from tenuto.evaluation.prompts import Prompts
from tenuto.evaluation.readings import Gap, Pair, Store, energy, gaps_from_json, gaps_to_json
from tenuto.evaluation.settings import ComparisonSettings
from tenuto.evaluation.wardrobe import BASE, Model, Wardrobe
from tenuto.events import Listener, progress
from tenuto.files import hash_text, write_tensors
from tenuto.randomness import seed_for

KEPT_BYTES = 1 << 29
"""What all arms are held against is kept in memory up to this size; older answers are asked for again."""


class Answers:
    """The predictions of one comparison, kept as squared norms of what a model changes."""

    def __init__(
        self,
        bench: Bench,
        wardrobe: Wardrobe,
        store: Store,
        keys: Keys,
        settings: ComparisonSettings,
        prompts: Prompts,
        called: bool,
        seed: int,
        listener: Listener,
    ) -> None:
        """called: the concept has a trigger, so prompts are asked with it too."""
        self.bench, self.wardrobe, self.store, self.keys = bench, wardrobe, store, keys
        self.settings, self.prompts, self.called = settings, prompts, called
        self.seed, self.listener = seed, listener
        self._answers: dict[tuple[int, str], list[Tensor]] = {}
        self._of_a_seed = 4 if settings.second_lora else 3  # prompt, empty, trigger, second LoRA: never let go of
        self._states: dict[int, list[State]] = {}

    def states(self, noise: int) -> list[State]:
        """States on the base's own sampling paths: near and far prompts and the empty one."""
        if noise in self._states:
            return self._states[noise]
        s = self.settings
        near = self.prompts.near()[: s.drift_prompts]
        far = self.prompts.rows["far"][: len(near) or s.drift_prompts]  # both count alike
        size = near[0].size if near else self.bench.base.geometry.native
        asks = [(a.bare, a.text if self.called else None, "near", a.size) for a in near]
        asks += [(a.bare, None, "far", a.size) for a in far] + [("", None, "empty", size)]
        seeds = [seed_for(self.seed, "comparison path", noise=noise, number=n) & 0x7FFFFFFF for n in range(len(asks))]
        key = self.keys.of(BASE, noise, states=s.states, asks=[[a[0], str(a[3])] for a in asks], seeds=seeds)
        path = self.store.folder / f"states-{noise}-{hash_text(repr(key))[:16]}.safetensors"
        wanted = [Wanted(text, seed, size) for (text, _, _, size), seed in zip(asks, seeds, strict=True)]
        kinds = [(kind, triggered) for _, triggered, kind, _ in asks]
        try:
            stored = load_file(path)
            states = [
                State(
                    wanted[n].text, kinds[n][1], kinds[n][0], stored[f"x.{n}.{i}"], stored[f"t.{n}.{i}"], wanted[n].size
                )
                for n in range(len(wanted))
                for i in range(sum(name.startswith(f"x.{n}.") for name in stored))
            ]
        except (FileNotFoundError, SafetensorError, KeyError):
            progress(self.listener, f"{BASE.name}: paths", 0, len(wanted))
            with self.wardrobe.on(BASE):
                states = self.bench.paths(wanted, kinds, s.states)
            stored, places = {}, dict.fromkeys(range(len(wanted)), 0)
            index = {want: n for n, want in enumerate((w.text, k[0]) for w, k in zip(wanted, kinds, strict=True))}
            for state in states:
                n = index[(state.text, state.kind)]
                stored |= {f"x.{n}.{places[n]}": state.x_t.contiguous(), f"t.{n}.{places[n]}": state.t.contiguous()}
                places[n] += 1
            write_tensors(path, stored)
        self._states[noise] = states
        return states

    def of_base(self, noise: int, what: Literal["prompt", "empty", "trigger"]) -> list[Tensor]:
        """The bare base's predictions at the states of this seed, kept in memory."""
        return self._kept((noise, what), lambda: self._ask(BASE, *asked_at(self.states(noise), what)))

    def _ask(self, model: Model, states: Sequence[State], texts: Sequence[str]) -> list[Tensor]:
        with self.wardrobe.on(model):
            return self.bench.predict(states, texts)

    def _kept(self, name: tuple[int, str], ask: Callable[[], list[Tensor]]) -> list[Tensor]:
        if name in self._answers:
            return self._answers[name]
        self._answers[name] = answers = ask()
        while sum(map(_bytes, self._answers.values())) > KEPT_BYTES and len(self._answers) > self._of_a_seed:
            del self._answers[next(iter(self._answers))]
        return answers

    def gaps(self, model: Model, noise: int, few: int | None) -> tuple[tuple[Gap, ...], float]:
        """Squared norms at every state (of every few-th prompt), and the numeric floor."""
        states = self.states(noise)
        chosen = every_few(states, few)
        s = self.settings
        asks = [[state.text, state.triggered] for state in states]
        key = self.keys.of(model, noise, few=few, states=s.states, drift=s.drift_prompts, asks=asks)

        def read() -> Any:
            f0, u0 = ([self.of_base(noise, what)[n] for n in chosen] for what in ("prompt", "empty"))
            places = callable_at(states)
            t0 = dict(zip(places, self.of_base(noise, "trigger"), strict=True)) if places else {}
            picked = [states[n] for n in chosen]
            with_trigger = [n for n in chosen if n in t0]
            progress(self.listener, f"{model.name}: predictions", 0, len(chosen))
            with self.wardrobe.on(replace(model, strength=0.0)):
                zero = self.bench.predict(picked[:16], [state.text for state in picked[:16]])
            with self.wardrobe.on(model):
                f1 = self.bench.predict(picked, [state.text for state in picked])
                u1 = self.bench.predict(picked, [""] * len(picked))
                called = [states[n] for n in with_trigger]
                t1 = self.bench.predict(called, [str(state.triggered) for state in called])
            triggered = {n: (energy(t1[i] - t0[n]), n) for i, n in enumerate(with_trigger)}
            w, steps = self.settings.guidance, self.bench.base.process.steps
            gaps = []
            for place, n in enumerate(chosen):
                state, d, du = states[n], f1[place] - f0[place], u1[place] - u0[place]
                gaps.append(
                    Gap(
                        prompt=state.text, kind=state.kind, t=share_of(state.t, steps),
                        d=energy(d), du=energy(du), dg=energy(w * d - (w - 1) * du),
                        g=energy(f0[place] - u0[place]),
                        d_trigger=triggered[n][0] if n in triggered else None,
                        g_trigger=energy(t0[n] - u0[place]) if n in triggered else None,
                        f_th=energy(f1[place]), f_0=energy(f0[place]),
                    )
                )  # fmt: skip
            effect = sum(gap.g for gap in gaps[:16])
            floor = sum(energy(a - b) for a, b in zip(zero, f0[:16], strict=True)) / effect if effect > 0 else 0.0
            return {"gaps": gaps_to_json(gaps), "floor": floor}

        reading = self.store.keep(f"{model.name}-{noise}-predictions", key, read)
        return gaps_from_json(reading["gaps"]), float(reading["floor"])

    def pairs(self, model: Model, second: Path, noise: int, few: int) -> tuple[Pair, ...]:
        """What this model and the second LoRA change alone and together, at the states of every few-th prompt."""
        states = self.states(noise)
        chosen = every_few(states, few)
        picked, texts = [states[n] for n in chosen], [states[n].text for n in chosen]
        s, both = self.settings, replace(model, second=second)
        key = self.keys.of(both, noise, few=few, states=s.states, drift=s.drift_prompts, asks=texts)

        def read() -> Any:
            progress(self.listener, f"{model.name}: predictions beside the second LoRA", 0, len(chosen))
            base = [self.of_base(noise, "prompt")[n] for n in chosen]
            own = self._ask(model, picked, texts)
            alone = replace(BASE, second=second)
            other = self._kept((noise, f"second, every {few}"), lambda: self._ask(alone, picked, texts))
            together = self._ask(both, picked, texts)
            return [asdict(Pair.of(*answers)) for answers in zip(base, own, other, together, strict=True)]

        return tuple(Pair(**each) for each in self.store.keep(f"{model.name}-{noise}-pairs", key, read))


def _bytes(answers: Sequence[Tensor]) -> int:
    return sum(answer.numel() * answer.element_size() for answer in answers)
