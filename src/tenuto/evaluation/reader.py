"""Readings of a model: which pictures are asked of it, and its losses; what it draws is `drawings`', its predictions
are `answers`'.

Every reading is kept as a small file under a key of all that it depends on, so that a killed comparison goes on where
it was and an unchanged arm is never read twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tenuto.data.bank import Bank
from tenuto.data.dataset import Concept, Item
from tenuto.data.images import fit, read_image
from tenuto.evaluation.answers import Answers
from tenuto.evaluation.bench import Bench, Wanted
from tenuto.evaluation.drawings import Drawing, Drawings
from tenuto.evaluation.encoders import Encoder, Reads
from tenuto.evaluation.groups import groups_of_concept
from tenuto.evaluation.keys import Keys
from tenuto.evaluation.pictures import pictures_of
from tenuto.evaluation.prompts import Ask, Prompts, Row, majorities
from tenuto.evaluation.readings import TAGGER_FEATURES, Losses, Seen, Store
from tenuto.evaluation.settings import ComparisonSettings
from tenuto.evaluation.taggers import Tagger, detector, read_pictures
from tenuto.evaluation.wardrobe import BASE, Model, Wardrobe
from tenuto.events import Listener
from tenuto.files import hash_text
from tenuto.randomness import seed_for
from tenuto.words import Size


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
        ground: str | None,
        seed: int,
        listener: Listener,
        dino: Encoder | None = None,
        clip: Reads | None = None,
    ) -> None:
        self.bench, self.settings, self.concept, self.prompts = bench, settings, concept, prompts
        self.folder, self.tagger, self.bank, self.ground = folder, tagger, bank, ground
        self.seed, self.listener, self.clip = seed, listener, clip
        self.encoders: dict[str, Encoder] = {name: own for name, own in (("dino", dino), ("clip", clip)) if own}
        if dino is None and isinstance(tagger, Encoder):
            self.encoders[TAGGER_FEATURES] = tagger
        self.wardrobe = Wardrobe(bench)
        self.store, self.keys = Store(folder / "readings"), Keys(bench.base, settings)
        self.answers = Answers(
            bench, self.wardrobe, self.store, self.keys, settings, prompts, bool(concept.trigger), seed, listener
        )
        self.drawings = Drawings(bench, self.wardrobe, self.store, self.keys, folder, tagger, self.encoders, listener)
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
        pixels = {item.id: fit(read_image(item.path, self.ground), item.bucket) for item in everyone}
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

    def told(self, asks: Sequence[Ask]) -> Tensor | None:
        """CLIP's features of these prompts without their trigger; None without CLIP."""
        return self.clip.read([ask.bare for ask in asks]) if self.clip and asks else None

    def rows(self, limit: int) -> dict[Row, tuple[Ask, ...]]:
        return {row: asks[:limit] for row, asks in self.prompts.rows.items()}

    def picture_rows(self, model: Model, noise: int, show: int) -> dict[str, Seen]:
        """Every row of pictures of one model at one noise seed (the base: rows without the trigger, and "trigger")."""
        called, rows = model.lora is not None, self.rows(self.settings.prompts)
        asked = [Drawing(row, self.wanted(asks, noise, called), show) for row, asks in rows.items()]
        if self.concept.trigger:
            twin = "without" if called else "trigger"
            asked.append(Drawing(twin, self.wanted(rows.get("trained", ()), noise, not called), show))
        found = self.drawings.of(model, noise, "rows", asked, encode=True)
        if self.concept.trigger and not called and "trained" in found:
            found["without"] = found["trained"]
        return found

    def few_rows(self, model: Model, noise: int) -> dict[str, Seen]:
        """As many pictures as a point of the curve takes: of the rows near the set, and without the trigger."""
        rows = {row: asks for row, asks in self.rows(self.settings.on_curve).items() if row != "far"}
        asked = [Drawing(row, self.wanted(asks, noise, True)) for row, asks in rows.items()]
        if self.concept.trigger:
            asked.append(Drawing("without", self.wanted(rows.get("trained", ()), noise, False)))
        return self.drawings.of(model, noise, "few-rows", asked)

    def base_rows(self, noise: int) -> dict[str, Seen]:
        """The bare base's pictures; drawn once per noise seed for all arms."""
        return self.picture_rows(BASE, noise, self.settings.shown if noise == self.settings.seeds[0] else 0)

    def second(self, model: Model, noise: int, show: int) -> Seen | None:
        """Far prompts with the second LoRA loaded as well."""
        asks = self.rows(self.settings.prompts)["far"]
        wanted = self.wanted(asks, noise, False, self.settings.second_prompt)
        return self.drawings.of(model, noise, "second", [Drawing("second", wanted, show)]).get("second")

    def strip(self, model: Model, noise: int, show: int) -> Seen | None:
        """The strip's prompts at this strength; at 0 without the trigger."""
        row = f"strip-{model.strength:g}"
        wanted = self.wanted(self.strip_asks(), noise, model.strength != 0)
        return self.drawings.of(model, noise, row, [Drawing(row, wanted, min(show, 2))]).get(row)

    def strip_asks(self) -> tuple[Ask, ...]:
        return self.prompts.near()[: self.settings.strip_prompts]

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
            key = self.keys.of(chosen, 0, what=what, items=self._items_key, times=times, count=len(data))
            return tuple(self.store.keep(f"{chosen.name}-loss-{what}", key, lambda: read(chosen)))

        return Losses(kept(BASE), kept(model))

    def pictures(self) -> dict[str, dict[str, list[str]]]:
        """Arm -> row -> picture files, relative to the comparison's folder."""
        folders = {"base": "base", **self.shown}
        return {arm: pictures_of(self.folder, folder, self.settings.shown) for arm, folder in folders.items()}
