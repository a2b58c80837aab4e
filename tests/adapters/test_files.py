"""Files in every naming: what other programs made is read, what we make they load, and a round trip is bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from tenuto import pocket
from tenuto.adapters.adapter import Adapter
from tenuto.adapters.files import parse_lora, read_lora, write_lora
from tenuto.adapters.header import hashes
from tenuto.adapters.kinds import ALPHA, DOWN, UP
from tenuto.adapters.names import Naming, diffusers_name, kohya_name, to_ldm
from tenuto.adapters.onto import adapter_file, attach_file, fit, save_lora
from tenuto.adapters.tuners.base import Rank
from tenuto.adapters.tuners.catalogue import DORA, LORA
from tenuto.families.base import Base
from tenuto.families.checkpoints import open_base
from tenuto.words import TenutoError
from tests.adapters.made_up import adapted, random_lora, small_xl_unet
from tests.adapters.test_adapter import ALL, ask, shaken
from tests.tiny import tiny_sd2_folder


def uneven(base: Base, dora: bool = False, other: tuple[str, ...] = ("conv1", "conv2")) -> Adapter:
    """Every linear layer and convolution; `other` layers have another rank and alpha, as LoCon's 3x3 convolutions."""
    targets = [f"{p}.{n}" for part in ALL for p, names in base.adapter_targets(part).items() for n in names]
    ranks = {n: Rank(2, 1.0) if n.endswith(other) else Rank(4, 3.0) for n in targets}
    adapter = Adapter.attach_to(base, ranks, tuner=DORA if dora else LORA)
    torch.manual_seed(0)
    for parameter in adapter.parameters():
        parameter.data += torch.randn(parameter.shape) * 0.1
    return adapter


def pipeline(folder: Path) -> Any:
    return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, local_files_only=True)


def as_base(base: Base, pipe: Any) -> Base:
    """The pipeline's modules, asked as our base is."""
    base.denoiser, base.text_encoders["lora_te"] = pipe.unet, pipe.text_encoder
    return base


# -- what others load -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("naming", "other"),
    [("kohya", ("conv1", "conv2")), ("diffusers", ("conv1", "conv2")), ("diffusers", ("to_q", "fc1", "q_proj"))],
)
def test_diffusers_answers_as_we_do(
    naming: Naming, other: tuple[str, ...], tiny_base: Base, tiny_folder: Path, tmp_path: Path
) -> None:
    """Convolutions, text encoder, and two pairs of rank and alpha that differ.

    Not with kohya's names and another alpha on attention or text layers: there diffusers 0.42 takes the wrong alpha.
    """
    adapter = uneven(tiny_base, other=other)
    answer = ask(tiny_base)
    write_lora(adapter_file(adapter, tmp_path), tmp_path / "a.safetensors", naming)
    adapter.detach()
    plain, pipe = ask(tiny_base), pipeline(tiny_folder)
    pipe.load_lora_weights(tmp_path, weight_name="a.safetensors")
    moved = ask(as_base(tiny_base, pipe))
    torch.testing.assert_close(moved, answer, rtol=1e-4, atol=1e-5)
    assert (answer - plain).abs().max() > 100 * (moved - answer).abs().max()


def test_diffusers_answers_as_we_do_with_dora(tiny_base: Base, tiny_folder: Path, tmp_path: Path) -> None:
    """In its own naming; of kohya's it drops the magnitudes."""
    adapter = uneven(tiny_base, dora=True)
    answer = ask(tiny_base)
    write_lora(adapter_file(adapter, tmp_path), tmp_path / "a.safetensors", "diffusers")
    adapter.detach()
    pipe = pipeline(tiny_folder)
    pipe.load_lora_weights(tmp_path, weight_name="a.safetensors")
    torch.testing.assert_close(ask(as_base(tiny_base, pipe)), answer, rtol=1e-4, atol=1e-5)


class Modules:
    """As much of a base as `fit` asks for."""

    def __init__(self, **modules: nn.Module) -> None:
        self.own = modules


def told(unet: UNet2DConditionModel) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x, text = torch.randn(1, 4, 16, 16, generator=generator), torch.randn(1, 7, 16, generator=generator)
    added = {"text_embeds": torch.randn(1, 16, generator=generator), "time_ids": torch.ones(1, 6)}
    answer: Tensor = unet(x, torch.tensor([500]), text, added_cond_kwargs=added).sample
    return answer.detach()


def test_diffusers_loads_sdxl_in_kohyas_ldm_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    unet = small_xl_unet()
    loras = {n: random_lora(shape).layer(torch.float32) for n, shape in adapted("lora_unet", unet).items()}
    loras = {n: l for n, l in loras.items() if "_embedding" not in n and n.partition(".")[2] not in ("conv_in",)}  # noqa: E741
    file = parse_lora(
        tmp_path,
        {f"{kohya_name(n, 'sdxl')}.{f}": t for n, own in loras.items() for f, t in own.tensors.items()},
        {},
    )
    assert (file.layout, set(file.layers)) == ("sdxl", set(loras))
    path = tmp_path / "xl.safetensors"
    assert write_lora(file, path) == []
    merged = small_xl_unet()
    merged.load_state_dict(unet.state_dict())
    with torch.no_grad():
        for name, lora in fit(file, {"lora_unet": merged, "lora_te1": nn.Module()}).items():
            layer: Any = merged.get_submodule(name.partition(".")[2])
            layer.weight += lora.lora().delta()
    state, alphas = StableDiffusionXLPipeline.lora_state_dict(load_file(path), unet_config=unet.config)
    StableDiffusionXLPipeline.load_lora_into_unet(state, network_alphas=alphas, unet=unet)
    torch.testing.assert_close(told(unet), told(merged), rtol=1e-4, atol=1e-5)


# -- what others made -----------------------------------------------------------------------------------------------


def spelt(adapter: Adapter, tmp_path: Path, spell: Callable[[str, str], str | None]) -> dict[str, Tensor]:
    file = adapter_file(adapter, tmp_path)
    named = {(n, f): t for n, layer in file.layers.items() for f, t in layer.tensors.items()}
    return {key: tensor for (n, f), tensor in named.items() if (key := spell(n, f)) is not None}


def old_diffusers(name: str, field: str) -> str | None:
    path, side = diffusers_name(name), {DOWN: "down", UP: "up"}.get(field)
    if side is None:
        return None
    head, _, last = path.rpartition(".")
    if path.startswith("unet") and ".to_" in path:
        head, last = (head.rpartition(".")[0], "to_out") if last == "0" else (head, last)
        return f"{head}.processor.{last}_lora.{side}.weight"
    if head.endswith("self_attn"):
        return f"{head}.to_{last.removesuffix('_proj')}_lora.{side}.weight"
    return f"{path}.{'lora_linear_layer' if path.startswith('text') else 'lora'}.{side}.weight"


SPELLINGS: dict[str, Callable[[str, str], str | None]] = {
    "old diffusers": old_diffusers,
    "D8: LDM blocks and lora_te1 for SD 1.x": lambda n, f: (
        f"{kohya_name(n, 'sdxl').replace('lora_te_', 'lora_te1_')}.{f}"
    ),
    "peft's spelling in kohya's names": lambda n, f: (
        f"{kohya_name(n)}.{ {DOWN: 'lora_A.weight', UP: 'lora_B.weight'}.get(f, f) }"
    ),
    "with an adapter's name": lambda n, f: (
        f"{diffusers_name(n)}.{ {DOWN: 'lora_A.default.weight', UP: 'lora_B.default.weight'}.get(f, f) }"
    ),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_foreign_spellings_are_read(name: str, tiny_base: Base, tmp_path: Path) -> None:
    adapter = shaken(tiny_base, rank=4)
    answer = ask(tiny_base)
    tensors = spelt(adapter, tmp_path, SPELLINGS[name])
    adapter.detach()
    assert len(tensors) >= 2 * len(adapter_file(shaken(tiny_base), tmp_path).layers)
    tiny_base = reopened(tiny_base)
    save_file(tensors, tmp_path / "a.safetensors")
    attach_file(tiny_base, read_lora(tmp_path / "a.safetensors"))
    assert torch.equal(ask(tiny_base), answer)


def reopened(base: Base) -> Base:
    from tenuto.families.checkpoints import open_base

    return open_base(base.name, device="cpu")


def test_unet_only_without_a_component(tiny_base: Base, tmp_path: Path) -> None:
    adapter = shaken(tiny_base, parts=("attention",))
    answer = ask(tiny_base)
    tensors = spelt(adapter, tmp_path, lambda n, f: f"diffusion_model.{to_ldm(n.partition('.')[2])}.{f}")
    adapter.detach()
    attach_file(tiny_base, parse_lora(tmp_path, tensors, {}))
    assert torch.equal(ask(tiny_base), answer)


def test_raw_peft_reads_alpha_from_the_file_beside(tiny_base: Base, tmp_path: Path) -> None:
    tensors = {
        "base_model.model.mid_block.attentions.0.proj_in.lora_A.weight": torch.ones(4, 16, 1, 1),
        "base_model.model.mid_block.attentions.0.proj_in.lora_B.weight": torch.ones(16, 4, 1, 1),
    }
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 16, "use_rslora": True}))
    file = read_lora(tmp_path / "adapter_model.safetensors")
    assert file.lora("lora_unet.mid_block.attentions.0.proj_in").scale == 8


def test_a_mixture_of_kinds_is_compared_but_not_trained_on(tiny_base: Base, tmp_path: Path) -> None:
    name = next(n for n in adapted("lora_unet", tiny_base.denoiser) if n.endswith("attn1.to_q"))
    parts = {"hada_w1_a": (8, 2), "hada_w1_b": (2, 8), "hada_w2_a": (8, 2), "hada_w2_b": (2, 8)}
    tensors = {f"{kohya_name(name)}.{field}": torch.randn(shape) for field, shape in parts.items()}
    plain = random_lora((8, 8)).layer(torch.float32).tensors
    tensors |= {f"{kohya_name(name.replace('to_q', 'to_k'))}.{field}": value for field, value in plain.items()}
    file = parse_lora(tmp_path / "both.safetensors", tensors, {})
    assert file.kinds == {"LoHa": 1, "LoRA": 1}
    before = ask(tiny_base)
    with pytest.raises(TenutoError, match=r"LoHa.*tenuto lora resize"):
        attach_file(tiny_base, file, to_train=True)
    adapter = attach_file(tiny_base, file)
    assert not torch.equal(ask(tiny_base), before)
    adapter.detach()
    assert torch.equal(ask(tiny_base), before)


# -- there and back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_kohya_to_diffusers_and_back_is_bit_for_bit(
    dora: bool, dtype: torch.dtype, tiny_base: Base, tmp_path: Path
) -> None:
    first, there, back = (tmp_path / f"{n}.safetensors" for n in ("first", "there", "back"))
    save_lora(uneven(tiny_base, dora), first, {"tenuto_seed": "3"}, dtype)
    assert write_lora(read_lora(first), there, "diffusers") == []
    assert write_lora(read_lora(there), back) == []
    assert read_lora(there).naming == "diffusers"
    one, two = load_file(first), load_file(back)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[n], two[n]) and one[n].dtype == two[n].dtype for n in one)
    assert read_lora(back).metadata == {**read_lora(first).metadata, "format": "pt"}


def test_the_same_content_is_the_same_file(tiny_base: Base, tmp_path: Path) -> None:
    adapter = uneven(tiny_base)
    for name in "ab":
        save_lora(adapter, tmp_path / name, {f"tenuto_{i}": str(i) for i in range(20)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_diffusers_cannot_carry_is_named(tmp_path: Path) -> None:
    plain = "lora_unet_mid_block_attentions_0_proj_in"
    tensors = {f"{plain}.{f}": t for f, t in random_lora((8, 8)).layer(torch.float32).tensors.items()}
    core = "lora_unet_mid_block_resnets_0_conv1"
    tensors |= {
        f"{core}.{f}": torch.ones(2, 2, *k) for f, k in ((DOWN, (1, 1)), (UP, (1, 1)), ("lora_mid.weight", (3, 3)))
    }
    other = "lora_unet_mid_block_resnets_1_conv1"
    tensors |= {f"{other}.lokr_w{i}": torch.ones(2, 2) for i in (1, 2)}
    tensors["lora_unet_mid_block_resnets_1_norm1.w_norm"] = torch.ones(8)
    notes = write_lora(parse_lora(tmp_path, tensors, {}), tmp_path / "a.safetensors", "diffusers")
    assert [note.split(" ", 1)[1][:9] for note in notes] == ["tensors o", "LoKr laye", "layers wi"]
    assert len(load_file(tmp_path / "a.safetensors")) == 4


# -- the header -----------------------------------------------------------------------------------------------------


def test_the_header_says_what_web_uis_show(tiny_base: Base, tmp_path: Path) -> None:
    save_lora(uneven(tiny_base), tmp_path / "a.safetensors", {})
    header = read_lora(tmp_path / "a.safetensors").metadata
    assert (header["ss_network_dim"], header["ss_network_alpha"]) == ("4", "3.0")
    assert json.loads(header["ss_network_args"])["conv_dim"] in ("2", "4")
    assert header["ss_network_module"] == "networks.lora"
    assert header["ss_base_model_version"] == "sd_v1"
    assert header["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert header["modelspec.prediction_type"] == "epsilon"


def test_v_prediction_is_said(tiny_v_base: Base, tmp_path: Path) -> None:
    save_lora(shaken(tiny_v_base), tmp_path / "a.safetensors", {})
    assert read_lora(tmp_path / "a.safetensors").metadata["modelspec.prediction_type"] == "v"


def test_sd2_is_said(tmp_path: Path) -> None:
    base = open_base(str(tiny_sd2_folder(tmp_path / "sd2", width=1024, prediction="v_prediction")), device="cpu")
    ranks = {f"lora_unet.{name}": Rank(1, 1.0) for name in base.adapter_targets("attention")["lora_unet"]}
    save_lora(Adapter.attach_to(base, ranks, tuner=LORA), tmp_path / "a.safetensors", {})
    header = read_lora(tmp_path / "a.safetensors").metadata
    told = ("ss_v2", "ss_base_model_version", "modelspec.architecture")
    assert [header[name] for name in told] == ["True", "sd_v2_v", "stable-diffusion-v2-768-v/lora"]


@pytest.mark.parametrize("size", [10, 400_000])
def test_hashes_are_those_of_the_library_written_file(size: int) -> None:
    """As the web UI's extension takes them: of the bytes after the header, and of 64 KiB at 1 MiB."""
    from hashlib import sha256

    tensors = {"b": torch.arange(float(size)), "a.weight": torch.ones(3, dtype=torch.float16)}
    metadata = {"ss_output_name": "größe", "ss_network_dim": "4", "tenuto_seed": "3"}
    own = hashes(tensors, metadata)
    whole = save(tensors, metadata={k: v for k, v in metadata.items() if k.startswith("ss_")})
    length = int.from_bytes(whole[:8], "little")
    assert own["sshs_model_hash"] == sha256(whole[8 + length :]).hexdigest()
    assert own["sshs_legacy_hash"] == sha256(whole[0x100000:0x110000]).hexdigest()[:8]


# -- what cannot be read --------------------------------------------------------------------------------------------

BAD_BYTES = {
    "web page": (b"<!DOCTYPE html><html>", "web page"),
    "pickle": (b"PK\x03\x04rest of a zip", "pickle"),
    "old pickle": (b"\x80\x02}q\x00.", "pickle"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS"),
    "empty": (b"", "not a readable"),
    "garbage": (b"garbage" * 20, "not a readable"),
    "cut header": (b"\x00\x04\0\0\0\0\0\0{", "cut off"),
}


@pytest.mark.parametrize("name", BAD_BYTES)
def test_damaged_files_say_what_they_are(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    content, told = BAD_BYTES[name]
    path.write_bytes(content)
    with pytest.raises(TenutoError, match=rf"bad\.safetensors: .*{told}") as error:
        read_lora(path)
    assert "\n" not in str(error.value)


def test_a_cut_file_says_how_much_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(save({"lora_unet_conv_in.lora_down.weight": torch.ones(100)})[:-40])
    with pytest.raises(TenutoError, match=r"cut off \(\d+ of \d+ bytes\)"):
        read_lora(path)


OTHER: Mapping[str, tuple[str, str]] = {
    "checkpoint": ("model.diffusion_model.input_blocks.0.0.weight", "whole checkpoint"),
    "embedding": ("emb_params", "textual inversion"),
    "flux": ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "another family"),
    "sd3": ("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", "another family"),
    "oft": ("lora_unet_mid_block_attentions_0_proj_in.oft_diag", "OFT"),
    "nothing": ("weight", "not a LoRA"),
}


@pytest.mark.parametrize("name", OTHER)
def test_other_files_say_what_they_are(name: str, tmp_path: Path) -> None:
    key, said = OTHER[name]
    with pytest.raises(TenutoError, match=said):
        parse_lora(tmp_path, {key: torch.ones(2, 2)}, {})


def test_another_bases_shapes_are_refused_by_name(tiny_base: Base, tmp_path: Path) -> None:
    name = next(n for n in adapted("lora_unet", tiny_base.denoiser) if n.endswith("attn2.to_k"))
    tensors = {f"{kohya_name(name)}.{f}": t for f, t in random_lora((8, 768)).layer(torch.float32).tensors.items()}
    with pytest.raises(TenutoError, match=r"attn2\.to_k.*768.*another base"):
        attach_file(tiny_base, parse_lora(tmp_path, tensors, {}))


def test_layers_that_the_model_has_not_are_named(tiny_base: Base, tmp_path: Path) -> None:
    tensors = {
        f"lora_unet_up_blocks_3_resnets_0_conv1.{f}": t
        for f, t in random_lora((8, 8)).layer(torch.float32).tensors.items()
    }
    before = ask(tiny_base)
    with pytest.raises(TenutoError, match=r"1 of its 1 layers are not in the model.*up_blocks\.3"):
        attach_file(tiny_base, parse_lora(tmp_path, tensors, {}))
    assert torch.equal(ask(tiny_base), before)


def test_alpha_is_kept_with_its_tensor(tmp_path: Path) -> None:
    tensors = {
        "lora_unet_conv_in.lora_down.weight": torch.ones(4, 4, 3, 3),
        "lora_unet_conv_in.lora_up.weight": torch.ones(8, 4, 1, 1),
    }
    assert parse_lora(tmp_path, tensors, {}).lora("lora_unet.conv_in").scale == 1
    tensors["lora_unet_conv_in.alpha"] = torch.tensor([2.0])
    file = parse_lora(tmp_path, tensors, {})
    assert file.lora("lora_unet.conv_in").scale == 0.5
    assert file.layers["lora_unet.conv_in"].tensors[ALPHA].shape == (1,)


def test_whose_layer_names_it_has_may_stand_in_the_header(tmp_path: Path) -> None:
    """Pocket's U-Net has attention where SDXL's has: without a word of the header its layers would be renamed."""
    ours = Path(pocket.__file__).parent / "loras" / "second-character.safetensors"
    read = read_lora(ours)
    assert read.layout == "sd"
    write_lora(read, tmp_path / "again.safetensors", read.naming)
    before, after = load_file(ours), load_file(tmp_path / "again.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    silent = parse_lora(ours, before, {})
    assert silent.layout == "sdxl", "so it looks"
