"""What a CPU cannot show, for machines with a GPU: trainings there are those of the CPU, in every precision, and what
does not fit is made in parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tenuto.evaluation.record import Comparison
from tenuto.events import Event
from tenuto.families.base import Base
from tenuto.families.checkpoints import open_base
from tenuto.families.sampling import SamplerSettings, sample
from tenuto.regularizers.prior_prediction import PriorPrediction
from tenuto.regularizers.prior_preservation import PriorPreservation
from tenuto.training.loop import train
from tenuto.words import Size
from tests.cli.test_commands import call
from tests.jobs import COMPARISON, plain_pictures
from tests.steps import apart, make_run, things
from tests.test_killed import PROJECT

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
METHODS = {"p": PriorPreservation(weight=0.5), "q": PriorPrediction(weight=2.0)}
LARGE = Size(128, 128)
FAMILIES = pytest.mark.parametrize("folder", ["tiny_folder", "tiny_v_folder", "tiny_xl_folder"])


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    """Matrices are multiplied in float32, not in the card's shorter one."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def learned(base: Base, folder: Path, **settings: object) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(train(make_run(base, folder, METHODS, steps=4, **settings)))
    return found


@FAMILIES
def test_a_training_is_that_of_the_cpu(folder: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = str(request.getfixturevalue(folder))
    everything = ("attention", "feed_forward", "convolution", "text_encoder")
    there, here = (
        learned(open_base(model, device=device), tmp_path / device, parts=everything) for device in ("cuda", "cpu")
    )
    assert apart(here, there) < 1e-3


def test_weights_in_8_bits_are_those_of_the_cpu(tiny_folder: Path, tmp_path: Path) -> None:
    there, here = (
        learned(open_base(str(tiny_folder), device=device, fp8=True), tmp_path / device) for device in ("cuda", "cpu")
    )
    assert apart(here, there) < 1e-3


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_nearly_the_same(precision: str, tiny_folder: Path, tmp_path: Path) -> None:
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    half = learned(open_base(str(tiny_folder), device="cuda", dtype=dtype), tmp_path / "half", precision=precision)
    assert all(torch.isfinite(value).all() for value in half.values())
    whole = learned(open_base(str(tiny_folder), device="cuda"), tmp_path / "whole")
    assert apart(whole, half) < 0.2


def test_checkpointing_and_small_parts_change_only_rounding(tiny_folder: Path, tmp_path: Path) -> None:
    ways: dict[str, dict[str, object]] = {
        "whole": {}, "parts": {"micro_batch": 1}, "frugal": {"gradient_checkpointing": True},
    }  # fmt: skip
    whole, *others = (
        learned(open_base(str(tiny_folder), device="cuda"), tmp_path / name, **settings)
        for name, settings in ways.items()
    )
    assert all(apart(whole, other) < 1e-3 for other in others)


def test_samples_are_those_of_the_cpu(tiny_folder: Path) -> None:
    latents = []
    for device in ("cuda", "cpu"):
        base = open_base(str(tiny_folder), device=device)
        size = base.geometry.native
        with torch.no_grad():
            told, blank = (base.encode_text([text] * 2, [size] * 2, 1) for text in ("a girl", ""))
        latents.append(sample(base, told, blank, size, [1, 2], SamplerSettings(steps=5, guidance=4.0)).cpu())
    assert torch.allclose(*latents, atol=1e-3)


def test_what_does_not_fit_is_made_in_parts(tiny_folder: Path, tmp_path: Path) -> None:
    """Real want of memory: the second training may take only a part of what the first one took."""
    rows = {"items": things(4, bucket=LARGE), "prior": things(4, "prior", LARGE)}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before, whole = torch.cuda.memory_reserved(), learned(open_base(str(tiny_folder), device="cuda"), tmp_path, **rows)
    peak, there = torch.cuda.max_memory_reserved(), torch.cuda.get_device_properties(0).total_memory
    run = make_run(open_base(str(tiny_folder), device="cuda"), tmp_path / "parts", METHODS, steps=4, **rows)
    told: list[Event] = []
    run.means._listener = told.append
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((before + 0.7 * (peak - before)) / there)
    try:
        parts = load_file(train(run))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert [event for event in told if event.kind == "warning" and "out of memory with 4 rows" in event.data["text"]]
    assert apart(whole, parts) < 1e-3


@pytest.mark.parametrize("method", ["prior_preservation", "cached_prior"])
def test_the_whole_job(method: str, tiny_folder: Path, tmp_path: Path) -> None:
    """Prior set, trainings, comparison; then the same command again finds everything made."""
    plain_pictures(tmp_path / "pictures", [(16, 16)] * 3)
    text = PROJECT.replace("plain = false", "plain = true").replace("prior_preservation", method) + COMPARISON
    (tmp_path / "p.toml").write_text(text.format(model=tiny_folder))
    for _ in range(2):
        status, _, errors = call(
            "run", str(tmp_path / "p.toml"), "--out", str(tmp_path / "run"), "--set", "base.device=cuda"
        )
        assert status == 0, errors
    numbers = Comparison.load(tmp_path / "run" / "comparison.json").arms
    assert all(numbers[arm]["drift"].mean is not None for arm in ("plain", "held"))


def test_compiled(tiny_folder: Path, tmp_path: Path) -> None:
    heard: list[Event] = []
    run = make_run(open_base(str(tiny_folder), device="cuda"), tmp_path / "fast", METHODS, steps=4, compile=True)
    run.means._listener = heard.append
    fast = load_file(train(run))
    assert not [event for event in heard if event.kind == "warning"]
    assert apart(learned(open_base(str(tiny_folder), device="cuda"), tmp_path / "plain"), fast) < 1e-3
