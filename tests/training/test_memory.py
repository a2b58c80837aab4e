"""What a project would hold: counted without numbers, it is what real tensors come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.families.base import Base
from tenuto.families.meter import META, Meter, bytes_of, tensors_of, weightless
from tenuto.project.file import make_project
from tenuto.regularizers.catalogue import REGULARIZERS
from tenuto.training.rows import Row
from tenuto.training.settings import TrainingSettings
from tenuto.training.trial import held_by_update
from tenuto.words import Role, Size
from tenuto.work import memory
from tenuto.work.memory import GIB, PROGRAM, SAVINGS, Memory
from tenuto.work.prepare import PRECISIONS, Prepared, audited, prepare
from tests.training.test_job import project

SIZE = Size(32, 32)
FAMILIES = pytest.mark.parametrize("base", ["tiny_base", "tiny_xl_base"], indirect=True)
EVERYTHING = AdapterSettings(rank=4, parts=("attention", "feed_forward", "convolution", "text_encoder"))


@pytest.fixture
def base(request: pytest.FixtureRequest) -> Base:
    found: Base = request.getfixturevalue(request.param)
    return found


def rows(base: Base, count: int = 2) -> list[Row]:
    latents = torch.zeros(base.geometry.latent(SIZE))
    roles: tuple[Role, ...] = ("instance", "prior")
    return [
        Row(f"{role} {n}", 0, role, SIZE, "zxq, girl", 1, latents, "girl, girl", "girl")
        for role in roles
        for n in range(count)
    ]


def held(base: Base, settings: TrainingSettings, *methods: str, count: int = 2) -> int:
    adapter = Adapter.attach(base, settings.adapter)
    try:
        return held_by_update(
            base, adapter, settings, {name: REGULARIZERS[name]() for name in methods}, rows(base, count)
        )
    finally:
        adapter.detach()


@FAMILIES
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("adapter", [AdapterSettings(rank=4), EVERYTHING])
def test_counted_without_numbers_is_counted_with_them(
    base: Base, checkpointing: bool, adapter: AdapterSettings
) -> None:
    settings = TrainingSettings(gradient_checkpointing=checkpointing, adapter=adapter)
    counted = held(weightless(base), settings, "prior_prediction")
    assert counted == pytest.approx(held(base, settings, "prior_prediction"), rel=0.02)


@FAMILIES
def test_weights_are_counted_in_their_precision(base: Base) -> None:
    networks = bytes_of(tensor for module in base.modules().values() for tensor in module.parameters())
    assert bytes_of(tensors_of(weightless(base))) == bytes_of(tensors_of(base))
    saved = bytes_of(tensors_of(base)) - bytes_of(tensors_of(weightless(base, torch.bfloat16)))
    assert saved == networks // 2


def test_weights_in_8_bits_are_counted_so(tiny_base: Base, tiny_fp8_base: Base) -> None:
    real = bytes_of(tensors_of(tiny_fp8_base))
    assert real < bytes_of(tensors_of(tiny_base))
    assert bytes_of(tensors_of(weightless(tiny_fp8_base))) == real
    assert bytes_of(tensors_of(weightless(tiny_base, fp8=True))) == real
    assert held(weightless(tiny_base, fp8=True), TrainingSettings(adapter=AdapterSettings(kind="lokr", rank=2))) > 0
    counted = held(weightless(tiny_base, fp8=True), TrainingSettings(), "prior_prediction")
    assert counted == pytest.approx(held(tiny_fp8_base, TrainingSettings(), "prior_prediction"), rel=0.02)


def test_what_each_saving_saves(tiny_base: Base) -> None:
    plain = held(weightless(tiny_base), TrainingSettings())
    assert held(weightless(tiny_base), TrainingSettings(gradient_checkpointing=True)) < plain
    assert held(weightless(tiny_base), TrainingSettings(micro_batch=1)) < plain
    assert held(weightless(tiny_base), TrainingSettings(), count=4) > 1.5 * plain
    assert held(weightless(tiny_base), TrainingSettings(), "output_preservation") > 1.3 * plain  # one more pass is kept


@pytest.mark.parametrize("name", REGULARIZERS)
def test_every_method_can_be_counted(name: str, tiny_base: Base) -> None:
    assert held(weightless(tiny_base), TrainingSettings(), name) > 0


def test_a_meter_counts_what_is_alive() -> None:
    there = torch.zeros(1000)
    with Meter([there]) as meter:
        kept: list[Tensor] = [torch.zeros(256), there[:10]]
        torch.zeros(512).sum()
    assert meter.now == 256 * 4
    assert meter.peak == (256 + 512 + 1) * 4
    assert len(kept) == 2


def test_equal_numbers_of_other_kinds_make_other_tensors() -> None:
    """What was asked once is remembered; True, 1 and 1.0 are different questions."""
    full = torch.ops.aten.full.default
    held = []
    for value in (True, 1, 1.0, True):
        with Meter() as meter:
            full([1000], value, device=META)
        held.append(meter.peak)
    assert held == [1000, 8000, 4000, 1000]


def ready(folder: Path, tiny: Path, **training: Any) -> Prepared:
    own = project(folder, tiny, {"prior_preservation": {}})
    return prepare(make_project(own.model_dump() | {"training": {**own.training.model_dump(), **training}}, "test"))


def test_the_audit_tells_it(tiny_folder: Path, tmp_path: Path) -> None:
    report = audited(ready(tmp_path, tiny_folder))
    assert "LoRA and optimizer" in report.memory[0]
    assert report.memory[1].startswith("memory: 8 GB: fits as it is")
    assert not [problem for problem in report.problems if problem.file == "memory"]


def test_too_little_is_warned_of_and_the_remedy_helps(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = ready(tmp_path, tiny_folder)
    whole = Memory(prepared, PRECISIONS).total()
    counted = Memory(prepared, PRECISIONS)
    least = counted.total(counted.way.put({name: value for saving in SAVINGS for name, value in saving.items()}))
    weights = bytes_of(tensors_of(prepared.base))
    monkeypatch.setattr(memory, "free_memory", lambda device: least - weights + 1000)
    (warning,) = [problem for problem in audited(prepared).problems if problem.file == "memory"]
    assert warning.level == "warning"
    assert "training.precision" in warning.remedy
    monkeypatch.setattr(memory, "free_memory", lambda device: int(PROGRAM * GIB) - weights)
    (warning,) = [problem for problem in audited(prepared).problems if problem.file == "memory"]
    assert "data.buckets.area" in warning.remedy
    monkeypatch.setattr(memory, "free_memory", lambda device: whole - weights)
    assert not [problem for problem in audited(prepared).problems if problem.file == "memory"]


def test_8_bits_are_the_last_saving(tiny_folder: Path, tmp_path: Path) -> None:
    """They move the base's answers, so everything else is tried before."""
    counted = Memory(ready(tmp_path, tiny_folder), PRECISIONS)
    before = counted.way.put({name: value for saving in SAVINGS[:-1] for name, value in saving.items()})
    most = max(counted.need(before).training(), counted.need(before).sampling(1), counted.need(before).comparing(1))
    changes = counted.fitting(most - 1 + int(PROGRAM * GIB))
    assert changes is not None
    assert list(SAVINGS[-1]) == ["base.fp8"]
    assert "base.fp8 = true" in changes
    enough = counted.fitting(most + int(PROGRAM * GIB))
    assert enough is not None
    assert "base.fp8 = true" not in enough


def test_trainings_side_by_side_need_their_own(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = project(tmp_path, tiny_folder, {"prior_preservation": {}})

    def prepared(at_once: int) -> Prepared:
        return prepare(make_project(own.model_dump() | {"arms": {"seeds": (0, 1), "at_once": at_once}}, "test"))

    one, *several = (Memory(prepared(at_once), PRECISIONS).total() for at_once in (1, 2, 4, 9))
    assert several[0] > one + 2 * int(PROGRAM * GIB)
    assert several[2] == several[1] > several[0], "two seeds of two arms are four trainings"
    weights = bytes_of(tensors_of(prepared(2).base))
    monkeypatch.setattr(memory, "free_memory", lambda device: one - weights)
    (warning,) = [problem for problem in audited(prepared(2)).problems if problem.file == "memory"]
    assert warning.remedy == "set arms.at_once = 1"
    assert not [problem for problem in audited(prepared(1)).problems if problem.file == "memory"]
    assert "(2 at once, each in a process of its own)" in audited(prepared(2)).memory[0]


def test_a_cpu_says_what_it_has_free() -> None:
    free = memory.free_memory(torch.device("cpu"))
    assert free is not None
    assert free > 0
    assert memory.free_memory(torch.device("meta")) is None
