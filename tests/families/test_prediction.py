"""What a checkpoint answers: found by its signs, said, overridden; zero terminal SNR in process and samplers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from tenuto.families.base import Base, Conditioning
from tenuto.families.checkpoints import open_base
from tenuto.families.header import Header
from tenuto.families.layouts import LAYOUTS
from tenuto.families.prediction import Noising, Told, Wish
from tenuto.families.process import from_alphas
from tenuto.families.sampling import SAMPLERS, Sampler, SamplerSettings, sample
from tenuto.families.signs import SD2_SIGN, noising_of_file
from tenuto.words import Size, TenutoError
from tests.single_files import ldm_tensors, tiny_layout, write_single_file
from tests.tiny import tiny_sd_folder, tiny_sdxl_folder

EMPTY = torch.zeros(0)
SILENT = torch.linspace(1, 0, 1000)
USUAL = torch.linspace(1, 0.0047, 1000)


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sdxl_folder(tmp_path_factory.mktemp("xl") / "folder")


def header_of(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Header:
    write_single_file(path, tensors, metadata)
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    return Header(path, shapes, {}, metadata or {})


@pytest.mark.parametrize(
    ("keys", "metadata", "name", "expected"),
    [
        ({}, {}, "model", ("eps", False, "family's rule")),
        ({"v_pred": EMPTY}, {}, "model", ("v", False, "key v_pred")),
        ({"v_pred": EMPTY, "ztsnr": EMPTY}, {}, "model", ("v", True, "v_pred and ztsnr")),
        ({"ztsnr": EMPTY}, {}, "model", ("eps", False, "rule")),
        ({}, {"modelspec.prediction_type": "v"}, "model", ("v", False, "modelspec.prediction_type")),
        ({}, {"modelspec.prediction_type": "v_prediction"}, "model", ("v", False, "modelspec")),
        ({}, {"modelspec.prediction_type": "epsilon"}, "x-vpred", ("eps", False, "modelspec")),
        ({}, {"modelspec.prediction_type": "None"}, "model", ("eps", False, "rule")),
        ({"ztsnr": EMPTY}, {"modelspec.prediction_type": "v"}, "model", ("v", True, "ztsnr")),
        ({"alphas_cumprod": SILENT}, {"modelspec.prediction_type": "v"}, "m", ("v", True, "alphas_cumprod")),
        ({"alphas_cumprod": USUAL}, {"modelspec.prediction_type": "v"}, "m", ("v", False, "modelspec")),
        ({"alphas_cumprod": EMPTY, "v_pred": EMPTY}, {}, "m", ("v", False, "v_pred")),
        ({}, {"modelspec.architecture": "stable-diffusion-v2-768-v"}, "m", ("v", False, "architecture")),
        ({}, {}, "noob-vPred-1.0", ("eps", False, "its name says 'vPred'")),
    ],
)
def test_signs(
    keys: dict[str, Tensor], metadata: dict[str, str], name: str, expected: tuple[str, bool, str], tmp_path: Path
) -> None:
    header = header_of(tmp_path / f"{name}.safetensors", {"some.weight": torch.ones(1)} | keys, metadata)
    found = noising_of_file(header, LAYOUTS["sdxl"])
    assert (found.prediction, found.zero_terminal_snr) == expected[:2]
    assert expected[2] in found.why


@pytest.mark.parametrize(("line", "expected"), [('    parameterization: "v"', "v"), ("parameterization: eps", "eps")])
def test_a_config_beside_the_file(line: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(f"model:\n  params:\n{line}\n")
    found = noising_of_file(header_of(tmp_path / "model.safetensors", {"a": torch.ones(1)}), LAYOUTS["sd2"])
    assert found.prediction == expected
    assert "model.yaml" in found.why


@pytest.mark.parametrize(("spread", "expected"), [(0.05, "eps"), (0.2, "v")])
def test_sd2_is_told_by_a_weight(spread: float, expected: str, tmp_path: Path) -> None:
    bias = torch.cat([torch.full((50,), -spread), torch.full((50,), spread)]).half()
    header = header_of(tmp_path / "model.safetensors", {SD2_SIGN: bias})
    assert noising_of_file(header, LAYOUTS["sd2"]).prediction == expected
    assert noising_of_file(header, LAYOUTS["sd1"]).prediction == "eps"


@pytest.mark.parametrize(
    ("wish", "found", "expected"),
    [
        (Wish(), Noising("v", True), ("v", True)),
        (Wish("eps"), Noising("v", True), ("eps", False)),
        (Wish("v"), Noising("eps"), ("v", False)),
        (Wish("v"), Noising("v", True), ("v", True)),
        (Wish("auto", False), Noising("v", True), ("v", False)),
        (Wish("v", True), Noising("eps"), ("v", True)),
    ],
)
def test_the_users_word_counts(wish: Wish, found: Noising, expected: tuple[str, bool]) -> None:
    noising = wish.over(found)
    assert (noising.prediction, noising.zero_terminal_snr) == expected


def test_a_noobai_like_file(xl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYOUTS, "tiny", tiny_layout(xl, "sdxl"))
    marks = {"v_pred": EMPTY, "ztsnr": EMPTY}
    file = write_single_file(tmp_path / "noob.safetensors", ldm_tensors(xl, "sdxl") | marks)
    base = open_base(str(file), device="cpu")
    assert base.notes == ("tiny sdxl, answers v with zero terminal SNR (from its keys v_pred and ztsnr)",)
    assert base.process.prediction == "v"
    assert base.scheduler_config()["rescale_betas_zero_snr"] is True
    a, s = base.process.schedule(torch.tensor([999]))
    assert (float(a), float(s)) == (0, 1)
    told = open_base(str(file), device="cpu", prediction="eps")
    assert told.notes == ("tiny sdxl, answers eps (from the project)",)
    assert told.hash != base.hash
    assert float(told.process.schedule(torch.tensor([999]))[0]) > 0


@pytest.mark.parametrize("prediction", ["auto", "eps"])
def test_eps_with_zero_terminal_snr_is_refused(tiny_folder: Path, prediction: Told) -> None:
    with pytest.raises(TenutoError, match=r"zero terminal SNR with eps.*base\.prediction"):
        open_base(str(tiny_folder), device="cpu", prediction=prediction, zero_terminal_snr=True)
    with pytest.raises(TenutoError, match="noise alone"):
        from_alphas(SILENT, "eps")


def test_a_folder_is_overridden_and_says_what_it_is(tiny_folder: Path, tmp_path: Path) -> None:
    base = open_base(str(tiny_folder), device="cpu")
    assert base.notes == ("Stable Diffusion, answers eps (from scheduler_config.json)",)
    v = open_base(str(tiny_folder), device="cpu", prediction="v", zero_terminal_snr=True)
    assert v.process.prediction == "v"
    assert v.hash != base.hash
    folder = tiny_sd_folder(tmp_path / "own", prediction="v_prediction", rescale_betas_zero_snr=True)
    own = open_base(str(folder), device="cpu")
    assert own.hash == v.hash
    assert own.scheduler_config()["prediction_type"] == "v_prediction"


def test_zero_terminal_snr_has_no_zero_division() -> None:
    """x0 from a perfect answer, at every timestep; the reference is diffusers' own rescaled schedule."""
    theirs = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=True,
        prediction_type="v_prediction",
    )  # fmt: skip
    process = from_alphas(theirs.alphas_cumprod, "v")
    t = torch.arange(1000)
    x0, noise = torch.randn(2, 1000, 1, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    x_t, target = process.noisy(x0, noise, t), process.target(x0, noise, t)
    assert torch.equal(x_t[999], noise[999])
    assert torch.equal(target[999], -x0[999])
    torch.testing.assert_close(process.x0(x_t, target, t), x0, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(target.float(), theirs.get_velocity(x0, noise, t).float(), atol=1e-6, rtol=1e-6)


class Knowing:
    """A base that knows the one picture there is: a perfect answer for x0 [C H W] at every x_t."""

    def __init__(self, base: Base, x0: Tensor) -> None:
        self.base, self.picture = base, x0

    def __getattr__(self, name: str) -> object:
        return getattr(self.base, name)

    def predict(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        a, s = self.base.process.schedule(t)
        return self.base.process.target(self.picture.expand_as(x_t), (x_t - a * self.picture) / s, t)


@pytest.mark.parametrize("snr", [False, True])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_finds_the_picture(tiny_folder: Path, sampler: Sampler, snr: bool) -> None:
    base = open_base(str(tiny_folder), device="cpu", prediction="v", zero_terminal_snr=snr)
    x0 = torch.randn(base.geometry.latent(Size(16, 16)), generator=torch.Generator().manual_seed(1))
    cond = base.encode_text(["a"], [Size(16, 16)])
    settings = SamplerSettings(sampler=sampler, steps=12, guidance=1)
    found = sample(Knowing(base, x0), cond, None, Size(16, 16), [3], settings)  # type: ignore[arg-type]
    torch.testing.assert_close(found[0], x0, atol=0.05, rtol=0.05)
