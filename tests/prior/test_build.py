"""Building a prior set: killed at any instant, damaged, on a full disk: the same command ends in the same bits."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.events import Event
from tenuto.families.base import Base
from tenuto.families.sampling import SamplerSettings
from tenuto.prior import build as building
from tenuto.prior import maker
from tenuto.prior.build import BuildStopped, build, lacking
from tenuto.prior.foreign import ForeignPicture, take_in
from tenuto.prior.maker import joined
from tenuto.prior.plan import PriorPlan, plan_prior
from tenuto.prior.store import PriorImage, PriorStore
from tenuto.words import Size, TenutoError
from tests.jobs import until
from tests.prior.test_plan import SQUARE, WIDE, Prompt

SAMPLER = SamplerSettings(steps=3, guidance=3)
LONG = "x" * 100
FORK = multiprocessing.get_context("fork")


def make_plan(copies: int = 3, batch: int = 2, sampler: SamplerSettings = SAMPLER) -> PriorPlan:
    """Two buckets, one prompt of two passes, pools that leave something over."""
    wanted = [
        Prompt(text, f"item{number}", copy, bucket=bucket)
        for number, (text, bucket) in enumerate([("a", SQUARE), ("b c", SQUARE), (LONG, SQUARE), ("d", WIDE)])
        for copy in range(copies)
    ]
    return plan_prior(wanted, sampler, seed=0, batch=batch)


def open_store(base: Base, folder: Path) -> PriorStore:
    return PriorStore.open(base.hash, folder)


def made(images: list[PriorImage], store: PriorStore) -> dict[str, tuple[PriorImage, Tensor]]:
    return {image.id: (replace(image, seconds=0.0), store.latents(image.id)) for image in images}


def assert_same(a: dict[str, tuple[PriorImage, Tensor]], b: dict[str, tuple[PriorImage, Tensor]]) -> None:
    assert list(a) == list(b)
    for name, (record, latents) in a.items():
        assert record == b[name][0]
        assert torch.equal(latents, b[name][1])


def shards(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "shards").glob("*")) if folder.exists() else []


@pytest.fixture(scope="module")
def whole_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole")


@pytest.fixture
def whole(tiny_base: Base, whole_folder: Path) -> dict[str, tuple[PriorImage, Tensor]]:
    """The set that an uninterrupted build makes."""
    store = open_store(tiny_base, whole_folder)
    return made(build(make_plan(), tiny_base, store), store)


def test_the_whole_plan_is_made_in_its_order(tiny_base: Base, tmp_path: Path) -> None:
    plan, events = make_plan(), list[Event]()
    store = open_store(tiny_base, tmp_path)
    assert sum(map(len, lacking(plan, tiny_base, store))) == 12
    images = build(plan, tiny_base, store, listener=events.append)
    assert [(i.id, i.prompt, i.seed, i.bucket) for i in images] == [
        (p.id, p.prompt, p.seed, p.bucket) for p in plan.images
    ]
    for image in images:
        latents = store.latents(image.id)
        assert latents.shape == tiny_base.geometry.latent(image.bucket)
        assert (image.kind, image.sampler, image.steps, image.guidance) == ("generated", "dpmpp_2m", 3, 3.0)
        assert image.seconds > 0
    told = [event.data for event in events if event.kind == "progress"]
    assert [data["done"] for data in told] == sorted({data["done"] for data in told})
    assert told[-1]["done"] == told[-1]["total"] == 12
    assert all(data["rate"] > 0 and data["eta"] >= 0 for data in told)
    assert store.verify() == []
    assert lacking(plan, tiny_base, store) == []
    pace = store.pace()
    assert pace is not None
    assert plan.minutes(pace) == pytest.approx(sum(image.seconds for image in images) / 60)


def test_while_images_are_sampled_nothing_but_the_denoiser_is_on_the_device(
    tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    def hear(name: str, letter: str) -> None:
        asked = getattr(tiny_base, name)

        def told(*args: Any, **more: Any) -> Any:
            heard.append(letter)
            return asked(*args, **more)

        monkeypatch.setattr(tiny_base, name, told)

    hear("encode_text", "e")
    hear("rest", "r")
    hear("predict", "p")
    build(make_plan(), tiny_base, open_store(tiny_base, tmp_path))
    order = re.sub(r"(.)\1+", r"\1", "".join(heard))
    assert "p" in order
    assert "ep" not in order, "the text encoders rest before the first step"
    assert set(order.split("p")) <= {"er", "r", ""}


def test_made_once(tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tiny_base, tmp_path)
    first = made(build(make_plan(), tiny_base, store), store)
    monkeypatch.setattr(maker, "sample", refuse)
    again = open_store(tiny_base, tmp_path)
    assert_same(made(build(make_plan(), tiny_base, again), again), first)


def refuse(*_: object, **__: object) -> Tensor:
    raise AssertionError("sampled again")


def in_child(work: Callable[[], object]) -> multiprocessing.process.BaseProcess:
    process = FORK.Process(target=work)
    process.start()
    return process


def kill(process: multiprocessing.process.BaseProcess) -> bool:
    """SIGKILL; False when the process had ended before."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def test_killed_at_any_instant(
    tiny_base: Base, tmp_path: Path, whole: dict[str, tuple[PriorImage, Tensor]], whole_folder: Path
) -> None:
    real, folder, go = maker.sample, tmp_path / "killed", tmp_path / "go"

    def sampled(*given: Any, **more: Any) -> Tensor:
        until(lambda: go.exists() or len(shards(folder)) + 1 < len(shards(whole_folder)))
        return real(*given, **more)  # the last shard waits

    def work() -> None:
        maker.sample = sampled  # type: ignore[assignment]
        build(make_plan(), tiny_base, open_store(tiny_base, folder))

    kills, wait = 0, 0.01
    while True:
        process = in_child(work)
        process.join(wait)
        if process.exitcode is not None or not kill(process):
            break
        kills, wait = kills + 1, wait * 1.3
        if kills == 3:
            go.touch()
    assert process.exitcode == 0
    assert kills >= 3
    store = open_store(tiny_base, tmp_path / "killed")
    assert_same(made(build(make_plan(), tiny_base, store), store), whole)
    assert shards(tmp_path / "killed") == shards(whole_folder)


def at_once(log: Path, count: int) -> Callable[..., Tensor]:
    """Sampling that begins when so many processes are at it, and writes down which process did it."""
    real = maker.sample

    def sampled(*given: Any, **more: Any) -> Tensor:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        until(lambda: len(set(log.read_text().split())) == count)
        return real(*given, **more)

    return sampled


def test_two_processes_share_the_work(
    tiny_base: Base, tmp_path: Path, whole: dict[str, tuple[PriorImage, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maker, "sample", at_once(tmp_path / "log", 2))
    folder = tmp_path / "shared"
    open_store(tiny_base, folder)

    def work() -> None:
        store = open_store(tiny_base, folder)
        assert_same(made(build(make_plan(), tiny_base, store), store), whole)

    processes = [in_child(work), in_child(work)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    sampled = (tmp_path / "log").read_text().split()
    assert len(sampled) == len(shards(folder))  # none was made twice
    assert len(set(sampled)) == 2
    assert list((folder / "claims").glob("*")) == []


def test_what_a_killed_process_was_making_is_made_by_the_other(
    tiny_base: Base, tmp_path: Path, whole: dict[str, tuple[PriorImage, Tensor]]
) -> None:
    folder, reached, waits = tmp_path / "shared", FORK.Event(), FORK.Event()

    def hang() -> None:
        maker.sample = lambda *_, **__: (reached.set(), time.sleep(600))  # type: ignore[assignment,return-value]
        build(make_plan(), tiny_base, open_store(tiny_base, folder))

    def work() -> None:
        def listen(event: Event) -> None:
            if "waiting for them" in event.data.get("text", ""):
                waits.set()

        build(make_plan(), tiny_base, open_store(tiny_base, folder), listener=listen)

    first = in_child(hang)
    assert reached.wait(200)
    second = in_child(work)
    assert waits.wait(200)
    assert len(shards(folder)) == 6  # all but what the first is at
    with pytest.raises(BuildStopped, match="10 of 12 prior images are kept"):
        build(make_plan(), tiny_base, open_store(tiny_base, folder), stop=lambda: True)
    assert kill(first)
    second.join()
    assert second.exitcode == 0
    store = open_store(tiny_base, folder)
    assert_same(made(build(make_plan(), tiny_base, store), store), whole)


def test_several_planned_batches_at_once(
    tiny_base: Base, tmp_path: Path, whole: dict[str, tuple[PriorImage, Tensor]], whole_folder: Path
) -> None:
    """The device may take more than a shard: the same shards, the same images but for rounding."""
    store = open_store(tiny_base, tmp_path / "large")
    images = build(make_plan(), tiny_base, store, at_once=4)
    assert shards(tmp_path / "large") == shards(whole_folder)
    large = made(images, store)
    for name, (record, latents) in large.items():
        assert record.made.endswith("4 rows")
        torch.testing.assert_close(latents, whole[name][1], atol=5e-3, rtol=5e-3)
    asked = iter(range(1000))
    cut = open_store(tiny_base, tmp_path / "cut")
    with pytest.raises(BuildStopped, match="4 of 12"):
        build(make_plan(), tiny_base, cut, at_once=4, stop=lambda: next(asked) >= 4)
    assert_same(made(build(make_plan(), tiny_base, cut, at_once=4), cut), large)


def test_a_cut_that_another_builder_began_is_the_same_cut(
    tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, or overtaken, between two shards of one cut: what is left is sampled in the cut it belongs to."""
    store = open_store(tiny_base, tmp_path / "large")
    large = made(build(make_plan(), tiny_base, store, at_once=4), store)
    store = open_store(tiny_base, tmp_path / "cut")
    add, kept = PriorStore.add, []

    def one(self: PriorStore, *shard: Any) -> None:
        if kept:
            raise KeyboardInterrupt
        kept.append(shard)
        add(self, *shard)

    monkeypatch.setattr(PriorStore, "add", one)
    with pytest.raises(KeyboardInterrupt):
        build(make_plan(), tiny_base, store, at_once=4)
    monkeypatch.setattr(PriorStore, "add", add)
    assert_same(made(build(make_plan(), tiny_base, store, at_once=4), store), large)


def test_joined_batches_are_of_one_bucket_and_length() -> None:
    batches = make_plan().batches(lambda text: 2 if text == LONG else 1)
    together = joined(batches, rows=5, batch=2)
    assert sorted(key for piece in together for key in piece.keys) == sorted(batch.key for batch in batches)
    for piece in together:
        assert len(piece.batches) <= 2
        assert len({(image.bucket, image.prompt == LONG) for image in piece.images}) == 1
    assert any(len(piece.batches) == 2 for piece in together)
    assert all(len(piece.batches) == 1 for piece in joined(batches, rows=1, batch=2))


@pytest.mark.parametrize("moment", ["half written", "before the rename", "between batches"])
def test_killed_at_the_worst_instants(
    tiny_base: Base, tmp_path: Path, whole: dict[str, tuple[PriorImage, Tensor]], whole_folder: Path, moment: str
) -> None:
    reached = FORK.Event()

    def hang(*_: object) -> None:
        reached.set()
        time.sleep(600)

    def work() -> None:
        written = Path.write_bytes

        def half(path: Path, data: bytes) -> int:
            if len(shards(tmp_path / "killed")) >= 2:
                written(path, data[: len(data) // 2] if moment == "half written" else data)
                hang()
            return written(path, data)

        if moment != "between batches":
            Path.write_bytes = half  # type: ignore[method-assign,assignment]
        listener = hang if moment == "between batches" else (lambda event: None)
        build(make_plan(), tiny_base, open_store(tiny_base, tmp_path / "killed"), listener=listener)

    process = in_child(work)
    assert reached.wait(200)
    assert kill(process)
    kept = shards(tmp_path / "killed")
    assert kept
    assert any(name.endswith(".part") for name in kept) == (moment != "between batches")
    store = open_store(tiny_base, tmp_path / "killed")
    assert_same(made(build(make_plan(), tiny_base, store), store), whole)
    assert shards(tmp_path / "killed") == shards(whole_folder)


def test_stopped_between_steps(tiny_base: Base, tmp_path: Path, whole: dict[str, tuple[PriorImage, Tensor]]) -> None:
    asked = iter(range(1000))
    store = open_store(tiny_base, tmp_path / "stopped")
    with pytest.raises(BuildStopped, match=r"2 of 12 prior images are kept"):
        build(make_plan(), tiny_base, store, stop=lambda: next(asked) >= 4)  # in the second batch
    assert len(shards(tmp_path / "stopped")) == 1
    assert_same(made(build(make_plan(), tiny_base, store), store), whole)


def test_a_larger_pool_is_the_same_whatever_was_there(tiny_base: Base, tmp_path: Path) -> None:
    fresh, grown = open_store(tiny_base, tmp_path / "fresh"), open_store(tiny_base, tmp_path / "grown")
    small = made(build(make_plan(3), tiny_base, grown), grown)
    notes: list[Event] = []
    large = made(build(make_plan(5), tiny_base, grown, listener=notes.append), grown)
    assert any("are there already" in event.data.get("text", "") for event in notes)
    assert_same(large, made(build(make_plan(5), tiny_base, fresh), fresh))
    assert set(small) < set(large)
    again = open_store(tiny_base, tmp_path / "grown")
    assert_same(made(build(make_plan(3), tiny_base, again), again), small)  # the smaller pool is still what it was
    for name, (_, latents) in small.items():
        torch.testing.assert_close(latents, large[name][1], atol=5e-3, rtol=5e-3)


def test_damage_is_said_and_mended(
    tiny_base: Base, tmp_path: Path, whole: dict[str, tuple[PriorImage, Tensor]], whole_folder: Path
) -> None:
    folder = shutil.copytree(whole_folder, tmp_path / "copy")
    flipped, cut = (folder / "shards" / name for name in shards(folder)[:2])
    data = bytearray(flipped.read_bytes())
    data[-1] ^= 1
    flipped.write_bytes(bytes(data))
    cut.write_bytes(cut.read_bytes()[:100])
    store, said = open_store(tiny_base, folder), list[Event]()
    assert sorted(flipped.name in line or cut.name in line for line in store.verify()) == [True, True]
    assert_same(made(build(make_plan(), tiny_base, store, listener=said.append), store), whole)
    warnings = [event.data["text"] for event in said if event.kind == "warning"]
    assert len(warnings) == 2
    assert any(flipped.name in text for text in warnings)
    assert any(cut.name in text for text in warnings)
    assert store.verify() == []


def test_an_adapter_is_refused(tiny_base: Base, tmp_path: Path) -> None:
    adapter = Adapter.attach(tiny_base, AdapterSettings(rank=2))
    with adapter.disabled(), pytest.raises(TenutoError, match="adapter is attached"):
        build(make_plan(), tiny_base, open_store(tiny_base, tmp_path))
    adapter.detach()
    build(make_plan(1), tiny_base, open_store(tiny_base, tmp_path))


def test_a_full_disk_loses_nothing(
    tiny_base: Base, tmp_path: Path, whole: dict[str, tuple[PriorImage, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if len(shards(tmp_path / "full")) >= 3:
            written(path, data[:50])
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(path, data)

    store = open_store(tiny_base, tmp_path / "full")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(TenutoError, match="free some space"):
            build(make_plan(), tiny_base, store)
    assert len(shards(tmp_path / "full")) == 3
    assert not [name for name in shards(tmp_path / "full") if name.endswith(".part")]
    assert_same(made(build(make_plan(), tiny_base, store), store), whole)


def test_too_small_a_disk_is_refused_before_work(
    tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    monkeypatch.setattr(maker, "sample", refuse)
    with pytest.raises(TenutoError, match="MiB are free; free some space"):
        build(make_plan(), tiny_base, open_store(tiny_base, tmp_path))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 24 KiB, where this user may make one."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(place)]
        mounted = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        pytest.skip("no mount here")
    if mounted.returncode:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_really_full_disk(
    tiny_base: Base,
    tmp_path: Path,
    small_disk: Path,
    whole: dict[str, tuple[PriorImage, Tensor]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(building, "_refuse_small_disk", lambda *_: None)
    store = open_store(tiny_base, small_disk)
    with pytest.raises(TenutoError, match="No space left"):
        build(make_plan(), tiny_base, store)
    assert store.verify() == []
    assert shards(small_disk)
    shutil.copytree(small_disk, tmp_path / "roomy")
    roomy = open_store(tiny_base, tmp_path / "roomy")
    assert_same(made(build(make_plan(), tiny_base, roomy), roomy), whole)


def test_out_of_memory_takes_fewer_rows(
    tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, tuple[PriorImage, Tensor]]
) -> None:
    real = maker.sample

    def little_memory(
        base: Base, cond: object, uncond: object, size: Size, seeds: list[int], *a: object, **k: object
    ) -> Tensor:
        if len(seeds) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(base, cond, uncond, size, seeds, *a, **k)  # type: ignore[arg-type]

    monkeypatch.setattr(maker, "sample", little_memory)
    store, said = open_store(tiny_base, tmp_path / "small"), list[Event]()
    images = build(make_plan(), tiny_base, store, listener=said.append)
    assert [event.data["text"] for event in said if event.kind == "warning"] == [
        "out of memory: prior images are sampled 1 at once; last bits may differ"
    ]
    for image in images:
        torch.testing.assert_close(store.latents(image.id), whole[image.id][1], atol=5e-3, rtol=5e-3)
    assert any("last bits may differ" in e.data["text"] for e in said if e.kind == "note")


@pytest.mark.parametrize("copies", [1, 2])
def test_a_device_that_is_too_small_for_one_image_is_said(
    copies: int, tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object, **__: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(maker, "sample", no_memory)
    with pytest.raises(TenutoError, match=r"a prior image of \d+x\d+ does not fit into the device's memory"):
        build(make_plan(copies), tiny_base, open_store(tiny_base, tmp_path))


def test_what_is_not_finite_is_not_kept(tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maker, "sample", lambda *_, **__: torch.full((2, 4, 8, 8), torch.nan))
    with pytest.raises(TenutoError, match=r'prior image "a".*not finite'):
        build(make_plan(), tiny_base, open_store(tiny_base, tmp_path))
    assert shards(tmp_path) == []


def test_without_guidance_one_answer_is_enough(tiny_base: Base, tmp_path: Path) -> None:
    sampler = SamplerSettings(steps=2, guidance=1, negative=LONG)
    store = open_store(tiny_base, tmp_path)
    assert len(build(make_plan(1, sampler=sampler), tiny_base, store)) == 4


def test_foreign_pictures_join_and_are_marked(tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = {"x": torch.zeros(3, 16, 16), "y": torch.ones(3, 16, 24)}
    wanted = [
        ForeignPicture(Path("x.png"), "x", "a dog", "eyes", SQUARE),
        ForeignPicture(Path("y.png"), "y", "", "", WIDE),
        ForeignPicture(Path("copy of x.png"), "x", "a dog", "eyes", SQUARE),
    ]
    read: list[str] = []

    def reader(picture: ForeignPicture) -> Tensor:
        read.append(picture.content)
        return pixels[picture.content]

    store = open_store(tiny_base, tmp_path)
    images = take_in(wanted, tiny_base, store, reader)
    assert read == ["x", "y"]
    assert [(i.kind, i.prompt, i.bucket, i.source) for i in images] == [
        ("foreign", "a dog", SQUARE, "copy of x.png"),
        ("foreign", "", WIDE, "y.png"),
    ]
    torch.testing.assert_close(
        store.latents(images[1].id), tiny_base.encode_image(pixels["y"][None])[0], atol=2e-3, rtol=2e-3
    )
    again = open_store(tiny_base, tmp_path)
    assert take_in(wanted, tiny_base, again, lambda _: pytest.fail("read again")) == images
    shard = tmp_path / "shards" / f"{images[0].id}.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    said: list[Event] = []
    take_in(wanted, tiny_base, again, reader, listener=said.append)
    assert read == ["x", "y", "x"]
    assert [event.kind for event in said] == ["warning", "progress"]
    with pytest.raises(BuildStopped, match="0 of 1"):
        take_in([replace(wanted[0], content="y")], tiny_base, again, reader, stop=lambda: True)
