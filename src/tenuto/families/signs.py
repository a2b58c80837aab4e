"""Signs in a single file that tell what its network answers: marker keys, metadata, a config beside it, weights."""

from __future__ import annotations

import re

import torch
from safetensors import safe_open

from tenuto.families.header import Header
from tenuto.families.layouts import Layout
from tenuto.families.prediction import Noising
from tenuto.families.process import Prediction
from tenuto.families.recognise import UNET

METADATA: dict[str, Prediction] = {"epsilon": "eps", "eps": "eps", "v": "v", "v_prediction": "v"}
"""Values of modelspec.prediction_type."""

SD2_SIGN = UNET + "output_blocks.11.1.transformer_blocks.0.norm1.bias"
SD2_SPREAD = 0.09
"""SD 2.x files carry no mark; the v-predicting ones have a wider spread in this weight (ComfyUI's rule)."""

SILENT = 1e-5
"""alphas_cumprod of the last timestep below this is zero terminal SNR; betas as usual end near 0.0047."""


def noising_of_file(header: Header, layout: Layout) -> Noising:
    """The first sign that is there, in order of trust: marker keys, metadata, a .yaml beside it, weights, the rule."""
    prediction, why = _prediction(header, layout)
    if prediction == "v" and "ztsnr" in header.shapes:
        return Noising("v", True, "its keys v_pred and ztsnr" if "v_pred" in header.shapes else f"{why} and key ztsnr")
    if prediction == "v" and _ends_silent(header):
        return Noising("v", True, f"{why} and alphas_cumprod")
    return Noising(prediction, False, why)


def _prediction(header: Header, layout: Layout) -> tuple[Prediction, str]:
    if "v_pred" in header.shapes:
        return "v", "its key v_pred"
    told = header.metadata.get("modelspec.prediction_type", "").strip().lower()
    if told in METADATA:
        return METADATA[told], "its metadata modelspec.prediction_type"
    if header.metadata.get("modelspec.architecture", "").lower().startswith("stable-diffusion-v2-768-v"):
        return "v", "its metadata modelspec.architecture"
    if beside := _yaml(header):
        return beside, f"{header.path.stem}.yaml beside it"
    if layout.sample_size_if_v and SD2_SIGN in header.shapes:
        with safe_open(header.path, framework="pt") as file:
            spread = float(file.get_tensor(SD2_SIGN).float().std(unbiased=False))
        return ("v" if spread > SD2_SPREAD else "eps"), "the spread of a weight that tells SD 2.x releases apart"
    hint = re.search(r"v-?_?pred|zt-?snr", header.path.stem, re.IGNORECASE)
    return "eps", f"the family's rule, though its name says {hint.group()!r}" if hint else "the family's rule"


def _yaml(header: Header) -> Prediction | None:
    """`parameterization` in an LDM config of the same name; read as text, the rest is nobody's business."""
    for ending in (".yaml", ".yml"):
        try:
            text = header.path.with_suffix(ending).read_text(encoding="utf-8")
        except (OSError, ValueError):
            continue
        if found := re.search(r"^\s*parameterization:\s*[\"']?(v|eps)\b", text, re.MULTILINE):
            return "v" if found.group(1) == "v" else "eps"
    return None


def _ends_silent(header: Header) -> bool:
    if header.shapes.get("alphas_cumprod", ())[-1:] in ((), (0,)) or len(header.shapes["alphas_cumprod"]) != 1:
        return False
    with safe_open(header.path, framework="pt") as file:
        return bool(file.get_tensor("alphas_cumprod")[-1].to(torch.float64) <= SILENT)
