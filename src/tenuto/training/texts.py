"""Prompts as the base reads them, each encoded once, some updates ahead: in between the text encoders can rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import torch

from tenuto.adapters.adapter import Adapter
from tenuto.data.cache import Cache, key_of
from tenuto.families.base import Base, Conditioning
from tenuto.regularizers.step import At
from tenuto.training.rows import Row
from tenuto.words import Size

KEPT = 256
"""Encoded prompts that are remembered: shuffled captions never end."""
AHEAD = 32
"""Updates that are looked ahead, at most."""
SURPRISES = 3
"""Prompts that were not foreseen, before the text encoders stay where they are."""
TEXT = "text"
"""What a file of the store calls the token features; the rest is the family's."""


class Words(NamedTuple):
    """What conditioning depends on."""

    text: str
    size: Size
    chunks: int
    """Text passes."""
    lasting: bool = True
    """Whether they come back in every epoch and in other runs: worth a place on the disk."""


class Texts:
    """The text cache of one training. Prompts are encoded one by one: a batch would round differently."""

    def __init__(self, base: Base, adapter: Adapter, store: Cache | None = None) -> None:
        """`store`: where lasting prompts lie for every run; None: nowhere."""
        self._base, self._adapter, self._store = base, adapter, store
        self._kept: dict[Words, Conditioning] = {}
        self._asked: set[At] = set()
        self._foresees = False
        self._surprises = 0

    def told(self, at: At, words: Sequence[Words]) -> Conditioning:
        """Without the adapter."""
        if self._foresees and at in self._asked and any(each not in self._kept for each in words):
            self._surprises += 1
        self._asked.add(at)
        return Conditioning.join([self._text(each) for each in words])

    def read(self, words: Sequence[Words]) -> Conditioning:
        """As the text encoders read them now, adapted."""
        return self._base.encode_text([own.text for own in words], [own.size for own in words], words[0].chunks)

    def foresee(self, now: Sequence[Row], ahead: Iterable[Sequence[Row]]) -> None:
        """Encode what these rows and those of the next updates will ask for, then let the encoders rest."""
        self._foresees = not self._adapter.trains_text() and self._surprises < SURPRISES
        if not self._foresees:
            self._base.rest(text=False)
            return
        if any(words not in self._kept for words in self._words(now)):
            wanted: dict[Words, None] = {}
            for rows in islice(ahead, AHEAD):
                more = dict.fromkeys(self._words(rows))
                if wanted and len(wanted | more) > KEPT:
                    break
                wanted |= more
            for words in wanted:
                self._text(words)
        self._base.rest()

    def _words(self, rows: Sequence[Row]) -> list[Words]:
        """What these rows ask for: each prompt that was asked for before."""
        texts = ((row, _text_at(row, at)) for row in rows for at in ("own", *sorted(self._asked - {"own"})))
        return list(dict.fromkeys(Words(text, row.size, row.chunks, not row.varied) for row, text in texts))

    def _text(self, words: Words) -> Conditioning:
        """The prompts that were asked for last are kept."""
        known = self._kept.pop(words, None)
        if known is None:
            known = self._stored(self._store, words) if self._store and words.lasting else self._encoded(words)
        self._kept[words] = known
        while len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]
        return known

    def _encoded(self, words: Words) -> Conditioning:
        with torch.no_grad(), self._adapter.disabled():
            return self._base.encode_text([words.text], [words.size], words.chunks)

    def _stored(self, store: Cache, words: Words) -> Conditioning:
        """From the disk, where it is kept as it was encoded; else encoded now."""
        key = key_of("text", words.text, words.size, words.chunks, self._base.hash, self._base.rounding)
        found = store.get(key)
        if found is not None and TEXT in found:
            text = found.pop(TEXT)
            return Conditioning(text, tuple(found.items())).to(self._base.device)
        made = self._encoded(words)
        store.put(key, {TEXT: made.text.cpu(), **{name: value.cpu() for name, value in made.extra}})
        return made


def _text_at(row: Row, at: At) -> str:
    own = {"own": row.caption, "class": row.class_caption, "bare": row.bare_caption, "blank": ""}[at]
    return row.caption if own is None else own
