"""Readings of a model: pictures as the tagger sees them, predictions at the base's own states, losses on pictures.

Every reading is kept as a small file under a key of all that it depends on, so that a killed comparison goes on where
it was and an unchanged arm is never read twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tenuto.adapters.info import content_hash
from tenuto.data.bank import Bank
from tenuto.data.dataset import Concept, Item
from tenuto.data.images import fit, read_image
from tenuto.evaluation.bench import Bench, State, Wanted, asked_at, callable_at, every_few, share_of
from tenuto.evaluation.encoders import Encoder, Reads
from tenuto.evaluation.groups import groups_of_concept
from tenuto.evaluation.pictures import pictures_of, save_picture
from tenuto.evaluation.prompts import Ask, Prompts, Row, majorities
from tenuto.evaluation.readings import (
    TAGGER_FEATURES,
    Gap,
    Losses,
    Pair,
    Seen,
    Store,
    energy,
    gaps_from_json,
    gaps_to_json,
)
from tenuto.evaluation.record import FORMAT
from tenuto.evaluation.settings import ComparisonSettings
from tenuto.evaluation.taggers import Tagger, detector, read_pictures
from tenuto.evaluation.wardrobe import BASE, Model, Wardrobe
from tenuto.events import Listener, progress
from tenuto.files import hash_text, write_tensors
from tenuto.randomness import seed_for
from tenuto.words import Size

KEPT_BYTES = 1 << 29
"""What all arms are held against is kept in memory up to this size; older answers are asked for again."""


class Reader:
    """The readings of one comparison: made once, kept in small files, handed on to become Evidence."""

    def __init__(
        self,
        bench: Bench,
        settings: ComparisonSettings,
        concept: Concept,
        prompts: Prompts,
        folder: Path,
        tagger: Tagger | None,
        bank: Bank,
        background: str,
        seed: int,
        listener: Listener,
        dino: Encoder | None = None,
        clip: Reads | None = None,
    ) -> None:
        self.bench, self.settings, self.concept, self.prompts = bench, settings, concept, prompts
        self.folder, self.tagger, self.bank, self.background = folder, tagger, bank, background
        self.seed, self.listener, self.clip = seed, listener, clip
        self.encoders: dict[str, Encoder] = {name: own for name, own in (("dino", dino), ("clip", clip)) if own}
        if dino is None and isinstance(tagger, Encoder):
            self.encoders[TAGGER_FEATURES] = tagger
        self.wardrobe = Wardrobe(bench)
        self.store = Store(folder / "readings")
        self.missing: dict[str, str] = {}
        if tagger is None:
            self.missing["tagger"] = "no tagger that reads this checkpoint's pictures; name one as comparison.tagger"
        for name, what in (("dino", "DINO"), ("clip", "CLIP")):
            if name not in self.encoders:
                self.missing[name] = f"no {what} encoder was named as comparison.{name}"
        if not concept.trigger:
            self.missing["trigger"] = "the concept has no trigger"
        if not settings.second_lora:
            self.missing["second"] = "no second LoRA was named"
        if not settings.weights:
            self.missing["strip"] = "the weight strip is switched off"
        if "style" in prompts.missing:
            self.missing["row style"] = prompts.missing["style"]
        self.detector = detector(tagger, concept.name) if tagger else None
        if tagger and self.detector is None:
            self.missing["detector"] = (
                f"the tagger has no detector for {concept.name}; it has {', '.join(tagger.concepts) or 'none'}"
            )
        self.own = dict(prompts.own)
        self.train: list[tuple[Tensor, str, Size]] = []
        self.held_out: list[tuple[Tensor, str, Size]] = []
        self.unbiased: list[tuple[Tensor, str, Size]] = []
        self.real: dict[str, Tensor] = {}
        self._answers: dict[tuple[int, str], list[Tensor]] = {}
        self._of_a_seed = 4 if settings.second_lora else 3  # prompt, empty, trigger, second LoRA: never let go of
        self._states: dict[int, list[State]] = {}
        self._hashes: dict[Path, str] = {}
        self.shown: dict[str, str] = {}
        """Arm -> the model whose pictures the report shows."""
        self._items_key = ""

    @property
    def axis(self) -> Literal["concept_strength", "gain"]:
        """What the curve is matched on: the detector's reading, or the loss gain where nobody can read pictures."""
        return "concept_strength" if self.detector or not self.unbiased else "gain"

    def concept_groups(self) -> frozenset[str]:
        if self.settings.concept_groups is not None:
            return frozenset(self.settings.concept_groups)
        return groups_of_concept(self.concept, self.tagger.groups if self.tagger else ())

    def look(self, items: Sequence[Item], held_out: Sequence[Item], test_items: Sequence[Item]) -> None:
        """Encode the user's pictures for the losses, and let the tagger say what the captions keep silent about."""
        everyone = [*items, *held_out, *test_items]
        self._items_key = hash_text(*(item.id for item in everyone))
        pixels = {item.id: fit(read_image(item.path, self.background), item.bucket) for item in everyone}
        latents = {name: self.bench.encode(value) for name, value in pixels.items()}
        limit = 24  # of the training pictures: enough for a mean

        def ready(chosen: Sequence[Item]) -> list[tuple[Tensor, str, Size]]:
            return [(latents[item.id], item.caption, item.bucket) for item in chosen]

        self.train, self.held_out, self.unbiased = ready(items[:limit]), ready(held_out), ready(test_items)
        if not held_out:
            self.missing["held_out"] = "no instance picture was kept out of training"
        if not test_items:
            self.missing["test_images"] = "no unbiased test pictures of this concept"
        self.real = {
            name: torch.cat([own.see(pixels[item.id][None]) for item in items])
            for name, own in self.encoders.items()
            if items
        }
        if self.tagger is None:
            return
        captioned = majorities([item.caption for item in items], self.tagger.groups)
        seen = Seen.join([read_pictures(self.tagger, pixels[item.id][None]) for item in items]) if items else None
        for group in self.tagger.single:
            if seen is not None and group not in captioned:
                counts = seen.reading(group).bincount(minlength=len(self.tagger.groups[group]))
                if int(counts.max()) > len(items) / 2:
                    captioned[group] = self.tagger.groups[group][int(counts.argmax())]
        self.own = {**self.own, **captioned}

    def _key(self, model: Model, noise: int, **more: Any) -> dict[str, Any]:
        """All that a reading depends on."""
        s, base = self.settings, self.bench.base
        return {
            "format": FORMAT,
            "base": [base.hash, str(base.dtype)],
            "model": [self._hash(model.lora), model.strength, self._hash(model.second)],
            "noise": noise,
            "sampler": [s.sampler, s.steps, s.guidance, s.negative, s.batch],
            **more,
        }

    def _hash(self, path: Path | None) -> str | None:
        if path is None:
            return None
        if path not in self._hashes:
            self._hashes[path] = content_hash(path)  # the header may have learned of a comparison since
        return self._hashes[path]

    def _say(self, what: str, **more: Any) -> Callable[[int], None]:
        done = 0
        total = int(more.pop("total", 0))

        def count(n: int) -> None:
            nonlocal done
            done += n
            progress(self.listener, what, done, total, **more)

        return count

    def wanted(self, asks: Sequence[Ask], noise: int, trigger: bool, before: str = "") -> list[Wanted]:
        """Seeds are named by row and number, not by the text: all arms, with and without the trigger, are paired."""
        return [
            Wanted(
                f"{before}, {ask.bare}" if before else ask.text if trigger else ask.bare,
                seed_for(self.seed, "comparison picture", noise=noise, row=ask.row, number=number) & 0x7FFFFFFF,
                ask.size,
            )
            for number, ask in enumerate(asks)
        ]

    def draw(
        self, model: Model, noise: int, row: str, wanted: Sequence[Wanted], show: int, *, encode: bool = False
    ) -> Seen | None:
        """Readings of these pictures, by the encoders too where asked; the first `show` are kept as files for the
        report. None where nobody reads."""
        shown = [self.folder / "pictures" / model.name / f"{row}-{n}.png" for n in range(min(show, len(wanted)))]
        part, fresh = f"{model.name}-{noise}-{row}", False

        def draw(asked: Sequence[Wanted]) -> list[Tensor]:
            nonlocal fresh
            with self.wardrobe.on(model):
                pictures = self.bench.draw(asked, self._say(f"{model.name}: {row}", total=len(asked)))
            for path, pixels in zip(shown, pictures, strict=False):
                save_picture(path, pixels)
            fresh = True
            return pictures

        def show_them() -> None:
            if not fresh:
                draw(wanted[: len(shown)])

        encoders, found = self.encoders if encode else {}, None
        if (self.tagger is not None or encoders) and wanted:
            readers = {"tagger": self.tagger.hash if self.tagger else None}
            readers |= {name: own.hash for name, own in encoders.items()}
            key = self._key(model, noise, wanted=[[w.text, w.seed, *w.size] for w in wanted], **readers)

            def read() -> Any:
                return Seen.join([self._seen(pixels[None], encoders) for pixels in draw(wanted)]).to_json()

            found = Seen.from_json(self.store.keep(part, key, read))
        if shown:
            key = self._key(model, noise, shown=[[w.text, w.seed, *w.size] for w in wanted[: len(shown)]])
            self.store.keep(f"{part}-shown", key, show_them)
            if not all(path.is_file() for path in shown):
                draw(wanted[: len(shown)])
        return found

    def _seen(self, pixels: Tensor, encoders: Mapping[str, Encoder]) -> Seen:
        tagged = read_pictures(self.tagger, pixels) if self.tagger else Seen({}, {})
        return replace(tagged, features={name: own.see(pixels) for name, own in encoders.items()})

    def told(self, asks: Sequence[Ask]) -> Tensor | None:
        """CLIP's features of these prompts without their trigger; None without CLIP."""
        return self.clip.read([ask.bare for ask in asks]) if self.clip and asks else None

    def rows(self, limit: int) -> dict[Row, tuple[Ask, ...]]:
        return {row: asks[:limit] for row, asks in self.prompts.rows.items()}

    def picture_rows(self, model: Model, noise: int, show: int) -> dict[str, Seen]:
        """Every row of pictures of one model at one noise seed (the base: rows without the trigger, and "trigger")."""
        found: dict[str, Seen | None] = {}
        called, rows = model.lora is not None, self.rows(self.settings.prompts)
        for row, asks in rows.items():
            found[row] = self.draw(model, noise, row, self.wanted(asks, noise, called), show, encode=True)
        if self.concept.trigger:
            twin = "without" if called else "trigger"
            wanted = self.wanted(rows.get("trained", ()), noise, not called)
            found[twin] = self.draw(model, noise, twin, wanted, show, encode=True)
            if not called:
                found["without"] = found.get("trained")
        return {row: seen for row, seen in found.items() if seen is not None}

    def base_rows(self, noise: int) -> dict[str, Seen]:
        """The bare base's pictures; drawn once per noise seed for all arms."""
        return self.picture_rows(BASE, noise, self.settings.shown if noise == self.settings.seeds[0] else 0)

    def second(self, model: Model, noise: int, show: int) -> Seen | None:
        """Far prompts with the second LoRA loaded as well."""
        asks = self.rows(self.settings.prompts)["far"]
        wanted = self.wanted(asks, noise, False, self.settings.second_prompt)
        return self.draw(model, noise, "second", wanted, show)

    def strip_asks(self) -> tuple[Ask, ...]:
        return self.prompts.near()[: self.settings.strip_prompts]

    def states(self, noise: int) -> list[State]:
        """States on the base's own sampling paths: near and far prompts and the empty one."""
        if noise in self._states:
            return self._states[noise]
        s = self.settings
        near, far = self.prompts.near()[: s.drift_prompts], self.prompts.rows["far"][: s.drift_prompts]
        size = near[0].size if near else self.bench.base.geometry.native
        asks = [(a.bare, a.text if self.concept.trigger else None, "near", a.size) for a in near]
        asks += [(a.bare, None, "far", a.size) for a in far] + [("", None, "empty", size)]
        seeds = [seed_for(self.seed, "comparison path", noise=noise, number=n) & 0x7FFFFFFF for n in range(len(asks))]
        key = self._key(BASE, noise, states=s.states, asks=[[a[0], str(a[3])] for a in asks], seeds=seeds)
        path = self.folder / "readings" / f"states-{noise}-{hash_text(repr(key))[:16]}.safetensors"
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

    def base_answers(self, noise: int, what: Literal["prompt", "empty", "trigger"]) -> list[Tensor]:
        """The bare base's predictions at the states of this seed, kept in memory."""
        return self._kept((noise, what), lambda: self._answer(BASE, *asked_at(self.states(noise), what)))

    def _answer(self, model: Model, states: Sequence[State], texts: Sequence[str]) -> list[Tensor]:
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
        key = self._key(model, noise, few=few, states=s.states, drift=s.drift_prompts, asks=asks)

        def read() -> Any:
            f0, u0 = ([self.base_answers(noise, what)[n] for n in chosen] for what in ("prompt", "empty"))
            places = callable_at(states)
            t0 = dict(zip(places, self.base_answers(noise, "trigger"), strict=True)) if places else {}
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
        key = self._key(both, noise, few=few, states=s.states, drift=s.drift_prompts, asks=texts)

        def read() -> Any:
            progress(self.listener, f"{model.name}: predictions beside the second LoRA", 0, len(chosen))
            base = [self.base_answers(noise, "prompt")[n] for n in chosen]
            own = self._answer(model, picked, texts)
            alone = replace(BASE, second=second)
            other = self._kept((noise, f"second, every {few}"), lambda: self._answer(alone, picked, texts))
            together = self._answer(both, picked, texts)
            return [asdict(Pair.of(*answers)) for answers in zip(base, own, other, together, strict=True)]

        return tuple(Pair(**each) for each in self.store.keep(f"{model.name}-{noise}-pairs", key, read))

    def losses(self, model: Model, what: str, data: Sequence[tuple[Tensor, str, Size]]) -> Losses:
        """Losses of base and model on these pictures, on the same grid of t and noise."""
        if not data:
            return Losses()
        latents, texts, sizes = [d[0] for d in data], [d[1] for d in data], [d[2] for d in data]
        times = self.settings.loss_times

        def read(chosen: Model) -> Any:
            with self.wardrobe.on(chosen):
                return self.bench.losses(latents, texts, sizes, times)

        def kept(chosen: Model) -> tuple[float, ...]:
            key = self._key(chosen, 0, what=what, items=self._items_key, times=times, count=len(data))
            return tuple(self.store.keep(f"{chosen.name}-loss-{what}", key, lambda: read(chosen)))

        return Losses(kept(BASE), kept(model))

    def pictures(self) -> dict[str, dict[str, list[str]]]:
        """Arm -> row -> picture files, relative to the comparison's folder."""
        folders = {"base": "base", **self.shown}
        return {arm: pictures_of(self.folder, folder, self.settings.shown) for arm, folder in folders.items()}


def _bytes(answers: Sequence[Tensor]) -> int:
    return sum(answer.numel() * answer.element_size() for answer in answers)
