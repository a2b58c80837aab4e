"""Files that are no base: one line each that names the file, what it is, and the remedy; whatever the bytes."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tenuto.families.checkpoints import find_base, open_base
from tenuto.families.header import read_header
from tenuto.families.layouts import LAYOUTS
from tenuto.families.recognise import STEM, UNET, recognise
from tenuto.words import TenutoError
from tests.single_files import VAE, ldm_tensors, tiny_layout, write_single_file
from tests.tiny import tiny_sd_folder

Tensors = dict[str, Tensor]
ONE = torch.ones(1)
TEXT = "cond_stage_model.transformer.text_model."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sd_folder(tmp_path_factory.mktemp("sd") / "folder")


@pytest.fixture(scope="module")
def tensors(folder: Path) -> Tensors:
    return ldm_tensors(folder, "sd1")


@pytest.fixture(autouse=True)
def _tiny(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYOUTS, "tiny", tiny_layout(folder, "sd1"))


def refused(path: Path, message: str) -> None:
    with pytest.raises(TenutoError, match=message) as caught:
        open_base(str(path), device="cpu")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02}q\x00.")


def table(**entries: object) -> bytes:
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: p.write_bytes(b""), "only 0 bytes"),
        (lambda p: p.write_bytes(b"\x05\0\0"), "only 3 bytes"),
        (zipped, r"a pickle \(PyTorch zip\).*tenuto convert"),
        (lambda p: p.write_bytes(b"\x80\x02}q\x00X\x0a\x00\x00\x00state_dict"), "a pickle with another name"),
        (lambda p: p.write_text("<!DOCTYPE html><html><body>404</body></html>"), "a web page, not a model"),
        (lambda p: p.write_text("\n\n  <html lang=en>please log in</html>"), "a web page, not a model"),
        (lambda p: p.write_text('{"error": "Access to model is restricted"}'), "JSON text"),
        (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0"), "Git LFS pointer"),
        (lambda p: p.write_bytes(b"GGUF" + b"\0" * 60), "a GGUF file"),
        (lambda p: p.write_bytes(b"\xff" * 99), "its header would be"),
        (lambda p: p.write_bytes(table()[:-1] + b"x"), "not a whole safetensors"),
        (lambda p: p.write_bytes(struct.pack("<Q", 40_000) + b"[" * 40_000), "not a whole safetensors"),
        (lambda p: p.write_bytes(table(a=3)), "not a whole safetensors"),
        (lambda p: p.write_bytes(table(a={"dtype": "F32", "shape": [1], "data_offsets": [0]})), "not a whole"),
        (lambda p: p.write_bytes(table(a={"dtype": "F32", "shape": [2], "data_offsets": [0, 8]})), "the download was"),
        (lambda p: p.write_bytes(table(a={"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}) + b"\0" * 8), "whole"),
        (lambda p: p.write_bytes(table()), "not a Stable Diffusion checkpoint"),
    ],
)
def test_what_is_no_safetensors(write: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write(path)
    refused(path, message)


def stem(channels: int, width: int = 8) -> Tensors:
    return {STEM: torch.ones(width, channels, 3, 3)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": ONE}, r"a LoRA.*training\.start_from"),
        ({"unet.mid_block.attentions.0.proj_in.lora_A.weight": ONE}, "a LoRA"),
        ({"lycoris_mid.hada_w1_a": ONE}, "a LoRA"),
        ({"double_blocks.0.img_attn.qkv.weight": ONE}, "a Flux-like model"),
        ({UNET + "joint_blocks.0.x": ONE}, "Stable Diffusion 3"),
        ({"clf.1.weight": ONE}, "Stable Cascade"),
        ({"control_model.zero_convs.0.0.weight": ONE}, "a ControlNet"),
        ({"emb_params": ONE}, "an embedding"),
        ({"clip_l": ONE, "clip_g": torch.ones(2)}, "an embedding"),
        ({"encoder.down.0.block.0.conv1.weight": ONE}, r"an autoencoder alone.*base\.vae"),
        ({VAE + "decoder.up.0.block.0.conv1.weight": ONE}, "an autoencoder alone"),
        ({"down_blocks.0.resnets.0.conv1.weight": ONE}, "one part of a diffusers folder"),
        ({"input_blocks.0.0.weight": ONE}, "a U-Net alone"),
        ({"diffusion_model.input_blocks.0.0.weight": ONE}, "a U-Net alone"),
        (stem(9), "an inpainting checkpoint.*9 channels"),
        (stem(8), "an instruct-pix2pix checkpoint"),
        (stem(7), "an upscaling checkpoint"),
        (stem(5), "a depth checkpoint"),
        (stem(6), "not a text-to-image checkpoint"),
        (stem(4, 384), "the SDXL refiner"),
        (stem(4) | {"edm_vpred.sigma_max": ONE}, "EDM noise"),
        (stem(4), "is none of"),
        (stem(4, 320) | {UNET + "label_emb.0.0.weight": ONE}, "unCLIP"),
        ({STEM: ONE}, "not a Stable Diffusion checkpoint"),
        ({"weight": ONE}, "not a Stable Diffusion checkpoint"),
    ],
)
def test_what_is_another_thing(content: Tensors, message: str, tmp_path: Path) -> None:
    refused(write_single_file(tmp_path / "model.safetensors", content), message)


@pytest.mark.parametrize(
    ("key", "part"),
    [
        (UNET + "time_embed.0.bias", "U-Net"),
        (VAE + "quant_conv.weight", "autoencoder"),
        (TEXT + "final_layer_norm.weight", "text encoder"),
    ],
)
def test_keys_and_shapes(key: str, part: str, tensors: Tensors, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    less = {name: value for name, value in tensors.items() if name != key}
    refused(write_single_file(path, less), f"1 of \\d+ weights of its {part} are missing, first {key}")
    other = tensors | {key: torch.ones(3, 5)}
    refused(write_single_file(path, other), f"weights of its {part} have another shape .*{key} .3, 5.")
    whole = tensors | {key: tensors[key].to(torch.int32)}
    refused(write_single_file(path, whole), f"weights of its {part} are I32, first {key}.*fp16")


def test_a_u_net_with_more_than_its_architecture(tensors: Tensors, tmp_path: Path) -> None:
    more = tensors | {UNET + "input_blocks.9.0.op.weight": ONE}
    refused(write_single_file(tmp_path / "a.safetensors", more), r"1 weights that the architecture lacks.*blocks\.9")


def test_a_u_net_without_text_encoder(tensors: Tensors, tmp_path: Path) -> None:
    less = {name: value for name, value in tensors.items() if not name.startswith(TEXT)}
    refused(write_single_file(tmp_path / "a.safetensors", less), "weights of its text encoder are missing.*full checkp")


def test_a_truncated_download_says_how_much_is_there(tensors: Tensors, tmp_path: Path) -> None:
    path = write_single_file(tmp_path / "model.safetensors", tensors)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2])
    refused(path, f"{size // 2:,} of {size:,} bytes are there")
    path.write_bytes(path.read_bytes()[:1000])
    refused(path, "its header would be")


def test_files_with_other_endings(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"x")
    with pytest.raises(TenutoError, match=r"model\.gguf: not a checkpoint; give a \.safetensors"):
        find_base(str(tmp_path / "model.gguf"))
    with pytest.raises(TenutoError, match="no such checkpoint"):
        find_base("models/missing.safetensors")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_quantised_folder(part: str, tmp_path: Path) -> None:
    config = tiny_sd_folder(tmp_path / "sd") / part / "config.json"
    told = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    config.write_text(json.dumps({**json.loads(config.read_text()), "quantization_config": told}))
    with pytest.raises(TenutoError, match=f"{part}: quantised, .* give the checkpoint") as error:
        open_base(str(tmp_path / "sd"), device="cpu")
    assert "\n" not in str(error.value)


def test_a_damaged_or_wrong_autoencoder_is_named(folder: Path, tensors: Tensors, tmp_path: Path) -> None:
    (tmp_path / "vae.safetensors").write_text("<html>")
    with pytest.raises(TenutoError, match=r"vae\.safetensors: a web page"):
        open_base(str(folder), device="cpu", vae=str(tmp_path / "vae.safetensors"))
    with pytest.raises(TenutoError, match="no such folder"):
        open_base(str(folder), device="cpu", vae=str(tmp_path / "missing.safetensors"))


# -- any bytes at all -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tensors: Tensors, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_single_file(tmp_path_factory.mktemp("fuzz") / "whole.safetensors", tensors, {"format": "pt"})


fuzz = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=6), st.integers(0, 40)), max_size=4))
def test_mutated_headers(whole: Path, changes: list[tuple[float, bytes, int]]) -> None:
    """Bytes put in or taken out anywhere in the first part of a real file: a TenutoError or a layout."""
    data = bytearray(whole.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    for where, new, gone in changes:
        at = int(where * header)
        data[at : at + gone] = new
    mutated(whole, bytes(data))


@fuzz
@given(st.integers(0, 7), st.binary(min_size=1, max_size=8))
def test_mutated_lengths(whole: Path, at: int, new: bytes) -> None:
    data = bytearray(whole.read_bytes())
    data[at : at + len(new)] = new
    mutated(whole, bytes(data))


@fuzz
@given(st.binary(max_size=200))
def test_any_bytes(whole: Path, data: bytes) -> None:
    mutated(whole, data)
    mutated(whole, struct.pack("<Q", len(data)) + data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@fuzz
@given(
    st.dictionaries(
        st.sampled_from([STEM, UNET + "input_blocks.1.1.x.attn2.to_k.weight", "__metadata__", "v_pred", "a"]),
        json_values
        | st.fixed_dictionaries({
            "dtype": st.sampled_from(["F32", "F16", "I64", "F8_E4M3", "Q"]),
            "shape": st.lists(st.integers(-1, 9), max_size=4) | json_values,
            "data_offsets": st.lists(st.integers(-3, 99), max_size=3) | json_values,
        }),
        max_size=4,
    )
)  # fmt: skip
def test_made_up_headers(whole: Path, header: dict[str, object]) -> None:
    mutated(whole, table(**header) + b"\0" * 64)


def mutated(whole: Path, data: bytes) -> None:
    path = whole.with_name("mutated.safetensors")
    path.write_bytes(data)
    why = complaint(lambda: recognise(read_header(path)))
    assert "\n" not in why
    assert why.startswith(str(path)) or not why


def complaint(action: Callable[[], object]) -> str:
    try:
        action()
    except TenutoError as error:
        return str(error)
    return ""


@settings(fuzz, max_examples=15)
@given(st.floats(0, 1, exclude_max=True), st.sampled_from([b"F16", b"I32", b"[1]", b'"x"', b"0", b"\xff", b"model"]))
def test_mutated_files_as_a_whole(whole: Path, where: float, new: bytes) -> None:
    """All the way through open_base: a base or a TenutoError."""
    data = bytearray(whole.read_bytes())
    at = int(where * (8 + int.from_bytes(data[:8], "little")))
    data[at : at + len(new)] = new
    path = whole.with_name("opened.safetensors")
    path.write_bytes(bytes(data))
    assert "\n" not in complaint(lambda: open_base(str(path), device="cpu"))
