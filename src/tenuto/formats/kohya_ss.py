"""kohya_ss (Bmaltais): the JSON file that its interface saves, sd-scripts' options under some names of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenuto.formats.command_line import commands
from tenuto.formats.imported import NEUTRAL, Draft, Imported
from tenuto.formats.rules import reasons
from tenuto.formats.sd_scripts import convert_options
from tenuto.formats.source import Source
from tenuto.formats.values import flag, number
from tenuto.words import TenutoError

NAME = "kohya_ss"

RENAMED = {
    "max_resolution": "resolution", "optimizer": "optimizer_type", "lora_network_weights": "network_weights",
    "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs", "sdxl_no_half_vae": "no_half_vae",
    "use_cp": "use_tucker", "constrain": "constraint", "LyCORIS_preset": "preset", "conv_dims": "conv_dim",
    "conv_alphas": "conv_alpha",
}  # fmt: skip
"""Field of the interface -> sd-scripts' option."""

NETWORK_ARGS = frozenset(
    """preset factor bypass_mode dora_wd use_tucker use_scalar rank_dropout_scale rescaled train_norm decompose_both
    train_on_input constraint unit conv_dim conv_alpha rank_dropout module_dropout down_lr_weight mid_lr_weight
    up_lr_weight block_lr_zero_threshold block_dims block_alphas conv_block_dims conv_block_alphas loraplus_lr_ratio
    loraplus_unet_lr_ratio loraplus_text_encoder_lr_ratio train_lora_ggpo ggpo_sigma ggpo_beta""".split()  # noqa: SIM905
)
"""Fields that go into --network_args."""

LAUNCH = reasons({
    "the launcher's or the interface's business":
        "num_cpu_threads_per_process num_processes num_machines multi_gpu gpu_ids main_process_port dynamo_backend "
        "dynamo_mode dynamo_use_fullgraph dynamo_use_dynamic extra_accelerate_launch_args save_as_bool model_list "
        "no_token_padding use_wandb train_inpainting",
})  # fmt: skip

OTHER_FAMILIES = (
    "flux",
    "sd3",
    "hunyuan",
    "anima",
    "lumina",
    "t5xxl",
    "clip_l",
    "clip_g",
    "img_",
    "txt_",
    "single_",
    "double_",
    "logit_",
    "train_double",
    "train_single",
)
OTHER_KEYS = frozenset(
    """ae discrete_flow_shift model_type model_prediction_type timestep_sampling split_mode train_blocks guidance_scale
    mem_eff_save apply_t5_attn_mask blocks_to_swap in_dims mode_scale weighting_scheme enable_all_linear split_qkv
    train_t5xxl cpu_offload_checkpointing show_timesteps show_timesteps_resolution pos_emb_random_crop_rate
    save_clip save_t5xxl""".split()  # noqa: SIM905
)
"""Widgets of families that tenuto does not train; they stand in every file."""

NETWORKS = {
    "Standard": ("networks.lora", ""), "Kohya LoCon": ("networks.lora", ""), "Kohya DyLoRA": ("networks.dylora", ""),
    "LoRA-FA": ("networks.lora_fa", ""), "Kohya LoHa": ("networks.loha", ""), "Kohya LoKr": ("networks.lokr", ""),
    "LoCon": ("lycoris.kohya", "locon"),
}  # fmt: skip
TYPICAL = frozenset(
    {"pretrained_model_name_or_path", "max_resolution", "train_batch_size", "lr_warmup", "save_precision"}
)
"""Fields that every tab of the interface saves."""
ELSEWHERE = {"full_path": "the fine-tune tab", "token_string": "the textual-inversion tab"}
"""Fields that tell of a tab whose files hold no LoRA training."""
ZEROS = {"prior_loss_weight": 1.0, "max_grad_norm": 1.0, "network_alpha": 1.0, "multires_noise_discount": 0.3}
"""Settings whose 0 was dropped on the way to the trainer, and what it used instead."""
LENGTHS = ("max_train_epochs", "max_train_steps")
"""The trainer's own; the first wins over the second."""


def recognises(source: Source) -> bool:
    data = source.data
    return source.kind == "json" and isinstance(data, dict) and ("LoRA_type" in data or len(TYPICAL & data.keys()) >= 3)


def read(source: Source, extra: Mapping[str, Any], target: Any) -> Imported:
    if not isinstance(source.data, dict):
        raise TenutoError(f"{source.path}: no config of kohya_ss; give the .json that its interface saved")
    if tab := next((name for field, name in ELSEWHERE.items() if field in source.data), None):
        raise TenutoError(
            f"{source.path}: saved from {tab} of kohya_ss, and tenuto trains LoRAs; save it from the LoRA tab"
        )
    draft = Draft(source.path, NAME)
    data = {str(name): value for name, value in source.data.items()}
    _refuse_other_family(source, data)
    _say_dropped_zeros(draft, data)
    if "LoRA_type" not in data:
        draft.leave(
            "LoRA_type",
            "",
            "saved from the Dreambooth tab, a fine-tune of the whole checkpoint: tenuto trains a "
            "LoRA, with its own rank and learning rate",
        )
        data = {name: value for name, value in data.items() if not name.startswith("learning_rate_te")}
        data |= {"LoRA_type": "Standard", "network_dim": 16, "network_alpha": 16, "learning_rate": 1e-4}
    options = _options(draft, data)
    options |= _additional(draft, data, options)
    options |= extra
    _length(draft, options)
    convert_options(draft, options, source.folder, target)
    return draft.done()


def _refuse_other_family(source: Source, data: Mapping[str, Any]) -> None:
    for name in ("sd3_checkbox", "flux1_checkbox", "hunyuan_image_checkbox", "anima_checkbox", "lumina_checkbox"):
        if data.get(name) is True:
            raise TenutoError(
                f"{source.path}: {name} is set, and tenuto cannot train that family yet; "
                "tenuto trains LoRAs of SD 1.x, SD 2.x and SDXL"
            )


def _number(value: Any, default: float = 0.0) -> float:
    try:
        return number(value)
    except ValueError:
        return default


def _say_dropped_zeros(draft: Draft, data: Mapping[str, Any]) -> None:
    for name, used in ZEROS.items():
        written = data.get(name)
        idle = name == "multires_noise_discount" and not _number(data.get("multires_noise_iterations"))
        if written not in (None, "") and _number(written, 1.0) == 0 and not idle:
            draft.leave(
                name,
                written,
                f"kohya_ss dropped zeros: it trained with {used:g}; here 0 is a value, and is carried as it is written",
            )


def _options(draft: Draft, data: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the interface as options of the trainer."""
    options: dict[str, Any] = {}
    network: dict[str, Any] = {}
    others = 0
    for name, value in data.items():
        ours = RENAMED.get(name, name)
        if name in LAUNCH:
            draft.leave(name, value, LAUNCH[name])
        elif ours in NETWORK_ARGS:
            network[ours] = value
        elif name in OTHER_KEYS or name.startswith(OTHER_FAMILIES):
            others += 1
        elif ours not in options or options[ours] in (None, ""):
            options[ours] = value
    if others:
        draft.leave("settings of other families", others, NEUTRAL)
    _network(draft, options, network)
    _warmup(draft, options)
    _noise(draft, options)
    _rates(options)
    if _number(options.get("seed")) == 0:  # drawn anew for every run
        options.pop("seed", None)
    return {name: value for name, value in options.items() if value not in (None, "")}


def _network(draft: Draft, options: dict[str, Any], network: dict[str, Any]) -> None:
    kind = str(options.pop("LoRA_type", "Standard"))
    default = ("lycoris.kohya", kind.removeprefix("LyCORIS/").lower()) if kind.startswith("LyCORIS/") else (kind, "")
    module, algorithm = NETWORKS.get(kind, default)
    if kind == "Standard":
        for name in ("conv_dim", "conv_alpha"):
            if network.get(name) not in (None, "", 0, 1):
                draft.leave(name, network[name], "left over from another LoRA type: it did nothing under Standard")
            network.pop(name, None)
    used = {name: value for name, value in network.items() if value not in (None, "", False, 0, "full", -1)}
    if not module.startswith("lycoris"):
        for name in ("factor", "unit", "preset", "train_on_input", "ggpo_sigma", "ggpo_beta"):
            used.pop(name, None)
    options["network_module"] = module
    options["network_args"] = used | ({"algo": algorithm} if algorithm else {})


def _length(draft: Draft, options: dict[str, Any]) -> None:
    """`epoch` only served to work out steps, where neither they nor the trainer's own epochs are written down."""
    epoch = _number(options.pop("epoch", 0))
    for name in LENGTHS:
        if not draft.read_or(name, options.get(name) or 0, number, 0):
            options.pop(name, None)
    if not epoch:
        return
    if told := next((name for name in LENGTHS if name in options), None):
        draft.leave("epoch", epoch, f"{told} wins over it there, and here")
    elif options.get("dataset_config"):
        draft.leave("epoch", epoch, "did nothing beside a dataset config: the run took 1600 steps")
    else:
        options["max_train_epochs"] = epoch
        draft.names["max_train_epochs"] = "epoch"
        draft.leave(
            "epoch",
            epoch,
            "kohya_ss turned it into steps, doubled as soon as a reg folder was named, even an "
            "empty one; tenuto counts epochs of your own pictures",
        )


def _warmup(draft: Draft, options: dict[str, Any]) -> None:
    """`lr_warmup` is in percent; steps win over it."""
    percent, steps = _number(options.pop("lr_warmup", 0)), _number(options.get("lr_warmup_steps"))
    if steps <= 0:
        options["lr_warmup_steps"] = percent / 100
        if percent and options.get("lr_scheduler") != "constant":
            draft.leave("lr_warmup", percent, "percent of the run, carried as updates")


def _noise(draft: Draft, options: dict[str, Any]) -> None:
    """Only one kind of noise is in force; the other's numbers are left over."""
    kind = str(options.pop("noise_offset_type", "Original") or "Original")
    multires = ("multires_noise_iterations", "multires_noise_discount")
    original = ("noise_offset", "noise_offset_random_strength", "adaptive_noise_scale")
    for name in multires if kind == "Original" else original:
        value = options.pop(name, None)
        if _number(value) and name != "multires_noise_discount":
            draft.leave(name, value, f"did nothing there: the kind of noise was {kind}")


def _rates(options: dict[str, Any]) -> None:
    """Which parts are trained is told by the rates: 0 for one of two means the other alone."""
    unet, text = (_number(_one(options.get(name))) for name in ("unet_lr", "text_encoder_lr"))
    if not unet and not text:
        options.pop("unet_lr", None), options.pop("text_encoder_lr", None)
    elif not unet:
        options["network_train_text_encoder_only"] = True
    elif not text:
        options["network_train_unet_only"] = True
    for name in ("network_train_unet_only", "network_train_text_encoder_only"):
        if name in options:
            try:
                options[name] = flag(options[name])
            except ValueError:
                options.pop(name)


def _one(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def _additional(draft: Draft, data: Mapping[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """The field of further options; it came last and so won."""
    text = options.pop("additional_parameters", "")
    found = [each.options for each in commands(text)] if isinstance(text, str) else []
    more = {name: value for own in found for name, value in own.items()}
    for name, value in more.items():
        if data.get(name) not in (None, "", value):
            draft.leave(name, data[name], f"overridden by additional_parameters ({value})")
    return more
