"""Readings of a model: pictures as the tagger sees them, predictions at the base's own states, losses on pictures.

Every reading is kept as a small file under a key of all that it depends on, so that a killed comparison goes on where
it was and an unchanged arm is never read twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tenuto.adapters.adapter import Adapter
from tenuto.data.bank import Bank
from tenuto.data.dataset import Concept, Item
from tenuto.data.images import fit, read_image
from tenuto.data.tags import plain
from tenuto.evaluation.bench import Bench, State, Wanted, share_of
from tenuto.evaluation.pictures import pictures_of, save_picture
from tenuto.evaluation.prompts import Ask, Prompts, Row, majorities
from tenuto.evaluation.readings import Gap, Losses, Seen, Store, gaps_from_json, gaps_to_json
from tenuto.evaluation.record import FORMAT
from tenuto.evaluation.settings import ComparisonSettings
from tenuto.evaluation.taggers import Tagger, detector, read_pictures
from tenuto.events import Event, Listener, progress
from tenuto.files import hash_file, hash_text, write_tensors
from tenuto.randomness import seed_for
from tenuto.words import Kind, Size

KEPT_BYTES = 1 << 29
"""The base's answers are kept in memory up to this size; older ones are asked for again."""


CONCEPT_WORDS: dict[Kind, tuple[str, ...]] = {
    "character": ("hair", "eye", "subject", "body", "character", "outfit", "cloth", "wear", "species", "ears"),
    "clothing": ("outfit", "cloth", "dress", "wear", "costume"),
    "style": ("style", "artist"),
    "concept": (),
}
"""Parts of the names of tag groups that a concept of this kind may change."""


def groups_of_concept(concept: Concept, groups: Collection[str]) -> frozenset[str]:
    """Tag groups that the concept may change: by kind, and those that its name or trigger speaks of ("crazy-eyes":
    eyes)."""
    words = {word.rstrip("s") for word in plain(f"{concept.name} {concept.trigger}").replace("-", " ").split()}
    return frozenset(
        group
        for group in groups
        if any(part in group.lower() for part in CONCEPT_WORDS[concept.kind])
        or any(part.rstrip("s") in words for part in group.lower().replace("_", " ").split())
    )


@dataclass(frozen=True)
class Model:
    """What a reading is taken of: the base, or the base with LoRAs on it."""

    name: str
    lora: Path | None = None
    strength: float = 1.0
    second: Path | None = None


BASE = Model("base", strength=0.0)


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
    ) -> None:
        self.bench, self.settings, self.concept, self.prompts = bench, settings, concept, prompts
        self.folder, self.tagger, self.bank, self.background = folder, tagger, bank, background
        self.seed, self.listener = seed, listener
        self.store = Store(folder / "readings")
        self.missing: dict[str, str] = {}
        if tagger is None:
            self.missing["tagger"] = "no tagger that reads this checkpoint's pictures; name one as comparison.tagger"
        if not concept.trigger:
            self.missing["trigger"] = "the concept has no trigger"
        if not settings.second_lora:
            self.missing["second"] = "no second LoRA was named"
        if not settings.weights:
            self.missing["strip"] = "the weight strip is switched off"
        if "style" in prompts.missing:
            self.missing["row style"] = prompts.missing["style"]
        self.detector = (settings_detector := detector(tagger, concept.name)) if tagger else None
        if tagger and settings_detector is None:
            self.missing["detector"] = (
                f"the tagger has no detector for {concept.name}; it has {', '.join(tagger.concepts) or 'none'}"
            )
        self.own = dict(prompts.own)
        self.train: list[tuple[Tensor, str, Size]] = []
        self.held_out: list[tuple[Tensor, str, Size]] = []
        self.unbiased: list[tuple[Tensor, str, Size]] = []
        self._base_answers: dict[tuple[int, str], list[Tensor]] = {}
        self._states: dict[int, list[State]] = {}
        self._hashes: dict[Path, str] = {}
        self.shown: dict[str, str] = {}
        """Arm -> the model whose pictures the report shows."""
        self._worn: tuple[tuple[Path | None, Path | None], Adapter | None, ExitStack] | None = None
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

    @contextmanager
    def on(self, model: Model) -> Iterator[None]:
        """The base as this model. What was put on stays on until something else is asked for: attaching and taking off
        take time. For the bare base it is switched off, which is the same bit for bit."""
        worn = self._worn
        if model == BASE and worn is not None and worn[0][1] is None and worn[1] is not None:
            with worn[1].disabled():
                yield
            return
        if self._worn is None or self._worn[0] != (model.lora, model.second):
            self.bare()
            with ExitStack() as stack:
                adapter = stack.enter_context(self.bench.wearing(model.lora, model.second))
                self._worn = ((model.lora, model.second), adapter, stack.pop_all())
        adapter = self._worn[1]
        with adapter.strength(model.strength) if adapter is not None else nullcontext():
            yield

    def bare(self) -> None:
        """Take everything off."""
        if self._worn is not None:
            worn, self._worn = self._worn, None
            worn[2].close()

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
            self._hashes[path] = hash_file(path)
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

    def draw(self, model: Model, noise: int, row: str, wanted: Sequence[Wanted], show: int) -> Seen | None:
        """Readings of these pictures; the first `show` are kept as files for the report. None without a tagger."""
        shown = [self.folder / "pictures" / model.name / f"{row}-{n}.png" for n in range(min(show, len(wanted)))]
        part, fresh = f"{model.name}-{noise}-{row}", False

        def draw(asked: Sequence[Wanted]) -> list[Tensor]:
            nonlocal fresh
            with self.on(model):
                pictures = self.bench.draw(asked, self._say(f"{model.name}: {row}", total=len(asked)))
            for path, pixels in zip(shown, pictures, strict=False):
                save_picture(path, pixels)
            fresh = True
            return pictures

        def show_them() -> None:
            if not fresh:
                draw(wanted[: len(shown)])

        tagger, found = self.tagger, None
        if tagger is not None and wanted:
            key = self._key(model, noise, wanted=[[w.text, w.seed, *w.size] for w in wanted], tagger=tagger.hash)

            def read() -> Any:
                return Seen.join([read_pictures(tagger, pixels[None]) for pixels in draw(wanted)]).to_json()

            found = Seen.from_json(self.store.keep(part, key, read))
        if shown:
            key = self._key(model, noise, shown=[[w.text, w.seed, *w.size] for w in wanted[: len(shown)]])
            self.store.keep(f"{part}-shown", key, show_them)
            if not all(path.is_file() for path in shown):
                draw(wanted[: len(shown)])
        return found

    def rows(self, limit: int) -> dict[Row, tuple[Ask, ...]]:
        return {row: asks[:limit] for row, asks in self.prompts.rows.items()}

    def picture_rows(self, model: Model, noise: int, show: int) -> dict[str, Seen]:
        """Every row of pictures of one model at one noise seed (the base: rows without the trigger, and "trigger")."""
        found: dict[str, Seen | None] = {}
        called, rows = model.lora is not None, self.rows(self.settings.prompts)
        for row, asks in rows.items():
            found[row] = self.draw(model, noise, row, self.wanted(asks, noise, called), show)
        if self.concept.trigger:
            twin = "without" if called else "trigger"
            found[twin] = self.draw(model, noise, twin, self.wanted(rows.get("trained", ()), noise, not called), show)
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
            self.listener(Event("stage", {"name": f"base paths, seed {noise}"}))
            with self.on(BASE):
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
        if (noise, what) not in self._base_answers:
            questions = _questions(self.states(noise), what)
            with self.on(BASE):
                answers = self.bench.predict(*questions)
            self._base_answers[noise, what] = answers
            while sum(map(_bytes, self._base_answers.values())) > KEPT_BYTES and len(self._base_answers) > 3:
                del self._base_answers[next(iter(self._base_answers))]
            return answers
        return self._base_answers[noise, what]

    def gaps(self, model: Model, noise: int, few: int | None) -> tuple[tuple[Gap, ...], float]:
        """Squared norms at every state (of every few-th prompt), and the numeric floor."""
        states = self.states(noise)
        chosen = _few(states, few)
        s = self.settings
        asks = [[state.text, state.triggered] for state in states]
        key = self._key(model, noise, few=few, states=s.states, drift=s.drift_prompts, asks=asks)

        def read() -> Any:
            f0, u0 = ([self.base_answers(noise, what)[n] for n in chosen] for what in ("prompt", "empty"))
            places = _triggered(states)
            t0 = dict(zip(places, self.base_answers(noise, "trigger"), strict=True)) if places else {}
            picked = [states[n] for n in chosen]
            with_trigger = [n for n in chosen if n in t0]
            progress(self.listener, f"{model.name}: predictions", 0, len(chosen))
            with self.on(replace(model, strength=0.0)):
                zero = self.bench.predict(picked[:16], [state.text for state in picked[:16]])
            with self.on(model):
                f1 = self.bench.predict(picked, [state.text for state in picked])
                u1 = self.bench.predict(picked, [""] * len(picked))
                called = [states[n] for n in with_trigger]
                t1 = self.bench.predict(called, [str(state.triggered) for state in called])
            triggered = {n: (_energy(t1[i] - t0[n]), n) for i, n in enumerate(with_trigger)}
            w, steps = self.settings.guidance, self.bench.base.process.steps
            gaps = []
            for place, n in enumerate(chosen):
                state, d, du = states[n], f1[place] - f0[place], u1[place] - u0[place]
                gaps.append(
                    Gap(
                        prompt=state.text, kind=state.kind, t=share_of(state.t, steps),
                        d=_energy(d), du=_energy(du), dg=_energy(w * d - (w - 1) * du),
                        g=_energy(f0[place] - u0[place]),
                        d_trigger=triggered[n][0] if n in triggered else None,
                        g_trigger=_energy(t0[n] - u0[place]) if n in triggered else None,
                        f_th=_energy(f1[place]), f_0=_energy(f0[place]),
                    )
                )  # fmt: skip
            effect = sum(gap.g for gap in gaps[:16])
            floor = sum(_energy(a - b) for a, b in zip(zero, f0[:16], strict=True)) / effect if effect > 0 else 0.0
            return {"gaps": gaps_to_json(gaps), "floor": floor}

        reading = self.store.keep(f"{model.name}-{noise}-predictions", key, read)
        return gaps_from_json(reading["gaps"]), float(reading["floor"])

    def losses(self, model: Model, what: str, data: Sequence[tuple[Tensor, str, Size]]) -> Losses:
        """Losses of base and model on these pictures, on the same grid of t and noise."""
        if not data:
            return Losses()
        latents, texts, sizes = [d[0] for d in data], [d[1] for d in data], [d[2] for d in data]
        times = self.settings.loss_times

        def read(chosen: Model) -> Any:
            with self.on(chosen):
                return self.bench.losses(latents, texts, sizes, times)

        def kept(chosen: Model) -> tuple[float, ...]:
            key = self._key(chosen, 0, what=what, items=self._items_key, times=times, count=len(data))
            return tuple(self.store.keep(f"{chosen.name}-loss-{what}", key, lambda: read(chosen)))

        return Losses(kept(BASE), kept(model))

    def pictures(self) -> dict[str, dict[str, list[str]]]:
        """Arm -> row -> picture files, relative to the comparison's folder."""
        folders = {"base": "base", **self.shown}
        return {arm: pictures_of(self.folder, folder, self.settings.shown) for arm, folder in folders.items()}


def _few(states: Sequence[State], few: int | None) -> list[int]:
    """Numbers of the states of every few-th prompt of each kind, the empty prompt always."""
    if few is None:
        return list(range(len(states)))
    prompts = list(dict.fromkeys((state.kind, state.text) for state in states))
    chosen = {prompt for kind in ("near", "far", "empty") for prompt in [p for p in prompts if p[0] == kind][::few]}
    return [n for n, state in enumerate(states) if (state.kind, state.text) in chosen]


def _triggered(states: Sequence[State]) -> list[int]:
    return [n for n, state in enumerate(states) if state.triggered is not None]


def _questions(states: Sequence[State], what: str) -> tuple[list[State], list[str]]:
    if what == "trigger":
        chosen = [states[n] for n in _triggered(states)]
        return chosen, [str(state.triggered) for state in chosen]
    return list(states), [state.text if what == "prompt" else "" for state in states]


def _bytes(answers: Sequence[Tensor]) -> int:
    return sum(answer.numel() * answer.element_size() for answer in answers)


def _energy(gap: Tensor) -> float:
    return float(gap.double().square().sum())
