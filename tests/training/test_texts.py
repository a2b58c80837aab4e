"""Prompts are encoded ahead, so that the text encoders and the autoencoder need not stay on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from tenuto.data.cache import Cache
from tenuto.families.base import Base, Conditioning
from tenuto.regularizers.output_preservation import OutputPreservation
from tenuto.training import texts
from tenuto.training.loop import Run, train
from tenuto.training.rows import Row
from tests.steps import Thing, equal, make_run


@dataclass(frozen=True)
class Shuffled(Thing):
    """Another caption at every visit."""

    def row(self, visit: int) -> Row:
        own = Thing(self.id, caption=f"{self.id[-1]} {visit}", class_caption=f"dog {visit}", varied=True)
        return own.row(visit)


def make(base: Base, folder: Path, **more: Any) -> Run:
    items = [Shuffled(f"item-{number}") for number in range(4)]
    return make_run(base, folder, {"o": OutputPreservation()}, items=items, steps=12, **more)


def encodings(base: Base, run: Run, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every use of the text encoder and every rest, in order; "learn" where an update begins."""
    log: list[str] = []
    encode, rest, learn = base.encode_text, base.rest, run.learn

    def heard_encode(*given: Any) -> Conditioning:
        log.append("encode")
        return encode(*given)

    def heard_rest(**given: Any) -> None:
        log.append("rest" if given.get("text", True) else "rest, not text")
        rest(**given)

    def heard_learn(rows: Any) -> dict[str, float]:
        log.append("learn")
        return learn(rows)

    monkeypatch.setattr(base, "encode_text", heard_encode)
    monkeypatch.setattr(base, "rest", heard_rest)
    monkeypatch.setattr(run, "learn", heard_learn)
    return log


def test_between_rest_and_the_next_look_ahead_no_encoder_is_asked(
    tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "AHEAD", 5)
    run = make(tiny_base, tmp_path)
    log = encodings(tiny_base, run, monkeypatch)
    train(run)
    updates = "".join({"learn": "L", "rest": "r", "encode": "e"}[each] for each in log).split("L")
    assert len(updates) == 13
    assert all(update.endswith("r") for update in updates[:-1]), "the encoders rest while an update is made"
    assert sum("e" in update for update in updates[1:]) <= 4, "once every five updates"
    assert run.maker.texts._surprises == 0


def test_looking_ahead_changes_nothing(tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[dict[str, Tensor]] = []
    for kept in (256, 5):
        monkeypatch.setattr(texts, "KEPT", kept)
        run = make(tiny_base, tmp_path / str(kept))
        train(run)
        assert len(run.maker.texts._kept) <= kept
        states.append(run.adapter.state())
        run.adapter.detach()
    assert equal(*states)


def trained(base: Base, folder: Path, store: Cache | None, items: Sequence[Thing] = ()) -> dict[str, Tensor]:
    """What is learned in a few updates."""
    own = make_run(base, folder, {"o": OutputPreservation()}, items=items, steps=6, texts=store)
    train(own)
    learned = own.adapter.state()
    own.adapter.detach()
    assert learned
    return learned


def test_the_next_run_finds_every_prompt_on_the_disk(
    tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit what it would have encoded."""
    asked: list[str] = []
    encode = tiny_base.encode_text

    def heard(prompts: Sequence[str], *given: Any) -> Conditioning:
        asked.extend(prompts)
        return encode(prompts, *given)

    monkeypatch.setattr(tiny_base, "encode_text", heard)
    alone = trained(tiny_base, tmp_path / "alone", None)
    without, store = sorted(asked), Cache(tmp_path / "texts")
    asked.clear()
    first = trained(tiny_base, tmp_path / "first", store)
    assert sorted(asked) == without
    asked.clear()
    second = trained(tiny_base, tmp_path / "second", store)
    assert asked == []
    assert equal(alone, first)
    assert equal(first, second)
    one, *_ = files = sorted(store.root.rglob("*.safetensors"))
    assert len(files) == len(set(without))
    one.write_bytes(one.read_bytes()[:-3])
    assert equal(trained(tiny_base, tmp_path / "third", store), first)
    assert len(asked) == 1, "what is damaged is encoded anew"
    monkeypatch.setattr(type(tiny_base), "rounding", "cuda float32")
    trained(tiny_base, tmp_path / "elsewhere", store)
    assert sorted(asked[1:]) == without, "another machine's last bits are others"


def test_captions_of_one_visit_are_not_kept_on_the_disk(tiny_base: Base, tmp_path: Path) -> None:
    store = Cache(tmp_path / "texts")
    trained(tiny_base, tmp_path / "run", store, [Shuffled(f"item-{number}") for number in range(4)])
    assert list(tmp_path.glob("texts/*")) == []


def test_a_trained_text_encoder_stays(tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(tiny_base, tmp_path, parts=("attention", "text_encoder"))
    log = encodings(tiny_base, run, monkeypatch)
    train(run)
    assert "rest" not in log
    assert "rest, not text" in log
