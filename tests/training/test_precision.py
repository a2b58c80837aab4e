"""Half precision: scaled losses, updates that run over, gradients that are no numbers; what LoRA files hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.families.base import Base, Conditioning
from tenuto.families.checkpoints import open_base
from tenuto.training.loop import NotFinite, Run, train
from tenuto.training.state import load_state
from tenuto.words import Stopped
from tests.steps import equal, make_run


@pytest.fixture
def half_base(tiny_folder: Path) -> Base:
    return open_base(str(tiny_folder), device="cpu", dtype=torch.float16)


def gradients(run: Run) -> list[Tensor]:
    for parameter in run.adapter.parameters():
        parameter.data.add_(0.01)
    run.learn(next(run.remaining()))
    run.scaler.unscale_(run.optimizer)
    found = [parameter.grad.clone() for parameter in run.adapter.parameters() if parameter.grad is not None]
    run.adapter.detach()
    return found


def test_scaled_gradients_are_those_of_float32(tiny_base: Base, half_base: Base, tmp_path: Path) -> None:
    own = gradients(make_run(half_base, tmp_path / "half", precision="fp16"))
    exact = gradients(make_run(tiny_base, tmp_path / "full"))
    apart, whole = (sum(float(v.square().sum()) for v in values) ** 0.5 for values in ([a - b for a, b in zip(own, exact, strict=True)], exact))  # fmt: skip  # noqa: E501
    assert 0 < apart < 0.01 * whole


def test_an_update_that_runs_over_is_left_out_and_logged(half_base: Base, tmp_path: Path) -> None:
    run = make_run(half_base, tmp_path, steps=2, precision="fp16", save_every=1)
    run.scaler._init_scale = 2.0**40
    start = run.adapter.state()
    train(run)
    log = run.journal.read()
    assert log[0]["overflow"] == 1.0
    assert [entry["loss_scale"] for entry in log] == [2.0**40, 2.0**39]
    assert equal(load_state(tmp_path / "states" / "000001.safetensors").adapter, start)


def test_it_trains_and_goes_on_bit_for_bit(half_base: Base, tmp_path: Path) -> None:
    run = make_run(half_base, tmp_path / "whole", steps=6, precision="fp16", save_every=3)
    whole = load_file(train(run))
    assert [entry["overflow"] for entry in run.journal.read()] == [0.0] * 6
    run.adapter.detach()
    cut = make_run(half_base, tmp_path / "cut", steps=6, precision="fp16", save_every=3)
    cut.stop = lambda: cut.done == 3
    with pytest.raises(Stopped):
        train(cut)
    cut.adapter.detach()
    again = make_run(half_base, tmp_path / "cut", steps=6, precision="fp16", save_every=3)
    assert equal(load_file(train(again)), whole)
    assert again.scaler.state_dict() == run.scaler.state_dict()


def test_gradients_that_are_no_numbers_stop_the_run_and_name_the_rows(tiny_base: Base, tmp_path: Path) -> None:
    run = make_run(tiny_base, tmp_path, steps=3, save_every=1)
    inner = run.learn

    def broken(rows):  # type: ignore[no-untyped-def]
        terms = inner(rows)
        if run.done == 2:
            run.adapter.parameters()[0].grad.fill_(float("inf"))  # type: ignore[union-attr]
        return terms

    run.learn = broken  # type: ignore[method-assign]
    with pytest.raises(NotFinite, match=r"update 3: not finite \(gradient_norm = (inf|nan)\) on rows: instance"):
        train(run)
    newest = sorted((tmp_path / "states").glob("*"))[-1]
    assert load_state(newest).update == 2
    assert all(value.isfinite().all() for value in run.adapter.state().values()), "nothing was applied"


def test_gradients_that_run_over_at_every_scale_are_an_error(half_base: Base, tmp_path: Path) -> None:
    run = make_run(half_base, tmp_path, precision="fp16", save_every=1)
    run.scaler._init_scale = 4.0
    inner = run.learn

    def broken(rows):  # type: ignore[no-untyped-def]
        terms = inner(rows)
        run.adapter.parameters()[0].grad.fill_(float("nan"))  # type: ignore[union-attr]
        return terms

    run.learn = broken  # type: ignore[method-assign]
    with pytest.raises(NotFinite, match="update 3: not finite"):
        train(run)
    assert [entry["loss_scale"] for entry in run.journal.read()] == [4.0, 2.0]


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("fp16", torch.float16)])
def test_lora_files_are_as_precise_as_asked(
    precision: str, dtype: torch.dtype, tiny_base: Base, tmp_path: Path
) -> None:
    run = make_run(tiny_base, tmp_path, steps=2, save_precision=precision)
    file = load_file(train(run))
    assert {value.dtype for name, value in file.items() if not name.endswith("alpha")} == {dtype}
    saved = load_state(sorted((tmp_path / "states").glob("*"))[-1]).adapter
    assert all(value.dtype == torch.float32 for value in saved.values())
    assert equal(saved, run.adapter.state())


@pytest.mark.parametrize("name", ["tiny_base", "tiny_xl_base"])
def test_attention_is_torchs_own(name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    base: Base = request.getfixturevalue(name)
    calls = []
    inner = torch.nn.functional.scaled_dot_product_attention

    def heard(*given, **more):  # type: ignore[no-untyped-def]
        calls.append(1)
        return inner(*given, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", heard)
    cond = base.encode_text(["a"], [base.geometry.native])
    layers = sum(len(names) for names in base.adapter_targets("text_encoder").values()) // 6
    assert len(calls) == layers, "every layer of the text encoders"
    calls.clear()
    base.predict(torch.zeros(1, 4, 8, 8), torch.tensor([5]), cond)
    queries = [own for own in base.adapter_targets("attention")["lora_unet"] if own.endswith("to_q")]
    assert len(calls) == len(queries) > 0, "every attention of the denoiser"


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_lora_is_float32_whatever_the_base_is(dtype: torch.dtype, dora: bool, tiny_folder: Path) -> None:
    """A step of 1e-6 on a weight of 0.1 is lost in half precision."""
    base = open_base(str(tiny_folder), device="cpu", dtype=dtype)
    adapter = Adapter.attach(base, AdapterSettings(rank=2, dora=dora, parts=("attention", "convolution")))
    assert {parameter.dtype for parameter in adapter.parameters()} == {torch.float32}
    cond = base.encode_text(["a"], [base.geometry.native])
    given = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([5, 400])
    answer = base.predict(*given, Conditioning.join([cond, cond]))
    assert answer.dtype == dtype
    answer.float().square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in adapter.parameters())
    before = adapter.state()
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.fill_(0.1).add_(1e-6)
    after = adapter.state()
    assert before.keys() == after.keys()
    assert all(bool((value != 0.1).all()) for value in after.values())
    adapter.detach()
