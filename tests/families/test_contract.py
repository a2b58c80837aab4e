"""What every family promises: each one gets these tests by its line in FAMILIES."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.adapters.files import read_lora
from tenuto.adapters.onto import attach_file, save_lora
from tenuto.families.base import CHUNK, Base, Conditioning, Part
from tenuto.families.sampling import SamplerSettings, sample
from tenuto.regularizers.prior_prediction import PriorPrediction
from tenuto.regularizers.prior_preservation import PriorPreservation
from tenuto.training.loop import train
from tenuto.words import Size
from tests.steps import WIDE, make_run, things

FAMILIES = ("tiny_base", "tiny_v_base", "tiny_xl_base", "tiny_xl_snr_base", "tiny_fp8_base")
PARTS: tuple[Part, ...] = ("attention", "feed_forward", "convolution", "text_encoder")
SQUARE = Size(16, 16)
PROMPTS = ["a", "another thing", ""]
SIZES = [SQUARE, Size(24, 12), Size(12, 24)]
T = torch.tensor([3, 500, 999])


@pytest.fixture(params=FAMILIES)
def base(request: pytest.FixtureRequest) -> Base:
    found: Base = request.getfixturevalue(request.param)
    return found


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def attached(base: Base, parts: tuple[Part, ...] = PARTS) -> Adapter:
    """With B moved off 0: A would get no gradient."""
    adapter = Adapter.attach(base, AdapterSettings(rank=2, parts=parts))
    with torch.no_grad():
        for number, parameter in enumerate(adapter.parameters()):
            parameter.add_(noise(*parameter.shape, seed=number) * 0.05)
    return adapter


def ask(base: Base) -> Tensor:
    with torch.no_grad():
        return base.predict(noise(3, 4, 8, 8), T, base.encode_text(PROMPTS, SIZES))


def everything(base: Base) -> list[Tensor]:
    """Of the parts that may rest."""
    cond, pixels = base.encode_text(PROMPTS, SIZES), noise(1, 3, 16, 16).clamp(-1, 1)
    return [cond.text, *(value for _, value in cond.extra), base.encode_image(pixels), base.decode(noise(1, 4, 8, 8))]


@torch.no_grad()
def test_what_rests_comes_back_as_it_was(base: Base) -> None:
    before, answer = everything(base), ask(base)
    weights = {name: value.clone() for part in base.modules().values() for name, value in part.named_parameters()}
    base.rest()
    assert all(map(torch.equal, everything(base), before))
    base.rest()
    assert torch.equal(ask(base), answer)
    base.rest()
    found = {name: value for part in base.modules().values() for name, value in part.named_parameters()}
    assert all(torch.equal(found[name], value) for name, value in weights.items())


@torch.no_grad()
def test_a_row_does_not_depend_on_its_neighbours(base: Base) -> None:
    x_t, cond = noise(3, 4, 8, 8), base.encode_text(PROMPTS, SIZES)
    together = base.predict(x_t, T, cond)
    for i, (prompt, size) in enumerate(zip(PROMPTS, SIZES, strict=True)):
        alone = base.encode_text([prompt], [size])
        torch.testing.assert_close(cond.text[i : i + 1], alone.text, atol=1e-5, rtol=1e-5)
        for (name, value), (same, own) in zip(cond.rows([i]).extra, alone.extra, strict=True):
            assert name == same
            torch.testing.assert_close(value, own, atol=1e-5, rtol=1e-5)
        answer = base.predict(x_t[i : i + 1], T[i : i + 1], alone)
        torch.testing.assert_close(together[i : i + 1], answer, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(base.predict(x_t[i : i + 1], T[i : i + 1], cond.rows([i])), answer)
    joined = Conditioning.join([base.encode_text([p], [s]) for p, s in zip(PROMPTS, SIZES, strict=True)])
    torch.testing.assert_close(base.predict(x_t, T, joined), together, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_long_prompts_take_several_passes(base: Base) -> None:
    long = "abcdefghi " * 20  # every letter is a token
    assert [base.chunks(text) for text in ("", "a" * CHUNK, "a" * (CHUNK + 1), long)] == [1, 1, 2, 3]
    both = base.encode_text(["a dog", long], [SQUARE] * 2)
    assert both.text.shape[:2] == (2, 3 * (CHUNK + 2))
    padded = base.encode_text(["a dog"], [SQUARE], 3)
    torch.testing.assert_close(both.rows([0]).text, padded.text, atol=1e-5, rtol=1e-5)
    assert torch.isfinite(base.predict(noise(2, 4, 8, 8), T[:2], both)).all()
    with pytest.raises(ValueError, match="3 passes"):
        base.encode_text([long], [SQUARE], 1)


@torch.no_grad()
def test_pictures_there_and_back(base: Base) -> None:
    pixels = noise(2, 3, 16, 24).clamp(-1, 1)
    latents = base.encode_image(pixels)
    assert latents.shape == (2, *base.geometry.latent(Size(24, 16)))
    assert torch.equal(latents, base.encode_image(pixels))
    decoded = base.decode(latents)
    assert decoded.shape == pixels.shape
    assert decoded.dtype == latents.dtype == torch.float32
    assert float(decoded.abs().max()) <= 1


def test_the_base_is_frozen(base: Base) -> None:
    for module in base.modules().values():
        assert not any(parameter.requires_grad for parameter in module.parameters())
        assert not module.training
    assert base.notes
    assert base.hash


def test_parts_are_disjoint(base: Base) -> None:
    names = {part: [f"{p}.{n}" for p, ns in base.adapter_targets(part).items() for n in ns] for part in PARTS}
    assert all(names.values())
    flat = [name for own in names.values() for name in own]
    assert len(flat) == len(set(flat))
    assert not [name for name in flat if "time" in name or "sampler" in name or "add_" in name]
    assert {name.partition(".")[0] for name in names["text_encoder"]} == set(base.text_encoders)


def test_an_adapter_comes_and_goes_without_a_trace(base: Base, tmp_path: Path) -> None:
    plain, targets = ask(base), base.adapter_targets("attention")
    before = {f"{p}.{n}": v.clone() for p, m in base.modules().items() for n, v in m.state_dict().items()}
    adapter = attached(base)
    assert base.adapter_targets("attention") == targets
    moved = ask(base)
    assert not torch.allclose(moved, plain)
    with adapter.disabled():
        assert torch.equal(ask(base), plain)
    save_lora(adapter, tmp_path / "a.safetensors", {})
    adapter.detach()
    assert torch.equal(ask(base), plain)
    after = {f"{p}.{n}": v for p, m in base.modules().items() for n, v in m.state_dict().items()}
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    file = read_lora(tmp_path / "a.safetensors")
    assert {name.partition(".")[0] for name in file.layers} == set(base.modules())
    assert not file.unknown
    again = attach_file(base, file)
    assert torch.equal(ask(base), moved)
    again.detach()


def gradients(base: Base, checkpointing: bool) -> dict[str, Tensor]:
    adapter = attached(base)
    base.checkpointing(checkpointing)
    answer = base.predict(noise(3, 4, 8, 8), T, base.encode_text(PROMPTS, SIZES))
    answer.square().mean().backward()
    names = [f"{name}.{factor}" for name in adapter.layers() for factor in "AB"]
    found = {name: own.grad for name, own in zip(names, adapter.parameters(), strict=True) if own.grad is not None}
    base.checkpointing(False)
    adapter.detach()
    return found


def test_checkpointing_changes_no_gradient(base: Base) -> None:
    recomputed: list[int] = []
    base.denoiser.get_submodule("mid_block.resnets.1").register_forward_pre_hook(lambda *_: recomputed.append(1))
    plain = gradients(base, False)
    assert len(recomputed) == 1
    checked = gradients(base, True)
    assert len(recomputed) == 3
    assert plain.keys() == checked.keys()
    assert {name.partition(".")[0] for name in plain} == set(base.modules())
    for name, value in plain.items():
        torch.testing.assert_close(checked[name], value)
    assert not any(module.training for module in base.denoiser.modules())


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_sampling(base: Base, guidance: float) -> None:
    settings = SamplerSettings(steps=4, guidance=guidance)
    with torch.no_grad():
        cond, uncond = (base.encode_text(texts, [WIDE] * 2) for texts in (["a", "b c"], ["", ""]))
    pair = sample(base, cond, uncond, WIDE, [1, 2], settings)
    assert torch.isfinite(pair).all()
    alone = sample(base, cond.rows([1]), uncond.rows([1]), WIDE, [2], settings)
    torch.testing.assert_close(pair[1:], alone, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("parts", [("attention",), PARTS])
def test_a_whole_small_training(base: Base, tmp_path: Path, parts: tuple[Part, ...]) -> None:
    """Two buckets, two methods, interrupted once: finite, moved, and the base is what it was."""
    plain = ask(base)
    methods = {"a": PriorPreservation(weight=0.5), "b": PriorPrediction(weight=1.0)}
    run = make_run(
        base, tmp_path, methods, items=[*things(3), *things(3, bucket=WIDE)], prior=things(4, "prior", WIDE),
        parts=parts, steps=4, save_every=2, gradient_checkpointing=True,
    )  # fmt: skip
    before = run.adapter.state()
    train(run)
    after = run.adapter.state()
    assert all(value.isfinite().all() for value in after.values())
    moved = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == (set(base.modules()) if len(parts) > 1 else {"lora_unet"})
    base.checkpointing(False)
    run.adapter.detach()
    (tmp_path / "states" / "000004.safetensors").unlink()
    again = make_run(
        base, tmp_path, methods, items=[*things(3), *things(3, bucket=WIDE)], prior=things(4, "prior", WIDE),
        parts=parts, steps=4, save_every=2, gradient_checkpointing=True,
    )  # fmt: skip
    train(again)
    assert all(torch.equal(again.adapter.state()[name], after[name]) for name in after)
    base.checkpointing(False)
    again.adapter.detach()
    assert torch.equal(ask(base), plain)
