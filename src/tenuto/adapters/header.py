"""The header of a LoRA file: what sd-scripts writes (ss_*), the hashes (sshs_*) and the model specification.

Every value is text. Web UIs show and filter by these; `tenuto_*` is our own and made where a training is set up.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from torch import Tensor

from tenuto import __version__
from tenuto.adapters.kinds import DOWN, KINDS
from tenuto.adapters.layers import Layer
from tenuto.families.base import Base
from tenuto.files import serialized

if TYPE_CHECKING:
    from tenuto.adapters.files import LoraFile

KOHYA_HASHES = ("sshs_model_hash", "sshs_legacy_hash")
VERSIONS = {
    "sd_v1": "stable-diffusion-v1",
    "sd_v1_v": "stable-diffusion-v1",
    "sd_v2": "stable-diffusion-v2-512",
    "sd_v2_v": "stable-diffusion-v2-768-v",
    "sdxl_base_v1-0": "stable-diffusion-xl-v1-base",
}
"""ss_base_model_version -> the architecture's name in the model specification."""


def network_header(layers: Mapping[str, Layer]) -> dict[str, str]:
    """ss_network_*: what most layers have, and what 3x3 convolutions have where that differs."""
    wide = {name: layer for name, layer in layers.items() if DOWN in layer.tensors and _is_wide(layer.tensors[DOWN])}
    plain = {name: layer for name, layer in layers.items() if name not in wide} or layers
    rank, alpha = _most_common(plain)
    arguments: dict[str, str] = {}
    if wide:
        conv_rank, conv_alpha = _most_common(wide)
        arguments = {"conv_dim": str(conv_rank), "conv_alpha": str(conv_alpha)}
    dora = any(layer.is_dora for layer in layers.values())
    kinds = {layer.kind for layer in layers.values()}
    if dora or kinds != {"LoRA"}:
        arguments |= {"algo": KINDS[min(kinds)].algorithm} | ({"dora_wd": "True"} if dora else {})
    header = {
        "ss_network_module": "lycoris.kohya" if dora or kinds != {"LoRA"} else "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
    }
    return header | ({"ss_network_args": json.dumps(arguments)} if arguments else {})


def _is_wide(down: Tensor) -> bool:
    return down.ndim == 4 and down.shape[2] > 1


def _most_common(layers: Mapping[str, Layer]) -> tuple[int, float]:
    return Counter((layer.rank, layer.alpha) for layer in layers.values()).most_common(1)[0][0]


def base_version(file: LoraFile, v_prediction: bool) -> str:
    """ss_base_model_version, as far as the layers' shapes tell."""
    reading_text = ("attn2.to_k", "attn2.to_v", "self_attn.q_proj", "mlp.fc1")
    return _version(
        file, {layer.inputs for name, layer in file.layers.items() if name.endswith(reading_text)}, v_prediction
    )


def _version(file: LoraFile, widths: Container[int], v_prediction: bool) -> str:
    """SD 2.x reads text features of width 1024, SD 1.x of width 768."""
    if file.layout == "sdxl":
        return "sdxl_base_v1-0"
    return ("sd_v2" if 1024 in widths else "sd_v1") + ("_v" if v_prediction else "")


def base_header(base: Base, file: LoraFile) -> dict[str, str]:
    """ss_* and modelspec.* of what the LoRA was made for."""
    denoiser: Any = base.denoiser
    v_prediction = base.scheduler_config().get("prediction_type") == "v_prediction"
    return {
        **version_header(_version(file, {denoiser.config.cross_attention_dim}, v_prediction), v_prediction),
        "ss_zero_terminal_snr": str(bool(base.scheduler_config().get("rescale_betas_zero_snr"))),
        "modelspec.resolution": str(base.geometry.native),
    }


def version_header(version: str, v_prediction: bool) -> dict[str, str]:
    """The keys that follow from ss_base_model_version."""
    reference = "https://github.com/Stability-AI/generative-models"
    return {
        "ss_base_model_version": version,
        "ss_v2": str(version.startswith("sd_v2")),
        "ss_sd_scripts_commit_hash": "(unknown)",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{VERSIONS[version]}/lora",
        "modelspec.implementation": reference if version.startswith("sdxl") else "diffusers",
        "modelspec.implementation_version": f"tenuto/{__version__}",
        "modelspec.prediction_type": "v" if v_prediction else "epsilon",
    }


def hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """sshs_model_hash: of the data alone (A1111's AutoV3 begins with it).

    sshs_legacy_hash: of 64 KiB at 1 MiB of a file that has only the ss_* keys in its header.
    """
    header, data = serialized(tensors, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    start = 0x100000
    within = bytes(header[start : start + 0x10000])
    after = max(start - len(header), 0)
    within += data[after : after + 0x10000 - len(within)]
    return dict(zip(KOHYA_HASHES, (sha256(data).hexdigest(), sha256(within).hexdigest()[:8]), strict=True))
