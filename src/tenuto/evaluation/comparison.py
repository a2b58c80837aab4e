"""The comparison: base, plain LoRA and held LoRA at the same prompts and seeds, in numbers and pictures.

    prompts -> base readings -> each arm's readings, seed by seed -> metrics -> curves -> comparison.json

Every reading is kept as a small file under a key of all that it depends on, so that a killed comparison goes on where
it was and an unchanged arm is never read twice.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from pydantic import Field, NonNegativeInt, PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tenuto.adapters.adapter import Adapter
from tenuto.data.bank import Bank
from tenuto.data.dataset import Concept, Item
from tenuto.data.images import fit, read_image
from tenuto.data.tags import plain
from tenuto.evaluation.bench import Bench, Sampler, State, Wanted, sampler_of, share_of
from tenuto.evaluation.convnet import CONCEPTS
from tenuto.evaluation.curve import Point, Ratio, bootstrap, compare_curves
from tenuto.evaluation.metrics import METRICS
from tenuto.evaluation.metrics.bake import bake
from tenuto.evaluation.metrics.concept import concept_strength, gain
from tenuto.evaluation.metrics.drift import drift
from tenuto.evaluation.prompts import Ask, Prompts, Row, derive, majorities
from tenuto.evaluation.readings import Evidence, Gap, Losses, Seen, Store, Value, gaps_from_json, gaps_to_json
from tenuto.evaluation.taggers import Tagger, detector, read_pictures
from tenuto.events import Event, Listener, progress, silent
from tenuto.families.base import Base
from tenuto.families.sampling import Sampler as SamplerName
from tenuto.families.sampling import SamplerSettings
from tenuto.files import hash_file, hash_text, write_tensors, write_text, written_whole
from tenuto.randomness import seed_for
from tenuto.words import Kind, Settings, Size, TenutoError

FORMAT = 1
ARMS = ("plain", "held")


class ComparisonSettings(Settings):
    """[comparison]: how much is drawn and measured."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Noise seeds of pictures and states. With one training per arm the spread is over these; with several, over
    trainings."""
    prompts: PositiveInt = 8
    """Prompts per row (as trained, other style, place, view, subject)."""
    drift_prompts: PositiveInt = 32
    """Prompts near the set, and as many far from it, whose predictions are compared."""
    states: PositiveInt = 16
    """States per prompt on the base's sampling path, spread over t."""
    sampler: SamplerName = "dpmpp_2m"
    """As in [prior]."""
    steps: PositiveInt = 20
    """Denoising steps per picture."""
    guidance: float = Field(default=5.0, ge=0.0)
    """Classifier-free guidance."""
    negative: str = ""
    """Negative prompt."""
    weights: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0)
    """Strengths of the weight strip; must hold 0. Empty: no strip."""
    strip_prompts: PositiveInt = 16
    """Prompts of the weight strip."""
    strip_seeds: NonNegativeInt = 1
    """How many of the seeds draw the strip."""
    curve_weights: tuple[float, ...] = (0.25, 0.5, 0.75, 1.25, 1.5)
    """Strengths of the last checkpoint on the curve; the same for every arm."""
    curve_checkpoints: NonNegativeInt = 6
    """Earlier checkpoints on the curve, evenly spaced; 0: none."""
    curve_prompts: PositiveInt = 4
    """Prompts per row at each point of the curve."""
    curve_seeds: NonNegativeInt | None = None
    """How many of the seeds draw the curve; unset: all."""
    second_lora: Path | None = None
    """Another LoRA to combine with."""
    second_prompt: str = ""
    """What calls the second LoRA; put in front of each far prompt."""
    tagger: Path | None = None
    """Folder of a tagger; unset: the one that the checkpoint carries, if any."""
    test_images: dict[str, Path] = Field(default_factory=dict)
    """Concept name -> folder of captioned pictures of it in styles, places and views that the set does not have."""
    concept_groups: tuple[str, ...] | None = None
    """Tag groups that the concept itself may change (no bake); unset: by kind."""
    loss_times: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    """Times at which losses for fit and gain are taken."""
    shown: PositiveInt = 3
    """Pictures per row that are kept for the report."""
    batch: PositiveInt = 16
    """Pictures at once."""

    def sampler_settings(self) -> SamplerSettings:
        return SamplerSettings(sampler=self.sampler, steps=self.steps, guidance=self.guidance, negative=self.negative)


@dataclass(frozen=True)
class Trained:
    """One training of an arm."""

    seed: int
    lora: Path
    checkpoints: Mapping[int, Path] = field(default_factory=dict)
    """Updates -> LoRA file, the last one left out or included."""
    steps: int = 0
    """Updates of the whole training."""
    seconds: float | None = None
    """Wall time of everything that this arm needed: prior generation, caching, training."""
    forwards: float | None = None
    """The same in forwards of the denoiser."""
    setup_seconds: float = 0.0
    """The part of `seconds` that was spent before the first update."""
    setup_forwards: float = 0.0
    log: Path | None = None
    """The training's JSONL log, for the learning curves."""


@dataclass(frozen=True)
class Arm:
    """One way of training, and what came of it, once per training seed."""

    name: str
    """plain, held, or another name."""
    runs: tuple[Trained, ...]
    about: str = ""
    """One line: what was done."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its exact settings, for the appendix."""


class Number(Settings):
    """A metric of an arm over seeds."""

    mean: float | None
    per_seed: list[float | None] = Field(default_factory=list)
    interval: tuple[float, float] | None = None
    """Bootstrap 95 % over seeds."""
    reason: str | None = None
    """Why there is no number."""
    detail: list[dict[str, Any]] = Field(default_factory=list)
    """The parts, per seed."""


ArmNumbers = dict[str, Number]


class PromptRecord(Settings):
    """One prompt of the comparison."""

    row: str
    text: str
    bare: str
    width: int
    height: int
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class Comparison(Settings):
    """comparison.json"""

    format: int = FORMAT
    arms: dict[str, ArmNumbers]
    matched: list[Ratio] = Field(default_factory=list)
    """held / plain at matched concept strength, for drift and bake, within 2 % and 5 %."""
    curves: dict[str, list[Point]] = Field(default_factory=dict)
    curve_axis: Literal["concept_strength", "gain"] = "concept_strength"
    concept: dict[str, str] = Field(default_factory=dict)
    about: dict[str, str] = Field(default_factory=dict)
    """Arm -> one line."""
    own: dict[str, str] = Field(default_factory=dict)
    """Tag group -> the set's own tag."""
    prompts: list[PromptRecord] = Field(default_factory=list)
    missing: dict[str, str] = Field(default_factory=dict)
    seeds: list[int] = Field(default_factory=list)
    per_seed_means: Literal["trainings", "noise seeds"] = "noise seeds"
    """What the entries of per_seed are."""
    settings: dict[str, Any] = Field(default_factory=dict)
    arm_settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    training_seeds: dict[str, list[int]] = Field(default_factory=dict)
    logs: dict[str, list[str]] = Field(default_factory=dict)
    base: dict[str, str] = Field(default_factory=dict)
    hashes: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    pictures: dict[str, dict[str, list[str]]] = Field(default_factory=dict)
    """Arm (and "base") -> row -> files under the comparison's folder."""

    def save(self, path: Path) -> None:
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Comparison:
        """Raises TenutoError when the file is missing or no comparison."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TenutoError(
                f"{path}: not a comparison ({str(error).splitlines()[0]}); run tenuto compare again"
            ) from error


@dataclass(frozen=True)
class _Cell:
    """One entry of per_seed: a training and the noise seeds it is read at."""

    run: Trained
    seeds: tuple[int, ...]


def compare(
    base: Base,
    arms: Sequence[Arm],
    concept: Concept,
    items: Sequence[Item],
    bank: Bank,
    settings: ComparisonSettings,
    folder: Path,
    *,
    tagger: Tagger | None = None,
    held_out: Sequence[Item] = (),
    test_items: Sequence[Item] = (),
    avoid: Collection[str] = (),
    background: str = "white",
    seed: int = 0,
    listener: Listener = silent,
    stop: Callable[[], None] = lambda: None,
    sampler: Sampler | None = None,
) -> Comparison:
    """Read and measure every arm; write folder/comparison.json and folder/pictures. Call it again to continue.

    items: the instance pictures trained on; held_out: those kept out; test_items: the concept outside its set's bias.
    avoid: every prompt that a prior row or the controller used. stop: called between batches; raises to stop.
    The base must wear no adapter. Raises TenutoError for unusable input.
    """
    _check(arms, settings)
    bench = Bench(
        base, sampler or sampler_of(base, settings.sampler_settings()), settings.negative, settings.batch, stop
    )
    each = max(settings.prompts, -(-settings.drift_prompts // 5))  # five rows near the set
    far = max(settings.prompts, settings.drift_prompts)
    prompts = derive(items, concept, bank, each=each, far=far, seed=seed, avoid=avoid)
    work = _Work(bench, settings, concept, prompts, folder, tagger, bank, background, seed, listener)
    numbers: dict[str, ArmNumbers] = {}
    curves: dict[str, list[Point]] = {}
    try:
        work.look(items, held_out, test_items)
        for arm in arms:
            cells = _cells(arm, settings.seeds)
            values: dict[str, list[Value]] = {name: [] for name in METRICS}
            for number, cell in enumerate(cells):
                evidence = work.evidence(arm, cell, strip=number < settings.strip_seeds, pictures=number == 0)
                for name, metric in METRICS.items():
                    values[name].append(metric(evidence))
            numbers[arm.name] = {name: summary(found) for name, found in values.items()}
            numbers[arm.name] |= {
                "seconds": _cost([run.seconds for run in arm.runs], "the training did not say how long it took"),
                "forwards": _cost([run.forwards for run in arm.runs], "the training did not count its forwards"),
            }
            limit = len(cells) if settings.curve_seeds is None else settings.curve_seeds
            curves[arm.name] = [point for cell in cells[:limit] for point in work.curve(arm, cell)]
    finally:
        work.bare()
    result = Comparison(
        arms=numbers,
        matched=_matched(curves, seed),
        curves=curves,
        curve_axis=work.axis,
        concept={
            "name": concept.name,
            "kind": concept.kind,
            "trigger": concept.trigger,
            "class_word": concept.class_word,
        },
        about={arm.name: arm.about for arm in arms},
        own=work.own,
        prompts=[
            PromptRecord(
                row=a.row,
                text=a.text,
                bare=a.bare,
                width=a.size.width,
                height=a.size.height,
                added=a.added,
                removed=a.removed,
            )
            for asks in prompts.rows.values()
            for a in asks
        ],
        missing={**work.missing, **prompts.missing},
        seeds=list(settings.seeds),
        per_seed_means="trainings" if all(len(arm.runs) > 1 for arm in arms) else "noise seeds",
        settings=settings.model_dump(mode="json"),
        arm_settings={arm.name: dict(arm.settings) for arm in arms},
        training_seeds={arm.name: [run.seed for run in arm.runs] for arm in arms},
        logs={arm.name: [str(run.log) for run in arm.runs if run.log] for arm in arms},
        base={"name": base.name, "family": base.family, "hash": base.hash, "prediction": base.process.prediction},
        hashes={
            **{f"{arm.name} seed {run.seed}": hash_file(run.lora) for arm in arms for run in arm.runs},
            **({"tagger": tagger.hash} if tagger else {}),
        },
        versions=versions(),
        pictures=work.pictures(),
    )
    result.save(folder / "comparison.json")
    return result


def _check(arms: Sequence[Arm], settings: ComparisonSettings) -> None:
    if len({arm.name for arm in arms}) != len(arms):
        raise TenutoError("comparison: two arms have the same name; give each its own")
    for arm in arms:
        if not arm.runs:
            raise TenutoError(f"comparison: arm {arm.name} has no training; train it first")
        for run in arm.runs:
            if not run.lora.is_file():
                raise TenutoError(f"{run.lora}: no such LoRA file; train arm {arm.name} first")
    if not settings.seeds:
        raise TenutoError("comparison.seeds is empty; give at least one seed")
    if settings.weights and 0.0 not in settings.weights:
        raise TenutoError("comparison.weights must hold 0 (the base), by which the others are judged")
    if settings.second_lora is not None and not settings.second_lora.is_file():
        raise TenutoError(
            f"{settings.second_lora}: comparison.second_lora is no file; name a LoRA in .safetensors or leave it out"
        )


def _cells(arm: Arm, seeds: tuple[int, ...]) -> list[_Cell]:
    """With several trainings, one entry per training at all seeds; else one entry per noise seed."""
    if len(arm.runs) > 1:
        return [_Cell(run, seeds) for run in arm.runs]
    return [_Cell(arm.runs[0], (number,)) for number in seeds]


def summary(values: Sequence[Value]) -> Number:
    """Mean and bootstrap interval over the seeds that have a number; null only when none has."""
    found = [value.value for value in values if value.value is not None]
    reasons = list(dict.fromkeys(value.reason for value in values if value.reason))
    return Number(
        mean=sum(found) / len(found) if found else None,
        per_seed=[value.value for value in values],
        interval=bootstrap(found),
        reason="; ".join(reasons) or None,
        detail=[dict(value.detail) for value in values],
    )


def _cost(values: Sequence[float | None], reason: str) -> Number:
    return summary([Value(value, None if value is not None else reason) for value in values])


def _matched(curves: Mapping[str, list[Point]], seed: int) -> list[Ratio]:
    if not all(curves.get(name) for name in ARMS):
        return []
    quantities: tuple[Literal["drift", "bake"], ...] = ("drift", "bake")
    return [
        compare_curves(curves["plain"], curves["held"], q, tolerance, seed)
        for q in quantities
        for tolerance in (0.02, 0.05)
    ]


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
    }
    for name in ("tenuto", "torch", "diffusers", "transformers", "peft", "safetensors"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


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
class _Model:
    """What a reading is taken of: the base, or the base with LoRAs on it."""

    name: str
    lora: Path | None = None
    strength: float = 1.0
    second: Path | None = None


BASE = _Model("base", strength=0.0)


class _Work:
    """The readings of one comparison: made once, kept in small files, handed to the metrics as Evidence."""

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
        self._shown: dict[str, str] = {}
        self._worn: tuple[tuple[Path | None, Path | None], Adapter | None, ExitStack] | None = None
        self._items_key = ""

    @property
    def axis(self) -> Literal["concept_strength", "gain"]:
        """What the curve is matched on: the detector's reading, or the loss gain where nobody can read pictures."""
        return "concept_strength" if self.detector or not self.unbiased else "gain"

    # -- the set itself

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

    # -- what the base wears

    @contextmanager
    def on(self, model: _Model) -> Iterator[None]:
        """The base as this model. What was put on stays on until something else is asked for: attaching takes time."""
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

    # -- keys

    def _key(self, model: _Model, noise: int, **more: Any) -> dict[str, Any]:
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

    # -- pictures

    def _wanted(self, asks: Sequence[Ask], noise: int, trigger: bool, before: str = "") -> list[Wanted]:
        """Seeds are named by row and number, not by the text: all arms, with and without the trigger, are paired."""
        return [
            Wanted(
                f"{before}, {ask.bare}" if before else ask.text if trigger else ask.bare,
                seed_for(self.seed, "comparison picture", noise=noise, row=ask.row, number=number) & 0x7FFFFFFF,
                ask.size,
            )
            for number, ask in enumerate(asks)
        ]

    def _draw(self, model: _Model, noise: int, row: str, wanted: Sequence[Wanted], show: int) -> Seen | None:
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

    def _rows(self, limit: int) -> dict[Row, tuple[Ask, ...]]:
        return {row: asks[:limit] for row, asks in self.prompts.rows.items()}

    def _picture_rows(self, model: _Model, noise: int, show: int) -> dict[str, Seen]:
        """Every row of pictures of one model at one noise seed (the base: rows without the trigger, and "trigger")."""
        found: dict[str, Seen | None] = {}
        called, rows = model.lora is not None, self._rows(self.settings.prompts)
        for row, asks in rows.items():
            found[row] = self._draw(model, noise, row, self._wanted(asks, noise, called), show)
        if self.concept.trigger:
            twin = "without" if called else "trigger"
            found[twin] = self._draw(model, noise, twin, self._wanted(rows.get("trained", ()), noise, not called), show)
            if not called:
                found["without"] = found.get("trained")
        return {row: seen for row, seen in found.items() if seen is not None}

    def _second(self, model: _Model, noise: int, show: int) -> Seen | None:
        """Far prompts with the second LoRA loaded as well."""
        asks = self._rows(self.settings.prompts)["far"]
        wanted = self._wanted(asks, noise, False, self.settings.second_prompt)
        return self._draw(model, noise, "second", wanted, show)

    def strip_asks(self) -> tuple[Ask, ...]:
        return self.prompts.near()[: self.settings.strip_prompts]

    # -- predictions

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

    def _gaps(self, model: _Model, noise: int, few: int | None) -> tuple[tuple[Gap, ...], float]:
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

    def _losses(self, model: _Model, what: str, data: Sequence[tuple[Tensor, str, Size]]) -> Losses:
        """Losses of base and model on these pictures, on the same grid of t and noise."""
        if not data:
            return Losses()
        latents, texts, sizes = [d[0] for d in data], [d[1] for d in data], [d[2] for d in data]
        times = self.settings.loss_times

        def read(chosen: _Model) -> Any:
            with self.on(chosen):
                return self.bench.losses(latents, texts, sizes, times)

        def kept(chosen: _Model) -> tuple[float, ...]:
            key = self._key(chosen, 0, what=what, items=self._items_key, times=times, count=len(data))
            return tuple(self.store.keep(f"{chosen.name}-loss-{what}", key, lambda: read(chosen)))

        return Losses(kept(BASE), kept(model))

    # -- evidence

    def evidence(self, arm: Arm, cell: _Cell, *, strip: bool, pictures: bool) -> Evidence:
        """Everything read for one entry of per_seed, its noise seeds taken together."""
        self.listener(
            Event(
                "stage", {"name": f"{arm.name}, training seed {cell.run.seed}, seeds {', '.join(map(str, cell.seeds))}"}
            )
        )
        rows: dict[str, list[Seen]] = {}
        bare: dict[str, list[Seen]] = {}
        strips: dict[float, Seen] = {}
        gaps: list[Gap] = []
        floors = []
        s, model = self.settings, self._model(arm, cell)
        for number, noise in enumerate(cell.seeds):
            show = s.shown if pictures and number == 0 else 0
            for row, seen in self._base_rows(noise).items():
                bare.setdefault(row, []).append(seen)
            found, floor = self._gaps(model, noise, None)
            gaps += found
            floors.append(floor)
            for row, seen in self._picture_rows(model, noise, show).items():
                rows.setdefault(row, []).append(seen)
            if s.second_lora is not None:
                base_show = s.shown if noise == s.seeds[0] else 0
                base_second = self._second(replace(BASE, second=s.second_lora), noise, base_show)
                second = self._second(replace(model, second=s.second_lora), noise, show)
                if second is not None and base_second is not None:
                    rows.setdefault("second", []).append(second)
                    bare.setdefault("second", []).append(base_second)
            if strip and number == 0:
                strips = self._strip(model, noise, show)
        if pictures:
            self._shown[arm.name] = model.name
        times = len(cell.seeds)
        asked = {str(row): tuple(a.tags for a in asks) * times for row, asks in self._rows(s.prompts).items()}
        asked |= {
            "without": asked.get("trained", ()),
            "second": asked.get("far", ()),
            "strip": tuple(a.tags for a in self.strip_asks()),
        }
        missing = dict(self.missing) | (
            {"strip": "the strip is drawn for the first seeds only (comparison.strip_seeds)"} if not strip else {}
        )
        return Evidence(
            arm={row: Seen.join(parts) for row, parts in rows.items()},
            base={row: Seen.join(parts) for row, parts in bare.items()},
            asked=asked,
            strip=strips,
            gaps=tuple(gaps),
            floor=sum(floors) / len(floors),
            guidance=s.guidance,
            train=self._losses(model, "train", self.train),
            held_out=self._losses(model, "held_out", self.held_out),
            unbiased=self._losses(model, "unbiased", self.unbiased),
            own=self.own,
            concept=self.detector,
            concept_groups=self.concept_groups(),
            style_concept=self.concept.kind == "style",
            missing=missing,
        )

    def concept_groups(self) -> frozenset[str]:
        if self.settings.concept_groups is not None:
            return frozenset(self.settings.concept_groups)
        return groups_of_concept(self.concept, self.tagger.groups if self.tagger else ())

    def _model(self, arm: Arm, cell: _Cell) -> _Model:
        return _Model(arm.name if len(arm.runs) == 1 else f"{arm.name}-{cell.run.seed}", cell.run.lora)

    def _base_rows(self, noise: int) -> dict[str, Seen]:
        """The bare base's pictures; drawn once per noise seed for all arms."""
        return self._picture_rows(BASE, noise, self.settings.shown if noise == self.settings.seeds[0] else 0)

    def _strip(self, model: _Model, noise: int, show: int) -> dict[float, Seen]:
        """The same prompts at every weight; at 0 without the trigger: the base, by which the others are judged."""
        found: dict[float, Seen] = {}
        for strength in self.settings.weights:
            wanted = self._wanted(self.strip_asks(), noise, strength != 0)
            turned = replace(model, strength=strength)
            seen = self._draw(turned, noise, f"strip-{strength:g}", wanted, min(show, 2))
            if seen is not None:
                found[strength] = seen
        return found

    # -- curve

    def curve(self, arm: Arm, cell: _Cell) -> list[Point]:
        """Earlier checkpoints at full strength, then the last one at other strengths; the same amounts for every
        arm."""
        run, s = cell.run, self.settings
        last = run.steps or max(run.checkpoints, default=0)
        earlier = sorted(step for step in run.checkpoints if step < last)
        count = min(s.curve_checkpoints, len(earlier))
        chosen = sorted({earlier[round((n + 0.5) * len(earlier) / count - 0.5)] for n in range(count)}) if count else []
        wanted = [(step, run.checkpoints[step], 1.0) for step in chosen] + [(last, run.lora, 1.0)]
        wanted += [(last, run.lora, strength) for strength in sorted(s.curve_weights) if strength != 1.0]
        points = []
        for number, (step, lora, strength) in enumerate(wanted):
            progress(self.listener, f"{arm.name}: curve", number, len(wanted))
            points.append(self._point(arm, cell, step, lora, strength, step / last if last else 1.0))
        return points

    def _point(self, arm: Arm, cell: _Cell, step: int, lora: Path, strength: float, share: float) -> Point:
        s, run = self.settings, cell.run
        rows: dict[str, list[Seen]] = {}
        bare: dict[str, list[Seen]] = {}
        gaps: list[Gap] = []
        model = _Model(f"{arm.name}-{run.seed}-{step}-{strength:g}", lora, strength)
        shipped = self._model(arm, cell)
        for noise in cell.seeds:
            gaps += self._gaps(model, noise, FEW)[0]
            if self.tagger is None:
                continue
            for row, seen in self._base_rows(noise).items():
                bare.setdefault(row, []).append(seen.rows(slice(0, s.curve_prompts)))
            for row, asks in self._rows(s.prompts).items():
                if row == "far":
                    continue
                if replace(model, name=shipped.name) == shipped:  # already drawn
                    found = self._draw(shipped, noise, row, self._wanted(asks, noise, True), 0)
                else:
                    found = self._draw(model, noise, row, self._wanted(asks[: s.curve_prompts], noise, True), 0)
                if found is not None:
                    rows.setdefault(row, []).append(found.rows(slice(0, s.curve_prompts)))
        evidence = Evidence(
            arm={row: Seen.join(parts) for row, parts in rows.items()},
            base={row: Seen.join(parts) for row, parts in bare.items() if row in rows},
            asked={
                str(row): tuple(a.tags for a in asks) * len(cell.seeds)
                for row, asks in self._rows(s.curve_prompts).items()
            },
            gaps=tuple(gaps),
            unbiased=self._losses(model, "unbiased", self.unbiased) if self.axis == "gain" else Losses(),
            own=self.own,
            concept=self.detector,
            concept_groups=self.concept_groups(),
            style_concept=self.concept.kind == "style",
            missing=self.missing,
        )
        level = concept_strength(evidence) if self.axis == "concept_strength" else gain(evidence)
        return Point(
            step=step,
            strength=strength,
            seed=cell.run.seed if len(arm.runs) > 1 else cell.seeds[0],
            concept=level.value,
            drift=drift(evidence).value,
            bake=bake(evidence).value,
            seconds=None if run.seconds is None else run.setup_seconds + share * (run.seconds - run.setup_seconds),
            forwards=None if run.forwards is None else run.setup_forwards + share * (run.forwards - run.setup_forwards),
        )

    def pictures(self) -> dict[str, dict[str, list[str]]]:
        """Arm -> row -> picture files, relative to the comparison's folder."""
        folders = {"base": "base", **self._shown}
        return {arm: pictures_of(self.folder, folder, self.settings.shown) for arm, folder in folders.items()}


KEPT_BYTES = 1 << 29
"""The base's answers are kept in memory up to this size; older ones are asked for again."""
FEW = 4
"""At each point of the curve, every FEW-th prompt's states are compared."""


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


def save_picture(path: Path, pixels: Tensor) -> None:
    """Pixels [3 H W] in -1..1 as a PNG."""
    array = ((pixels.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
    with written_whole(path) as temporary:
        Image.fromarray(array).save(temporary, format="PNG")


def pictures_of(folder: Path, name: str, limit: int) -> dict[str, list[str]]:
    """Row -> its first pictures, in order, relative to the folder."""
    rows: dict[str, list[tuple[int, str]]] = {}
    for path in (folder / "pictures" / name).glob("*.png"):
        row, _, number = path.stem.rpartition("-")
        if int(number) < limit:
            rows.setdefault(row, []).append((int(number), path.relative_to(folder).as_posix()))
    return {row: [path for _, path in sorted(found)] for row, found in sorted(rows.items())}


__all__ = ["CONCEPTS", "Arm", "Comparison", "ComparisonSettings", "Number", "Trained", "compare"]
