"""What models draw: pictures as fixed models see them, the first of a row as files for the report.

Rows that are asked of one model together are drawn together: small batches cost up to twice as much a picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from tenuto.evaluation.bench import Bench, Wanted
from tenuto.evaluation.encoders import Encoder
from tenuto.evaluation.keys import Keys
from tenuto.evaluation.pictures import save_picture
from tenuto.evaluation.readings import Seen, Store
from tenuto.evaluation.taggers import Tagger, read_pictures
from tenuto.evaluation.wardrobe import Model, Wardrobe
from tenuto.events import Listener, progress


@dataclass(frozen=True)
class Drawing:
    """A row of pictures that is asked for."""

    row: str
    wanted: Sequence[Wanted]
    show: int = 0
    """How many of them, from the first on, are kept as files."""


class Drawings:
    """The pictures of one comparison, kept as what the tagger and the encoders see in them."""

    def __init__(
        self,
        bench: Bench,
        wardrobe: Wardrobe,
        store: Store,
        keys: Keys,
        folder: Path,
        tagger: Tagger | None,
        encoders: Mapping[str, Encoder],
        listener: Listener,
    ) -> None:
        self.bench, self.wardrobe, self.store, self.keys = bench, wardrobe, store, keys
        self.folder, self.tagger, self.encoders, self.listener = folder, tagger, encoders, listener

    def of(
        self, model: Model, noise: int, part: str, asked: Sequence[Drawing], *, encode: bool = False
    ) -> dict[str, Seen]:
        """Row -> what is seen in its pictures, by the encoders too where asked; empty where nobody looks.

        part: the reading's name, for all of these rows are one: it is whole or is made anew.
        """
        encoders = self.encoders if encode else {}
        looked_at = self.tagger is not None or bool(encoders)
        asked = [own if looked_at else replace(own, wanted=own.wanted[: own.show]) for own in asked]
        asked = [own for own in asked if own.wanted]

        def draw() -> Any:
            return self._draw(model, asked, encoders if looked_at else None)

        readers = {"tagger": self.tagger.hash if self.tagger else None}
        readers |= {name: own.hash for name, own in encoders.items()}
        rows = {own.row: [[w.text, w.seed, *w.size] for w in own.wanted] for own in asked}
        key = self.keys.of(model, noise, rows=rows, **readers)
        reading = self.store.keep(f"{model.name}-{noise}-{part}", key, draw)
        if not all(file.is_file() for own in asked for file in self._files(model, own)):
            draw()
        return {row: Seen.from_json(seen) for row, seen in reading.items()}

    def _draw(self, model: Model, asked: Sequence[Drawing], encoders: Mapping[str, Encoder] | None) -> dict[str, Any]:
        """The rows' readings as JSON, their first pictures as files."""
        everything = [(own, number) for own in asked for number in range(len(own.wanted))]
        seen: dict[tuple[str, int], Seen] = {}
        done = 0
        with self.wardrobe.on(model):
            for which, pixels in self.bench.draw([own.wanted[number] for own, number in everything]):
                own, number = everything[which]
                if number < own.show:
                    save_picture(self._files(model, own)[number], pixels)
                if encoders is not None:
                    seen[own.row, number] = self._see(pixels[None], encoders)
                done += 1
                progress(self.listener, f"{model.name}: pictures", done, len(everything))
        if encoders is None:
            return {}
        return {own.row: Seen.join([seen[own.row, n] for n in range(len(own.wanted))]).to_json() for own in asked}

    def _files(self, model: Model, own: Drawing) -> list[Path]:
        folder = self.folder / "pictures" / model.name
        return [folder / f"{own.row}-{number}.png" for number in range(min(own.show, len(own.wanted)))]

    def _see(self, pixels: Tensor, encoders: Mapping[str, Encoder]) -> Seen:
        tagged = read_pictures(self.tagger, pixels) if self.tagger else Seen({}, {})
        return replace(tagged, features={name: own.see(pixels) for name, own in encoders.items()})
