"""Single-file checkpoints answer bit for bit as the folder they were made of; everything else is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tenuto.families.base import Base
from tenuto.families.checkpoints import open_base
from tenuto.families.layouts import LAYOUTS
from tenuto.families.recognise import UNET
from tenuto.families.survey import survey
from tenuto.words import Size, TenutoError
from tests.single_files import VAE, ldm_tensors, tiny_layout, write_single_file
from tests.tiny import tiny_sd_folder, tiny_sdxl_folder

SIZE = Size(16, 24)
FORMS = ("sd1", "sd2", "sdxl")


@pytest.fixture(scope="module", params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(form: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every weight shaken: norms of 1 and biases of 0 would hide mixed-up names."""
    place = tmp_path_factory.mktemp(form) / "folder"
    return shaken(tiny_sdxl_folder(place, seed=3) if form == "sdxl" else tiny_sd_folder(place, seed=3))


def shaken(folder: Path) -> Path:
    torch.manual_seed(9)
    for path in folder.glob("*/*.safetensors"):
        tensors = {name: value + torch.randn(value.shape) * 0.05 for name, value in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
    return folder


@pytest.fixture
def layout(form: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(LAYOUTS, "tiny", tiny_layout(folder, form))
    return form


@torch.no_grad()
def answers(base: Base, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Everything a base can be asked."""
    generator = torch.Generator().manual_seed(0)
    prompts = ["a dog!", "abcdefghi " * 20]
    cond = base.encode_text(prompts, [SIZE] * 2)
    x_t = torch.randn(2, *base.geometry.latent(SIZE), generator=generator)
    pixels = torch.rand(1, 3, SIZE.height, SIZE.width, generator=generator) * 2 - 1
    latents = base.encode_image(pixels)
    return [
        cond.text, *(value for _, value in cond.extra), base.predict(x_t, torch.tensor([5, 700]), cond), latents,
        base.decode(latents),
    ]  # fmt: skip


def same(a: Base, b: Base) -> bool:
    return all(torch.equal(x, y) for x, y in zip(answers(a), answers(b), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_answers_as_the_folder_does(layout: str, folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    file = write_single_file(tmp_path / "model.safetensors", ldm_tensors(folder, layout))
    one, other = open_base(str(file), device="cpu", dtype=dtype), open_base(str(folder), device="cpu", dtype=dtype)
    assert same(one, other)
    one.rest()
    assert same(one, other), "what was let go is read again"
    assert one.geometry == other.geometry == survey(str(file)) == survey(str(folder))
    assert (one.family, one.dtype) == (other.family, dtype)
    assert one.hash != other.hash
    for part in ("attention", "feed_forward", "convolution", "text_encoder"):
        assert one.adapter_targets(part) == other.adapter_targets(part)
    for module in one.modules().values():
        assert not module.training
        assert not any(parameter.requires_grad or parameter.is_meta for parameter in module.parameters())
        assert not any(buffer.is_meta for buffer in module.buffers())
    assert one.notes == (f"tiny {layout}, answers eps (from the family's rule)",)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files(layout: str, folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    half = {name: value.to(dtype) for name, value in ldm_tensors(folder, layout).items()}
    whole = {name: value.float() for name, value in half.items()}
    a = open_base(str(write_single_file(tmp_path / "a.safetensors", half)), device="cpu")
    b = open_base(str(write_single_file(tmp_path / "b.safetensors", whole)), device="cpu")
    assert same(a, b)
    assert all(p.dtype == torch.float32 for module in a.modules().values() for p in module.parameters())


def test_leftovers_of_training_are_passed_over(layout: str, folder: Path, tmp_path: Path) -> None:
    plain = ldm_tensors(folder, layout)
    more = dict(plain)
    for name in [name for name in plain if name.startswith(UNET)]:
        more["model_ema." + name.removeprefix("model.").replace(".", "")] = plain[name] + 1
    prefix = LAYOUTS[layout].text_encoders[0].prefixes[0]
    more |= {
        "model_ema.decay": torch.tensor(0.9), "betas": torch.ones(1000), "global_step": torch.tensor(3),
        prefix + "embeddings.position_ids": torch.arange(77)[None], prefix + "logit_scale": torch.tensor(4.6),
        "sqrt_alphas_cumprod": torch.ones(1000),
    }  # fmt: skip
    if layout == "sd2":
        more[prefix + "transformer.resblocks.23.ln_1.weight"] = torch.ones(16)
        more[prefix + "text_projection"] = torch.ones(16, 16)
    a = open_base(str(write_single_file(tmp_path / "a.safetensors", plain)), device="cpu")
    b = open_base(str(write_single_file(tmp_path / "b.safetensors", more)), device="cpu")
    assert same(a, b)
    assert len(b.notes) == 1


def test_other_keys_are_said_to_be_unread(layout: str, folder: Path, tmp_path: Path) -> None:
    more = ldm_tensors(folder, layout) | {"somebody.elses": torch.ones(1), VAE + "loss.weight": torch.ones(1)}
    base = open_base(str(write_single_file(tmp_path / "a.safetensors", more)), device="cpu")
    assert base.notes[1] == "a.safetensors holds keys that were not read: 2, first first_stage_model.loss.weight"


def test_a_file_without_autoencoder(layout: str, folder: Path, tmp_path: Path) -> None:
    tensors = ldm_tensors(folder, layout)
    own = {name: value for name, value in tensors.items() if name.startswith(VAE)}
    file = write_single_file(
        tmp_path / "a.safetensors", {name: value for name, value in tensors.items() if name not in own}
    )
    with pytest.raises(TenutoError, match=r"a\.safetensors: holds no autoencoder.*base\.vae"):
        open_base(str(file), device="cpu")
    bare = {name.removeprefix(VAE): value for name, value in own.items()}
    places = [
        folder / "vae",
        folder / "vae/diffusion_pytorch_model.safetensors",
        write_single_file(tmp_path / "vae1.safetensors", own),
        write_single_file(tmp_path / "vae2.safetensors", bare),
    ]
    whole = open_base(str(folder), device="cpu")
    for place in places:
        assert same(open_base(str(file), device="cpu", vae=str(place)), whole), place
    with pytest.raises(TenutoError, match="holds no autoencoder"):
        open_base(str(file), device="cpu", vae=str(file))
    assert same(open_base(str(folder), device="cpu", vae=str(places[2])), whole)


def test_the_hash_is_of_the_content(layout: str, folder: Path, tmp_path: Path) -> None:
    tensors = ldm_tensors(folder, layout)
    one = open_base(str(write_single_file(tmp_path / "a.safetensors", tensors)), device="cpu")
    copy = open_base(str(write_single_file(tmp_path / "copy.safetensors", tensors)), device="cpu")
    assert one.hash == copy.hash
    assert open_base(str(tmp_path / "a.safetensors"), device="cpu", vae=str(folder / "vae")).hash != one.hash
    tensors[min(tensors)] += 1
    changed = open_base(str(write_single_file(tmp_path / "b.safetensors", tensors)), device="cpu")
    assert changed.hash != one.hash


def test_old_names_of_the_text_encoder(layout: str, folder: Path, tmp_path: Path) -> None:
    tensors = ldm_tensors(folder, layout)
    if layout == "sd2":
        prefix = "conditioner.embedders.0.model."
        old = {name.replace("cond_stage_model.model.", prefix): value for name, value in tensors.items()}
    elif layout == "sd1":
        old = {name.replace(".transformer.text_model.", ".transformer."): value for name, value in tensors.items()}
    else:
        key = "conditioner.embedders.1.model.text_projection"
        old = {name: value for name, value in tensors.items() if name != key} | {key + ".weight": tensors[key].T}
    file = write_single_file(tmp_path / "a.safetensors", old)
    assert same(open_base(str(file), device="cpu"), open_base(str(folder), device="cpu"))


def test_the_shipped_tokenizer_is_clips() -> None:
    from tenuto.families.text import load_words

    for layout in LAYOUTS.values():
        words = load_words(layout.tokenizer_folder(), layout.text_encoders[-1].pad)
        assert words.tokens("a photo of a cat") == [320, 1125, 539, 320, 2368]
        row = words.table(["a photo of a cat"])[0, 0].tolist()
        assert row[:7] == [49406, 320, 1125, 539, 320, 2368, 49407]
        assert set(row[7:]) == {layout.text_encoders[-1].pad}
        assert words.tokens("hi!")[-1] == 256  # "!" in a prompt is a word, not padding


def test_configs_are_json_with_known_fields() -> None:
    for form, layout in LAYOUTS.items():
        assert json.dumps(layout.unet)
        assert layout.signature[0] == 320, form
    assert len({layout.signature for layout in LAYOUTS.values()}) == len(LAYOUTS)
