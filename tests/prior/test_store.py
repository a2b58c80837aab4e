"""The prior store: what is written is what is read, and damage does not pass."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tenuto.prior.store import DamagedShard, PriorImage, PriorStore, WrongBase
from tenuto.words import Size, TenutoError

BASE = "a" * 64


def image(name: str, **more: object) -> PriorImage:
    made = PriorImage(name, "eyes", Size(24, 16), "a “dog”", "", 2**55 + 3, "euler", 4, 5.0, "generated", "item")
    return replace(made, **more)  # type: ignore[arg-type]


def latents(name: str) -> Tensor:
    return torch.randn(4, 8, 12, generator=torch.Generator().manual_seed(len(name)))


@pytest.fixture
def store(tmp_path: Path) -> PriorStore:
    return PriorStore.open(BASE, tmp_path / "store")


def filled(store: PriorStore, key: str = "k1", *names: str) -> Path:
    names = names or ("one", "three")
    store.add(key, [image(name) for name in names], {name: latents(name) for name in names})
    return store.folder / "shards" / f"{key}.safetensors"


def test_what_is_added_is_read_again(store: PriorStore) -> None:
    filled(store)
    for opened in (store, PriorStore.open(BASE, store.folder)):
        assert "one" in opened
        assert "two" not in opened
        record = opened.record("three")
        assert replace(record, sha="", shard="") == image("three")
        assert record.shard == "k1"
        read = opened.latents("three")
        assert read.dtype == torch.float32
        assert torch.equal(read, latents("three").half().float())
        assert opened.take("k1", ["one", "three"])
        assert not opened.take("k2", ["one"])
        assert opened.verify() == []


def test_shared_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENUTO_HOME", str(tmp_path))
    filled(PriorStore.open(BASE))
    assert "one" in PriorStore.open(BASE)
    assert "one" not in PriorStore.open("b" * 64)


def test_another_base_is_refused(store: PriorStore) -> None:
    shard = filled(store)
    with pytest.raises(WrongBase, match=f"{'a' * 12}.*{'b' * 12}") as caught:
        PriorStore.open("b" * 64, store.folder)
    assert "\n" not in str(caught.value)
    other = store.folder.parent / "other"
    PriorStore.open("b" * 64, other)
    (other / "shards").mkdir()
    os.link(shard, other / "shards" / shard.name)
    with pytest.raises(WrongBase):  # a shard that was copied between stores
        PriorStore.open("b" * 64, other)


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"base": BASE, "format": 0})])
def test_an_odd_folder_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "base.json").write_text(text)
    with pytest.raises(TenutoError, match=str(tmp_path)):
        PriorStore.open(BASE, tmp_path)


@pytest.mark.parametrize("place", range(8, 100000, 997))
def test_every_flipped_byte_is_seen(store: PriorStore, place: int) -> None:
    shard = filled(store)
    data = bytearray(shard.read_bytes())
    data[place % len(data)] ^= 0x20
    shard.write_bytes(bytes(data))
    with pytest.raises(DamagedShard, match=shard.name):
        store.take("k1", ["one", "three"])
    assert [shard.name in problem for problem in store.verify()] == [True]
    PriorStore.open(BASE, store.folder)  # a damaged shard does not keep the others from being used


@pytest.mark.parametrize("size", [0, 7, 200, -1])
def test_a_cut_file_is_seen(store: PriorStore, size: int) -> None:
    shard = filled(store)
    shard.write_bytes(shard.read_bytes()[:size])
    with pytest.raises(DamagedShard, match=shard.name):
        store.take("k1", ["one", "three"])
    reopened = PriorStore.open(BASE, store.folder)
    assert "one" not in reopened
    filled(reopened)
    assert reopened.verify() == []


def test_a_shard_of_other_images_is_damaged(store: PriorStore) -> None:
    filled(store)
    with pytest.raises(DamagedShard, match="other images"):
        store.take("k1", ["one"])


def test_the_shard_that_was_taken_answers(store: PriorStore) -> None:
    """The same image in two batches (a pool and a larger one): a run reads its own plan's, whatever else is there."""
    store.add("k1", [image("one")], {"one": torch.zeros(4, 8, 12)})
    store.add("k2", [image("one")], {"one": torch.ones(4, 8, 12)})
    for key, value in (("k1", 0), ("k2", 1), ("k1", 0)):
        assert store.take(key, ["one"])
        assert float(store.latents("one").mean()) == value


def test_pace(store: PriorStore) -> None:
    assert store.pace() is None
    records = [image("one", seconds=4.0), image("three", seconds=0.0), image("ninety", kind="foreign", seconds=9.0)]
    store.add("k1", records, {record.id: latents(record.id) for record in records})
    assert store.pace() == pytest.approx(4.0 / (4 * 2 * 24 * 16))


def test_half_written_leftovers_of_the_dead_go(store: PriorStore) -> None:
    shard = filled(store)
    left = shard.with_name(f".{shard.name}.999.part")
    left.write_bytes(b"half")
    with store.claims.on([shard.stem]):
        PriorStore.open(BASE, store.folder).tidy()
        assert left.exists()  # somebody may be at it
    claim = store.folder / "claims" / "k9.lock"
    claim.touch()  # as a kill leaves it
    store.tidy()
    assert not left.exists()
    assert not claim.exists()
    assert shard.exists()


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TenutoError, match="file"):
        PriorStore.open(BASE, tmp_path / "file" / "store")
    store = PriorStore.open(BASE, tmp_path / "store")
    (store.folder / "claims").write_text("")
    with pytest.raises(TenutoError, match="cannot be written"), store.claims.on(["key"]):
        pass


def test_a_bottomless_record_is_one_line(store: PriorStore) -> None:
    (store.folder / "base.json").write_text("[" * 50_000)
    with pytest.raises(TenutoError, match=r"base\.json: not readable"):
        PriorStore.open(BASE, store.folder)
