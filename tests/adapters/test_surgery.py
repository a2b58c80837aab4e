"""Resized, merged, put into a checkpoint and taken out of one: the differences are what they should be."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tenuto.adapters.checkpoints import extract, merge_into
from tenuto.adapters.files import LoraFile, read_lora, write_lora
from tenuto.adapters.info import describe
from tenuto.adapters.layers import Layer, Lora
from tenuto.adapters.onto import adapter_file, attach_file
from tenuto.adapters.surgery import (
    Cut,
    at_strength,
    fold_alpha,
    in_precision,
    merge,
    of_difference,
    relative_error,
    resize,
    shrink,
)
from tenuto.families.base import Base
from tenuto.families.checkpoints import open_base
from tenuto.words import TenutoError
from tests.adapters.made_up import rand, random_lora
from tests.adapters.test_adapter import ask, shaken
from tests.adapters.test_files import uneven

UNET = "unet/diffusion_pytorch_model.safetensors"


def one(lora: Lora, path: str = "a.safetensors", layer: str = "lora_unet.conv_in") -> LoraFile:
    return LoraFile(Path(path), {layer: lora.layer(torch.float32)}, {}, "sd", "kohya")


# -- another rank ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (20, 12, 3, 3)])
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_a_cut_is_the_best_of_its_rank_and_says_its_error(shape: tuple[int, ...], rank: int) -> None:
    lora = random_lora(shape, rank=8, alpha=3.0)
    values = torch.linalg.svdvals(lora.delta().flatten(1).double())
    for smaller, change in (shrink(lora, Cut(rank)), of_difference(lora.delta(), Cut(rank))):
        gap = float((smaller.delta() - lora.delta()).norm())
        assert (smaller.rank, smaller.scale, smaller.shape) == (rank, 1.0, shape)
        assert gap == pytest.approx(float(values[rank:].norm()), rel=1e-3, abs=1e-5)
        assert change.lost == pytest.approx(gap, rel=1e-3, abs=1e-5)
        assert change.norm == pytest.approx(lora.norm(), rel=1e-5)


@pytest.mark.parametrize("error", [0.2, 0.5, 0.9])
def test_an_error_bound_is_kept_with_the_smallest_rank(error: float) -> None:
    lora = random_lora((40, 50), rank=16)
    smaller, change = shrink(lora, Cut(error=error))
    assert float((smaller.delta() - lora.delta()).norm()) <= error * lora.norm() * 1.0001
    assert smaller.rank == 1 or relative_error([shrink(lora, Cut(smaller.rank - 1))[1]]) > error
    assert change.rank == smaller.rank < 16


def test_a_full_cut_changes_nothing_and_a_zero_stays_zero() -> None:
    lora = random_lora((10, 12), rank=4)
    torch.testing.assert_close(shrink(lora, Cut(4))[0].delta(), lora.delta())
    nothing = Lora(torch.zeros(4, 12), torch.zeros(10, 4), 4.0)
    smaller, change = shrink(nothing, Cut(error=0.1))
    assert (smaller.rank, change.norm, float(smaller.delta().norm())) == (1, 0.0, 0.0)


def test_loha_becomes_a_lora_of_the_asked_rank() -> None:
    tensors = {
        f"hada_w{i}_{end}": rand(*shape, seed=i) for i in (1, 2) for end, shape in (("a", (9, 2)), ("b", (2, 9)))
    }
    file = replace(one(random_lora((9, 9))), layers={"lora_unet.mid_block.attentions.0.proj_in": Layer(tensors)})
    smaller, changes = resize(file, Cut(4))
    assert smaller.kinds == {"LoRA": 1}
    assert relative_error(changes.values()) < 1e-5


# -- alpha ----------------------------------------------------------------------------------------------------------


def test_folding_alpha_keeps_the_difference() -> None:
    file = one(random_lora((8, 4, 3, 3), rank=4, alpha=1.0))
    folded = fold_alpha(file)
    assert torch.equal(folded.lora("lora_unet.conv_in").delta(), file.lora("lora_unet.conv_in").delta())
    assert set(folded.layers["lora_unet.conv_in"].tensors) == {"lora_down.weight", "lora_up.weight"}


def test_precision_is_rounded_or_refused() -> None:
    file = one(random_lora((8, 4, 3, 3)))
    half = in_precision(file, torch.float16).layers["lora_unet.conv_in"]
    assert all(torch.equal(half.tensors[n], t.half()) for n, t in file.layers["lora_unet.conv_in"].tensors.items())
    with pytest.raises(TenutoError, match="float16 cannot"):
        in_precision(one(Lora(torch.full((1, 2), 1e6), torch.ones(2, 1), 1.0)), torch.float16)


# -- a strength -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_strength_goes_into_b_and_nowhere_else(dtype: torch.dtype, tmp_path: Path) -> None:
    lora = replace(one(random_lora((8, 4, 3, 3), rank=4, alpha=3.0)), metadata={"ss_output_name": "x"})
    write_lora(in_precision(lora, dtype), tmp_path / "a.safetensors")
    write_lora(at_strength(read_lora(tmp_path / "a.safetensors"), 0.75), tmp_path / "b.safetensors")
    before, after = (load_file(tmp_path / f"{name}.safetensors") for name in "ab")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        wanted = (tensor.double() * 0.75).to(dtype) if name.endswith("lora_up.weight") else tensor
        assert after[name].dtype == dtype
        assert torch.equal(after[name], wanted), name
    old, new = (read_lora(tmp_path / f"{name}.safetensors").metadata for name in "ab")
    assert dict(new.items() - old.items()).keys() == {"sshs_model_hash", "tenuto_strength"}
    assert new["tenuto_strength"] == "0.75"


def test_a_strength_is_that_of_the_change_whatever_the_kind() -> None:
    pair = {f"hada_w{i}_{end}": rand(*shape, seed=i) for i in (1, 2) for end, shape in (("a", (9, 2)), ("b", (2, 9)))}
    small = {"lokr_w1": rand(3, 3, seed=1), "lokr_w2_a": rand(3, 2, seed=2), "lokr_w2_b": rand(2, 3, seed=3)}
    whole = {"lokr_w1": rand(3, 3, seed=1), "lokr_w2": rand(3, 3, seed=2), "alpha": torch.tensor(4.0)}
    core = {f"lora_{end}.weight": rand(*shape) for end, shape in (("down", (2, 9, 1, 1)), ("up", (9, 2, 1, 1)))}
    for tensors in (pair, small, whole, core | {"lora_mid.weight": rand(2, 2, 3, 3)}):
        layer = Layer.checked(tensors)
        file = replace(one(random_lora((9, 9))), layers={"lora_unet.x": layer})
        scaled = at_strength(file, 1.5).layers["lora_unet.x"]
        torch.testing.assert_close(scaled.lora().delta(), 1.5 * layer.lora().delta())
        assert sum(not torch.equal(scaled.tensors[name], own) for name, own in tensors.items()) == 1


def test_what_no_strength_can_be_worked_into_is_refused(tiny_base: Base, tmp_path: Path) -> None:
    with pytest.raises(TenutoError, match=r"of kind DoRA, .*set 0\.5 in the program that draws"):
        at_strength(adapter_file(uneven(tiny_base, dora=True), tmp_path), 0.5)
    turned = replace(one(random_lora((8, 8))), layers={"lora_unet.x": Layer({"oft_blocks": torch.zeros(2, 4, 4)})})
    with pytest.raises(TenutoError, match="of kind OFT"):
        at_strength(turned, 0.5)
    large = in_precision(one(Lora(torch.ones(1, 2), torch.full((2, 1), 6e4), 1.0)), torch.float16)
    with pytest.raises(TenutoError, match="too large for float16"):
        at_strength(large, 2)


# -- several in one -------------------------------------------------------------------------------------------------


def test_a_merge_is_the_weighted_sum(tiny_base: Base, tmp_path: Path) -> None:
    """Asked of the network: the sum of the two at their weights, with layers that only one of them has."""
    first = adapter_file(adapter := uneven(tiny_base), tmp_path)
    adapter.detach()
    second = adapter_file(adapter := shaken(tiny_base, parts=("attention",), rank=3, alpha=1.0), tmp_path)
    adapter.detach()
    whole = merge([first, second], [0.5, -2.0])
    for name in first.layers:
        wanted = 0.5 * first.lora(name).delta()
        if name in second.layers:
            wanted = wanted - 2.0 * second.lora(name).delta()
        torch.testing.assert_close(whole.lora(name).delta(), wanted, rtol=1e-5, atol=1e-6)
    write_lora(whole, tmp_path / "both.safetensors")
    attach_file(tiny_base, read_lora(tmp_path / "both.safetensors"), to_train=True)
    assert json.loads(read_lora(tmp_path / "both.safetensors").metadata["tenuto_merged_from"])[1]["weight"] == -2.0


def test_what_cannot_be_merged_is_refused(tiny_base: Base, tmp_path: Path) -> None:
    a, b = one(random_lora((8, 8))), one(random_lora((8, 9)), "b.safetensors")
    with pytest.raises(TenutoError, match=r"b\.safetensors.*\[8, 9\].*\[8, 8\]"):
        merge([a, b], [1, 1])
    with pytest.raises(TenutoError, match="sdxl"):
        merge([a, replace(b, layout="sdxl")], [1, 1])
    dora = adapter_file(uneven(tiny_base, dora=True), tmp_path)
    with pytest.raises(TenutoError, match="DoRA"):
        merge([dora], [1])


# -- checkpoints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dora", [False, True])
def test_merged_into_a_checkpoint_it_answers_as_attached(
    dora: bool, tiny_base: Base, tiny_folder: Path, tmp_path: Path
) -> None:
    file = adapter_file(uneven(tiny_base, dora), tmp_path)
    answer = ask(tiny_base)
    (tmp_path / "old").mkdir()
    source = Path(shutil.copytree(tiny_folder, tmp_path / "source"))
    (source / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"of the source, not of the copy")
    assert merge_into([file], [1.0], source, tmp_path / "new") == len(file.layers)
    torch.testing.assert_close(ask(open_base(str(tmp_path / "new"), device="cpu")), answer, rtol=1e-4, atol=1e-5)
    assert not (tmp_path / "new" / "unet" / "diffusion_pytorch_model.fp16.safetensors").exists()
    assert (tmp_path / "new" / "vae").is_dir()


def test_a_failed_merge_leaves_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    wrong = one(random_lora((8, 5, 3, 3)))
    with pytest.raises(TenutoError, match=r"conv_in.*another base"):
        merge_into([wrong], [1.0], tiny_folder, tmp_path / "new")
    with pytest.raises(TenutoError, match="not in"):
        merge_into([one(random_lora((8, 5)), layer="lora_unet.up_blocks.9.x")], [1.0], tiny_folder, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def changed(folder: Path, target: Path, change: dict[str, Tensor]) -> Path:
    shutil.copytree(folder, target)
    tensors = load_file(target / UNET)
    save_file(
        tensors | {name: tensors[name] + delta for name, delta in change.items()}, target / UNET, {"format": "pt"}
    )
    return target


def test_a_lora_taken_out_is_the_one_that_was_put_in(tiny_base: Base, tiny_folder: Path, tmp_path: Path) -> None:
    adapter = uneven(tiny_base)
    file, answer = adapter_file(adapter, tmp_path), ask(tiny_base)
    adapter.detach()
    merge_into([file], [1.0], tiny_folder, tmp_path / "tuned")
    out, result = extract(tiny_folder, tmp_path / "tuned", Cut(4))
    assert set(out.layers) == set(file.layers)
    assert relative_error(result.changes.values()) < 1e-5
    assert result.left == {}
    write_lora(out, tmp_path / "out.safetensors")
    attach_file(tiny_base, read_lora(tmp_path / "out.safetensors"))
    torch.testing.assert_close(ask(tiny_base), answer, rtol=1e-4, atol=1e-5)
    assert read_lora(tmp_path / "out.safetensors").metadata["ss_base_model_version"] == "sd_v1"


def test_what_an_extraction_leaves_out_is_told(tiny_folder: Path, tmp_path: Path) -> None:
    change = {
        "conv_norm_out.weight": torch.full((8,), 3.0),
        "mid_block.resnets.0.conv1.weight": 4.0
        * torch.nn.functional.one_hot(torch.tensor(0), 16 * 16 * 9).float().reshape(16, 16, 3, 3)
        * 8**0.5,
    }
    tuned = changed(tiny_folder, tmp_path / "tuned", change)
    out, result = extract(tiny_folder, tuned, Cut(4))
    assert set(out.layers) == {"lora_unet.mid_block.resnets.0.conv1"}
    assert set(result.left) == {"unet.conv_norm_out.weight"}
    assert result.left_share == pytest.approx(0.6, abs=1e-4)
    with pytest.raises(TenutoError, match="do not differ"):
        extract(tiny_folder, tuned, Cut(4), parts=["attention"])


def test_checkpoints_of_two_architectures_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    tuned = Path(shutil.copytree(tiny_folder, tmp_path / "tuned"))
    tensors = load_file(tuned / UNET)
    save_file({**tensors, "conv_out.weight": torch.ones(4, 9, 3, 3)}, tuned / UNET)
    with pytest.raises(TenutoError, match=r"conv_out.*\[4, 9, 3, 3\]"):
        extract(tiny_folder, tuned, Cut(4))
    tensors.pop("conv_out.weight")
    save_file(tensors, tuned / UNET)
    with pytest.raises(TenutoError, match="not of one architecture"):
        extract(tiny_folder, tuned, Cut(4))
    with pytest.raises(TenutoError, match="no unet"):
        extract(tiny_folder, tmp_path, Cut(4))


# -- what a file holds ----------------------------------------------------------------------------------------------


def test_info_is_json_and_true(tiny_base: Base, tmp_path: Path) -> None:
    file = adapter_file(uneven(tiny_base), tmp_path)
    write_lora(replace(file, metadata={"ss_output_name": "größe"}), tmp_path / "a.safetensors")
    facts = json.loads(json.dumps(describe(read_lora(tmp_path / "a.safetensors")), allow_nan=False))
    assert facts["layers"] == len(file.layers)
    assert {(own["rank"], own["alpha"]) for own in facts["ranks"]} == {(4, 3.0), (2, 1.0)}
    assert facts["hash"] == facts["hash_in_header"]
    assert facts["hash_fits"]
    assert set(facts["parts"]) == {"attention", "feed_forward", "convolution", "text_encoder"}
    norm = sum(file.lora(name).norm() ** 2 for name in file.layers if name.startswith("lora_te")) ** 0.5
    assert facts["parts"]["text_encoder"]["norm"] == pytest.approx(norm)


def test_info_names_values_that_are_not_finite(tmp_path: Path) -> None:
    lora = random_lora((8, 4, 3, 3))
    lora.down[0, 0, 0, 0] = float("nan")
    write_lora(one(lora), tmp_path / "a.safetensors")
    facts = describe(read_lora(tmp_path / "a.safetensors"))
    assert facts["not_finite"] == ["lora_unet.conv_in"]
    json.dumps(facts, allow_nan=False)
