"""sd-scripts' networks, LyCORIS' among them: which kind of adapter, which layers, which rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tenuto.adapters.tuners.catalogue import TUNERS, KindName
from tenuto.families.base import Part
from tenuto.formats.imported import NEUTRAL, Draft
from tenuto.formats.option_tables import LEFT
from tenuto.formats.rules import is_neutral
from tenuto.formats.values import at_least_zero, flag, natural, number, pairs, positive, whole

KINDS: dict[str, KindName] = {
    "networks.lora": "lora", "networks.loha": "loha", "networks.lokr": "lokr",
    "lycoris.kohya lora": "lora", "lycoris.kohya locon": "lora", "lycoris.kohya loha": "loha",
    "lycoris.kohya lokr": "lokr", "lycoris.kohya diag-oft": "oft", "lycoris.kohya boft": "boft",
}  # fmt: skip
"""Their module (and LyCORIS' algorithm) -> `training.adapter.kind`."""
OTHERWISE = "tenuto trains plain LoRA (B A) on the same groups of layers; modules named in a config are never imported"
NETWORK_NEUTRAL: dict[str, Any] = {"preset": "full", "factor": -1, "unit": 1, "train_on_input": True}
DROPOUTS = (("network_dropout", "neuron"), ("rank_dropout", "rank"), ("module_dropout", "module"))
"""Their option -> what `regularizers.adapter_dropout` calls it."""


def put_network(draft: Draft, options: dict[str, Any], parts: Sequence[Part]) -> None:
    """Which layers, which rank. networks.lora adapts attention and feed-forward; with conv_dim convolutions too."""
    extra = draft.given("network_args", options.pop("network_args", None), pairs, {})
    module = str(options.pop("network_module", None) or "networks.lora")
    algorithm = str(extra.pop("algo", "lora")).lower()
    lycoris = module.startswith("lycoris")
    convolution = lycoris or draft.given("conv_dim", extra.get("conv_dim"), natural, 0) > 0
    theirs = f"{module} {algorithm}" if lycoris else module
    kind = KINDS.get(theirs)
    if kind is None:
        draft.leave("network_module", theirs, OTHERWISE)
    elif kind != "lora":
        draft.put("network_module", "training.adapter.kind", kind)
    takes = TUNERS[kind or "lora"].options
    if "network_dim" not in options:
        return
    rank = draft.given("network_dim", options.pop("network_dim", None), positive, 4)
    draft.put("network_dim", "training.adapter.rank", rank)
    alpha = draft.given("network_alpha", options.pop("network_alpha", None), at_least_zero, None)
    if alpha and "alpha" not in takes:
        draft.leave("network_alpha", alpha, "rotations have no scale")
    elif alpha:
        draft.put("network_alpha", "training.adapter.alpha", alpha)
    elif alpha is not None:
        draft.leave("network_alpha", 0, "means alpha = rank there, as in tenuto when it is not set")
    for name in ("conv_dim", "conv_alpha"):
        own = rank if name == "conv_dim" else alpha or rank
        value = extra.pop(name, None)
        if convolution and value is not None and draft.given(name, value, number, own) != own:
            draft.leave(name, value, f"tenuto has one rank and alpha for all layers: {rank} and {alpha or rank:g}")
    adapted = _parts(draft, options, [*parts, *(["convolution"] if convolution and "convolution" not in parts else [])])
    draft.put("network_module", "training.adapter.parts", adapted)
    options |= {name: extra.pop(name) for name, _ in DROPOUTS if name in extra}
    if draft.given("dora_wd", extra.pop("dora_wd", None), flag, False):
        if "dora" in takes:
            draft.put("dora_wd", "training.adapter.dora", True)
        else:
            draft.leave("dora_wd", True, "tenuto has magnitudes for LoRA alone")
    factor = draft.given("factor", extra.get("factor"), whole, -1)
    if factor > 0 and "factor" in takes:
        draft.put("factor", "training.adapter.factor", factor)
        extra.pop("factor")
    for name, value in extra.items():
        reason = LEFT.get(name, "a setting of the network that tenuto has not")
        draft.leave(name, value, NEUTRAL if is_neutral(name, value, NETWORK_NEUTRAL) else reason)


def _parts(draft: Draft, options: dict[str, Any], unet: list[str]) -> list[str]:
    only_unet = draft.given("network_train_unet_only", options.pop("network_train_unet_only", None), flag, False)
    only_text = draft.given(
        "network_train_text_encoder_only", options.pop("network_train_text_encoder_only", None), flag, False
    )
    text_lr = options.get("text_encoder_lr")
    text_lr = text_lr[0] if isinstance(text_lr, list) and text_lr else text_lr
    cached = draft.given("cache_text_encoder_outputs", options.get("cache_text_encoder_outputs"), flag, False)
    still = (
        only_unet or cached or (text_lr not in (None, "") and draft.given("text_encoder_lr", text_lr, number, 1) == 0)
    )
    return (["text_encoder"] if only_text else unet) if still or only_text else [*unet, "text_encoder"]
