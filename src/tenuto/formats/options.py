"""sd-scripts' options and what they mean here. kohya_ss and Derrian's scripts end in the same options.

Most options are a line in a table. Those that only mean something together (length, learning rates, network,
optimizer) have a function each, which takes them out of the options first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, sqrt
from pathlib import Path
from typing import Any

from tenuto.families.base import Part
from tenuto.formats.imported import NEUTRAL, Draft
from tenuto.formats.rules import Goes, Rule, apply, carry, is_neutral, reasons
from tenuto.formats.source import find, is_absolute, is_there, written
from tenuto.formats.subsets import Subset, put_subsets, rows_of
from tenuto.formats.values import (
    above_zero,
    at_least_zero,
    below_one,
    flag,
    literal,
    natural,
    number,
    pairs,
    positive,
    share,
    size,
    whole,
)
from tenuto.words import TenutoError

# -- Tables -----------------------------------------------------------------------------------------------------------

CARRIED: dict[str, Rule] = {
    "clip_skip": Goes("base.clip_skip", positive, unset=(None, "", 0, "0")),
    "shuffle_caption": Goes("data.variation.shuffle", flag),
    "keep_tokens": Goes("data.variation.keep_tokens", natural, unset=(None, "", 0, "0")),
    "caption_dropout_rate": Goes("data.variation.caption_dropout", share, unset=(None, "", 0, 0.0, "0")),
    "caption_tag_dropout_rate": Goes(
        "data.variation.tag_dropout",
        share,
        unset=(None, "", 0, 0.0, "0"),
        note="could drop the trigger there; in tenuto the trigger is never dropped",
    ),
    "flip_aug": Goes("data.variation.flip", flag, unset=(None, "", False)),
    "gradient_checkpointing": Goes("training.gradient_checkpointing", flag),
    "validation_split": Goes("data.validation", below_one, unset=(None, "", 0, 0.0)),
    "save_every_n_steps": Goes("training.save_every", positive, unset=(None, "", 0, "0")),
    "sample_every_n_steps": Goes("training.sample_every", natural, unset=(None, "", 0, "0")),
    "scale_weight_norms": Goes("regularizers.max_norm.limit", above_zero, unset=(None, "", 0, 0.0, "0")),
    "min_snr_gamma": Goes("regularizers.snr_weight.gamma", above_zero, unset=(None, "", 0, 0.0, "0")),
    "ip_noise_gamma": Goes("regularizers.input_perturbation.gamma", above_zero, unset=(None, "", 0, 0.0, "0")),
}

LEFT = reasons({
    "tenuto reads it from the checkpoint itself": "v2 v_parameterization sdxl",
    "about memory and speed there, not about the result; tenuto plans its own":
        "cache_latents cache_latents_to_disk vae_batch_size skip_cache_check cache_text_encoder_outputs "
        "cache_text_encoder_outputs_to_disk text_encoder_batch_size max_data_loader_n_workers "
        "persistent_data_loader_workers xformers sdpa mem_eff_attn lowram highvram lowvram full_fp16 full_bf16 "
        "fp8_base fp8_base_unet no_half_vae cpu_offload_checkpointing fused_backward_pass torch_compile dynamo_backend "
        "tokenizer_cache_dir disable_mmap_load_safetensors deepspeed zero_stage ddp_timeout "
        "ddp_gradient_as_bucket_view ddp_static_graph num_cpu_threads_per_process cache_info blocks_to_swap",
    "where and how results are saved: tenuto writes runs/<name>/<arm>/seed-N/lora.safetensors with its own metadata":
        "output_dir logging_dir log_with log_prefix log_tracker_name log_tracker_config wandb_run_name save_precision "
        "save_model_as save_last_n_epochs save_last_n_steps save_last_n_epochs_state save_last_n_steps_state "
        "save_state save_state_on_train_end save_n_epoch_ratio resume no_metadata training_comment metadata_title "
        "metadata_author metadata_description metadata_license metadata_tags metadata_usage_hint metadata_thumbnail "
        "metadata_merged_from metadata_trigger_phrase metadata_preprocessor metadata_is_negative_embedding log_config "
        "easy_name tag_occurrence tag_file_location save_toml save_toml_location output_config",
    "dropped: tenuto talks to no such service":
        "wandb_api_key huggingface_token huggingface_repo_id huggingface_repo_type huggingface_repo_visibility "
        "huggingface_path_in_repo save_state_to_huggingface resume_from_huggingface async_upload",
    "regularizes by noise; tenuto has no such setting yet, the run does without it":
        "noise_offset noise_offset_random_strength adaptive_noise_scale multires_noise_iterations "
        "multires_noise_discount ip_noise_gamma_random_strength zero_terminal_snr",
    "regularizes the adapter; tenuto has no such setting yet, the run does without it":
        "network_dropout rank_dropout module_dropout",
    "weighs the loss; tenuto has no such setting yet: every timestep counts the same, errors are squared":
        "debiased_estimation_loss scale_v_pred_loss_like_noise_pred v_pred_like_loss loss_type huber_schedule huber_c "
        "huber_scale min_timestep max_timestep masked_loss alpha_mask",
    "keeps the base's answers as tenuto's own methods do (its teacher had the text adapter on); see "
    "regularizers.prior_prediction": "custom_attributes",
    "only changes how captions are worded; tenuto takes captions as they are, without weights and wild cards":
        "weighted_captions enable_wildcard secondary_separator caption_separator keep_tokens_separator",
    "tenuto has no such setting: captions are whole from the first step":
        "token_warmup_min token_warmup_step caption_dropout_every_n_epochs",
    "captions of any length are read in passes of 75 tokens": "max_token_length",
    "tenuto crops the middle of the picture and changes no colours":
        "color_aug random_crop face_crop_aug_range resize_interpolation",
    "tenuto's buckets come in the checkpoint's own steps, bounded by data.buckets.max_ratio and min_side "
    "(docs/formats.md compares the shapes)": "bucket_reso_steps max_bucket_reso",
    "tenuto trains the whole adapter with one rank and one rate":
        "block_dims block_alphas conv_block_dims conv_block_alphas down_lr_weight mid_lr_weight up_lr_weight "
        "block_lr_zero_threshold loraplus_lr_ratio loraplus_unet_lr_ratio loraplus_text_encoder_lr_ratio "
        "dim_from_weights text_encoder_lr1 text_encoder_lr2",
    "training.adapter.parts says which layers are trained": "network_train_unet_only network_train_text_encoder_only",
    "tenuto trains on the checkpoint as it is; merge first, then give the merged file":
        "base_weights base_weights_multiplier",
    "tenuto's sample pictures are made with the comparison's sampler": "sample_sampler sample_at_first",
    "tenuto measures drift, bake and strength instead of a validation loss":
        "validation_seed validate_every_n_steps validate_every_n_epochs max_validation_steps",
    "tenuto goes on from its own saved states": "initial_epoch initial_step skip_until_initial_step",
    "the launcher's business": "gpu_ids multi_gpu num_processes num_machines main_process_port",
    "never worked there; tenuto has no such setting": "stop_text_encoder_training stop_text_encoder_training_pct",
    "tenuto has no masks from another folder; transparency is laid on data.background": "conditioning_data_dir",
    "one multiplier for all; set the adapter's strength where you use it": "network_multiplier",
    "of LyCORIS and other networks; tenuto trains plain LoRA (B A)":
        "preset factor unit bypass_mode dora_wd wd_on_output use_tucker use_cp use_scalar rank_dropout_scale rescaled "
        "train_norm decompose_both train_on_input constraint block_size full_matrix rs_lora unbalanced_factorization "
        "disable_conv_cp train_lora_ggpo ggpo_sigma ggpo_beta dropout",
})  # fmt: skip

NEUTRAL_VALUES: dict[str, Any] = {
    "min_timestep": 0, "max_timestep": 1000, "loss_type": "l2", "huber_schedule": "snr", "huber_c": 0.1,
    "huber_scale": 1.0, "multires_noise_discount": 0.3, "token_warmup_min": 1, "max_token_length": 75,
    "caption_separator": ",", "network_multiplier": 1.0, "validation_seed": 42, "bucket_reso_steps": 64,
}  # fmt: skip
"""Defaults that are neither 0 nor false nor empty."""

DEFAULTS: dict[str, Any] = {
    "learning_rate": 2e-6, "network_dim": 4, "network_alpha": 1.0, "train_batch_size": 1, "max_train_steps": 1600,
    "lr_scheduler": "constant",
}  # fmt: skip
"""What a run has that does not say otherwise, where tenuto's default is another."""
TRAINS = (
    "pretrained_model_name_or_path",
    "network_module",
    "network_dim",
    "learning_rate",
    "unet_lr",
    "optimizer_type",
)
"""Options that tell that the training is described, and not only its pictures."""
NETWORK_NEUTRAL: dict[str, Any] = {"preset": "full", "factor": -1, "unit": 1, "train_on_input": True}
AS_RESOLUTION = dict.fromkeys(("enable_bucket", "bucket_no_upscale", "min_bucket_reso, max_bucket_reso"), "resolution")
"""Names for systems that have no bucket settings: their resolution says it all."""
ADAMW = {"", "adamw", "adamw8bit", "pagedadamw", "pagedadamw8bit", "pagedadamw32bit", "adamwschedulefree"}
SELF_SCALING = ("dadapt", "prodigy", "adafactor", "dadaptation")
"""Optimizers that find their own rate: theirs (often 1.0) is no rate for AdamW."""
SHAPES = {
    "constant": "constant", "constant_with_warmup": "constant", "cosine": "cosine", "linear": "linear",
    "cosine_with_restarts": "cosine", "polynomial": "linear", "cosine_with_min_lr": "cosine",
}  # fmt: skip
EXACT_SHAPES = {"constant", "constant_with_warmup", "cosine", "linear"}
PRIOR_SAME = (
    "the same number here: their loss averages both kinds of rows in one mean, ours each by itself, and the relation "
    "w : 1 stays. 1 is deceptively high for a LoRA: try 0.25, towards 0.1 for long trainings"
)


def convert(draft: Draft, options: Mapping[str, Any], subsets: Sequence[Subset], folder: Path, target: Path) -> None:
    """Options (in sd-scripts' names) and folders into the draft. `folder`: where relative paths begin."""
    rest = {name: value for name, value in options.items() if value is not None}
    if whole_run(rest):
        draft.defaults = frozenset(DEFAULTS.keys() - rest.keys())
        rest = {**DEFAULTS, **rest}
    else:
        draft.leave(
            "training options",
            "",
            "none are given with it: tenuto's own stand; give the option file or the command line with --args",
        )
    put_subsets(draft, subsets)
    reg = any(subset.is_reg for subset in subsets)
    _put_prior(draft, rest, reg)
    _put_captions(draft, rest, subsets)
    convert_training(draft, rest, folder, target, reg=reg, rows=rows_of(subsets))
    apply(draft, rest, {**LEFT, **CARRIED}, NEUTRAL_VALUES)
    _say_differences(draft, [subset for subset in subsets if not subset.is_reg])


def convert_training(
    draft: Draft,
    rest: dict[str, Any],
    folder: Path,
    target: Path,
    *,
    reg: bool = False,
    rows: int | None = None,
    parts: Sequence[Part] = ("attention", "feed_forward"),
) -> None:
    """What is trained, how large and how long; takes out of `rest` what it uses. `reg`: half of each batch is reg.

    rows: instance rows per epoch, where they can be counted; parts: the groups of layers that the trainer adapts.
    """
    put_base(draft, rest, folder, target)
    _put_buckets(draft, rest)
    updates = _put_length(draft, rest, reg, rows)
    _put_network(draft, rest, parts)
    _put_optimizer(draft, rest)
    _put_schedule(draft, rest, updates, reg)
    _put_samples(draft, rest, folder)


def whole_run(options: Mapping[str, Any]) -> bool:
    """Whether the training is described, and not its pictures alone."""
    return any(name in options for name in TRAINS)


def _take(options: dict[str, Any], name: str, default: Any = None) -> Any:
    return options.pop(name, default)


def _read(draft: Draft, name: str, value: Any, read: Any, default: Any) -> Any:
    """A value that other decisions hang on; if it cannot be read that is said, and the default stands."""
    if value is None or value == "":
        return default
    try:
        return read(value)
    except ValueError as error:
        draft.leave(name, value, f"{error}: taken as {default}")
        return default


# -- What belongs together --------------------------------------------------------------------------------------------


def put_base(draft: Draft, options: dict[str, Any], folder: Path, target: Path) -> None:
    """Checkpoint, autoencoder, seed, name."""
    model = _take(options, "pretrained_model_name_or_path")
    if isinstance(model, str) and model.strip():
        draft.put("pretrained_model_name_or_path", "base.model", model_place(model.strip(), folder, target))
    else:
        draft.leave("pretrained_model_name_or_path", model or "", "no checkpoint is named: write yours into base.model")
        draft.table["base"] = {"model": "your-checkpoint"}
    _put_file(draft, "vae", _take(options, "vae"), "base.vae", folder, target)
    _put_file(draft, "network_weights", _take(options, "network_weights"), "training.start_from", folder, target)
    seed = _take(options, "seed")
    if seed in (None, ""):
        draft.leave("seed", "", "drawn anew for every run there; in tenuto the seed is always known (seed = 0)")
    else:
        carry(draft, "seed", seed, Goes("seed", whole))
    name = _take(options, "output_name")
    if isinstance(name, str) and (safe := name.replace("/", "-").replace("\\", "-").strip(" .")):
        draft.put("output_name", "name", safe)


def _put_file(draft: Draft, name: str, text: Any, ours: str, folder: Path, target: Path) -> None:
    """A file or folder beside the checkpoint. Pickles are not carried, nor what is not there and may be a hub id."""
    if not isinstance(text, str) or not text.strip():
        return
    text = text.strip()
    if text.lower().endswith((".ckpt", ".pt", ".pth", ".bin")):
        draft.leave(name, text, f"a pickle, which can run code, is not read: make a .safetensors of it for {ours}")
    elif is_absolute(text) or is_there(find(text, folder)):
        draft.put(name, ours, written(text, folder, target))
    else:
        draft.leave(name, text, f"not on this machine: left out; name it in {ours}")


def model_place(model: str, folder: Path, target: Path) -> str:
    """A hub id as it is; a folder relative to the project file; a file by its whole path."""
    if is_absolute(model):
        return model
    place = find(model, folder)
    if is_there(place) and place.is_dir():
        return written(model, folder, target)
    return str(place.absolute()) if is_there(place) and place.is_file() else model


def _put_prior(draft: Draft, options: dict[str, Any], reg: bool) -> None:
    weight = _take(options, "prior_loss_weight", 1.0 if whole_run(options) else None)
    if not reg:
        if weight not in (None, 1.0, "1", "1.0"):
            draft.leave(
                "prior_loss_weight",
                weight,
                "there were no reg pictures, so it did nothing; tenuto's own 0.25 "
                "stands for the prior set that it makes",
            )
        return
    ours = "regularizers.prior_preservation.weight"
    if weight is not None and not carry(draft, "prior_loss_weight", weight, Goes(ours, at_least_zero, note=PRIOR_SAME)):
        draft.put("prior_loss_weight", ours, 1.0)


def _put_buckets(draft: Draft, options: dict[str, Any]) -> None:
    resolution = _take(options, "resolution")
    area = _read(draft, "resolution", resolution, size, None)
    if area:
        draft.put("resolution", "data.buckets.area", area[0] * area[1])
    else:
        draft.leave(
            "resolution", resolution or "", "not given: pictures are as large as the checkpoint was trained for"
        )
    bucketed = _read(draft, "enable_bucket", _take(options, "enable_bucket"), flag, False)
    least = _read(draft, "min_bucket_reso", _take(options, "min_bucket_reso"), natural, 256)
    most = _read(draft, "max_bucket_reso", options.get("max_bucket_reso"), positive, 1024)
    shrink = _read(draft, "bucket_no_upscale", _take(options, "bucket_no_upscale"), flag, False)
    if not bucketed:
        draft.put("enable_bucket", "data.buckets.max_ratio", 1.0)
        if area and area[0] != area[1]:
            draft.leave(
                "resolution",
                resolution,
                "one size for all that is no square: tenuto takes the square of the "
                "same area; raise data.buckets.max_ratio to keep shapes",
            )
    elif area and least:
        widest = min(most / max(least, 1), area[0] * area[1] / max(least, 1) ** 2)
        draft.put("min_bucket_reso, max_bucket_reso", "data.buckets.max_ratio", round(max(widest, 1.0), 2))
        if 0 < least <= int(sqrt(area[0] * area[1])):
            draft.put("min_bucket_reso", "data.buckets.min_side", least)
    draft.put("bucket_no_upscale", "data.buckets.upscale", not shrink)


def _put_captions(draft: Draft, options: dict[str, Any], subsets: Sequence[Subset]) -> None:
    options.pop("caption_extension", None), options.pop("caption_extention", None)
    extensions = sorted({subset.extension for subset in subsets if not subset.is_reg}) or [".txt"]
    if extensions[0] != ".txt":
        draft.put("caption_extension", "data.caption_extension", extensions[0])
    for other in extensions[1:]:
        draft.leave("caption_extension", other, f"tenuto reads one kind of caption file, here {extensions[0]}")
    for name in ("caption_prefix", "caption_suffix"):
        text = _take(options, name)
        if isinstance(text, str) and text:
            draft.leave(
                name,
                text,
                "was put on every caption, also on those of the reg pictures (a trigger in it taught "
                "them the concept); tenuto adds nothing: write it into the caption files of your own "
                "pictures",
            )
    if any(subset.is_reg for subset in subsets) and options.get("shuffle_caption"):
        draft.leave(
            "shuffle_caption", True, "also shuffled the captions of reg pictures; in tenuto prior rows never vary"
        )


def _put_length(draft: Draft, options: dict[str, Any], reg: bool, rows: int | None) -> int | None:
    """Batch and length; returns the updates of the run where they can be known."""
    if "train_batch_size" not in options:
        return _put_epochs(draft, options, reg, rows, None)
    batch = _read(draft, "train_batch_size", _take(options, "train_batch_size"), positive, 1)
    accumulate = _read(draft, "gradient_accumulation_steps", _take(options, "gradient_accumulation_steps"), positive, 1)
    draft.put("train_batch_size", "training.batch", batch * accumulate)
    if reg or accumulate > 1:
        name = "gradient_accumulation_steps" if accumulate > 1 else "train_batch_size"
        draft.put(name, "training.micro_batch", batch)
    return _put_epochs(draft, options, reg, rows, batch * accumulate)


def _put_epochs(draft: Draft, options: dict[str, Any], reg: bool, rows: int | None, batch: int | None) -> int | None:
    epochs = _read(draft, "max_train_epochs", _take(options, "max_train_epochs"), natural, 0)
    steps = _read(draft, "max_train_steps", _take(options, "max_train_steps"), natural, None)
    per_epoch = ceil(rows / batch) if rows and batch else None
    total = None
    if epochs:
        draft.put("max_train_epochs", "training.epochs", epochs)
        total = epochs * per_epoch if per_epoch else None
    elif steps is not None:
        total = max(ceil(steps / 2) if reg else steps, 1)
        draft.put("max_train_steps", "training.steps", total)
        if reg:
            draft.leave(
                "max_train_steps",
                steps,
                "half of each batch there were reg pictures; here prior rows come on "
                f"top of the batch, so {total} updates see the same rows",
            )
    for theirs, ours in (("save_every_n_epochs", "save_every"), ("sample_every_n_epochs", "sample_every")):
        _in_updates(draft, options, theirs, ours, per_epoch)
    return total


def _in_updates(draft: Draft, options: dict[str, Any], theirs: str, ours: str, per_epoch: int | None) -> None:
    every = _read(draft, theirs, _take(options, theirs), natural, 0)
    if every and per_epoch:
        draft.put(theirs, f"training.{ours}", every * per_epoch)
    elif every:
        draft.leave(
            theirs, every, f"counts epochs, and the pictures are not here to count: set training.{ours} (updates)"
        )


def _put_network(draft: Draft, options: dict[str, Any], parts: Sequence[Part]) -> None:
    """Which layers, which rank. networks.lora adapts attention and feed-forward; with conv_dim convolutions too."""
    extra = _read(draft, "network_args", _take(options, "network_args"), pairs, {})
    module = str(_take(options, "network_module") or "networks.lora")
    algorithm = str(extra.pop("algo", "lora")).lower()
    lycoris = module.startswith("lycoris")
    convolution = lycoris or _read(draft, "conv_dim", extra.get("conv_dim"), natural, 0) > 0
    if module not in ("networks.lora", "lycoris.kohya") or (lycoris and algorithm not in ("lora", "locon")):
        draft.leave(
            "network_module",
            f"{module} {algorithm}" if lycoris else module,
            "tenuto trains plain LoRA (B A) on the same groups of layers; modules named in a config are never imported",
        )
    if "network_dim" not in options:
        return
    rank = _read(draft, "network_dim", _take(options, "network_dim"), positive, 4)
    draft.put("network_dim", "training.adapter.rank", rank)
    alpha = _read(draft, "network_alpha", _take(options, "network_alpha"), at_least_zero, None)
    if alpha:
        draft.put("network_alpha", "training.adapter.alpha", alpha)
    elif alpha is not None:
        draft.leave("network_alpha", 0, "means alpha = rank there, as in tenuto when it is not set")
    for name in ("conv_dim", "conv_alpha"):
        own = rank if name == "conv_dim" else alpha or rank
        value = extra.pop(name, None)
        if convolution and value is not None and _read(draft, name, value, number, own) != own:
            draft.leave(name, value, f"tenuto has one rank and alpha for all layers: {rank} and {alpha or rank:g}")
    adapted = _parts(draft, options, [*parts, *(["convolution"] if convolution and "convolution" not in parts else [])])
    draft.put("network_module", "training.adapter.parts", adapted)
    for name, value in extra.items():
        reason = LEFT.get(name, "a setting of the network that tenuto has not")
        draft.leave(name, value, NEUTRAL if is_neutral(name, value, NETWORK_NEUTRAL) else reason)


def _parts(draft: Draft, options: dict[str, Any], unet: list[str]) -> list[str]:
    only_unet = _read(draft, "network_train_unet_only", _take(options, "network_train_unet_only"), flag, False)
    only_text = _read(
        draft, "network_train_text_encoder_only", _take(options, "network_train_text_encoder_only"), flag, False
    )
    text_lr = options.get("text_encoder_lr")
    text_lr = text_lr[0] if isinstance(text_lr, list) and text_lr else text_lr
    cached = _read(draft, "cache_text_encoder_outputs", options.get("cache_text_encoder_outputs"), flag, False)
    still = (
        only_unet or cached or (text_lr not in (None, "") and _read(draft, "text_encoder_lr", text_lr, number, 1) == 0)
    )
    return (["text_encoder"] if only_text else unet) if still or only_text else [*unet, "text_encoder"]


def _put_optimizer(draft: Draft, options: dict[str, Any]) -> None:
    name = str(_take(options, "optimizer_type") or "")
    old = [key for key in ("use_8bit_adam", "use_lion_optimizer") if options.pop(key, False)]
    name = name or ("Lion" if "use_lion_optimizer" in old else "AdamW8bit" if old else "")
    arguments = _read(draft, "optimizer_args", _take(options, "optimizer_args"), pairs, {})
    theirs = name.lower()
    plain = theirs in ADAMW
    if theirs not in ("", "adamw"):
        why = "tenuto trains with AdamW in 32 bits: the same updates, a little more memory" if plain else (
            "tenuto trains with AdamW" + ("; a class named in a config is never imported" if "." in name else "")
        )  # fmt: skip
        draft.leave("optimizer_type", name, why)
    rates = {key: _first(options.pop(key, None)) for key in ("learning_rate", "unet_lr", "text_encoder_lr")}
    rates = {key: value for key, value in rates.items() if value not in (None, "")}
    if plain and rates:
        _put_rates(draft, rates)
    else:
        for key, value in rates.items():
            draft.leave(key, value, f"a rate for {name}, not for AdamW: tenuto's 1e-4 stands")
    for key, value in arguments.items():
        rule = OPTIMIZER.get(key) if plain else None
        if rule is None or not carry(draft, f"optimizer_args {key}", value, rule):
            draft.leave(
                f"optimizer_args {key}", value, f"an argument of {name or 'AdamW'} that tenuto has no setting for"
            )
    _put_clip(draft, _take(options, "max_grad_norm"))


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def _betas(value: Any) -> list[float]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or len(parts) != 2:
        raise ValueError("not two numbers")
    return [share(part.strip() if isinstance(part, str) else part) for part in parts]


OPTIMIZER = {
    "weight_decay": Goes("training.optimizer.weight_decay", at_least_zero),
    "betas": Goes("training.optimizer.betas", _betas),
}


def _put_rates(draft: Draft, rates: Mapping[str, Any]) -> None:
    base = _read(draft, "learning_rate", rates.get("learning_rate"), number, 2e-6)
    unet = _read(draft, "unet_lr", rates.get("unet_lr"), number, base)
    text = _read(draft, "text_encoder_lr", rates.get("text_encoder_lr"), number, base)
    used = unet if unet > 0 else text if text > 0 else base
    if used <= 0:
        draft.leave("learning_rate", base, "0: nothing would be learned; tenuto's 1e-4 stands")
        return
    draft.put("unet_lr" if "unet_lr" in rates else "learning_rate", "training.optimizer.lr", used)
    if text not in (used, 0) and "text_encoder" in draft.table["training"].get("adapter", {}).get("parts", ()):
        draft.leave(
            "text_encoder_lr",
            text,
            f"tenuto has one learning rate, here {used:g}: the text encoder is trained "
            "with it too; take text_encoder out of training.adapter.parts if that is too much",
        )


def _put_clip(draft: Draft, value: Any) -> None:
    limit = _read(draft, "max_grad_norm", value, at_least_zero, 1.0)
    if limit == 0:
        draft.put("max_grad_norm", "training.clip_norm", 1e9)
        draft.leave("max_grad_norm", 0, "off; written as a limit that is never reached")
    elif limit != 1:
        draft.put("max_grad_norm", "training.clip_norm", limit)


def _put_schedule(draft: Draft, options: dict[str, Any], updates: int | None, reg: bool) -> None:
    given = "lr_scheduler" in options
    scheduler = str(_take(options, "lr_scheduler") or "constant").lower()
    kind, arguments = _take(options, "lr_scheduler_type"), _take(options, "lr_scheduler_args")
    cycles, power = _take(options, "lr_scheduler_num_cycles"), _take(options, "lr_scheduler_power")
    shape = SHAPES.get(scheduler, "cosine")
    exact = scheduler in EXACT_SHAPES
    exact |= scheduler == "cosine_with_restarts" and _read(draft, "lr_scheduler_num_cycles", cycles, number, 1) <= 1
    exact |= scheduler == "polynomial" and _read(draft, "lr_scheduler_power", power, number, 1) == 1
    if kind:
        shape, exact = "cosine", True
        draft.leave("lr_scheduler_type", kind, "a class named in a config is never imported: a cosine is used instead")
    if given or kind:
        draft.put("lr_scheduler_type" if kind else "lr_scheduler", "training.learning_rate.shape", shape)
    if not exact:
        draft.leave("lr_scheduler", scheduler, f"tenuto has constant, cosine and linear: {shape} is used instead")
    if arguments and kind:
        draft.leave("lr_scheduler_args", arguments, "of a scheduler that tenuto has not")
    _put_warmup(draft, options, scheduler, updates, reg)
    if precision := _take(options, "mixed_precision"):
        _put_precision(draft, str(precision).lower())
    for name in ("lr_decay_steps", "lr_scheduler_timescale", "lr_scheduler_min_lr_ratio"):
        if value := _take(options, name):
            draft.leave(name, value, "tenuto's schedules run to the last update, down to 0")


def _put_warmup(draft: Draft, options: dict[str, Any], scheduler: str, updates: int | None, reg: bool) -> None:
    """A whole number counts steps, a number below 1 is a share of the run."""
    value = literal(_take(options, "lr_warmup_steps", 0))
    asked = _read(draft, "lr_warmup_steps", value, at_least_zero, 0.0)
    if not asked:
        return
    if scheduler == "constant":
        draft.leave("lr_warmup_steps", value, "the constant scheduler there has no warm-up, so it did nothing")
    elif asked >= 1:
        draft.put("lr_warmup_steps", "training.learning_rate.warmup", ceil(asked / 2) if reg else int(asked))
    elif updates:
        draft.put("lr_warmup_steps", "training.learning_rate.warmup", round(asked * updates))
    else:
        draft.leave(
            "lr_warmup_steps",
            value,
            "a share of a run whose length is not known before the pictures are here: "
            "set training.learning_rate.warmup (updates)",
        )


def _put_precision(draft: Draft, precision: str) -> None:
    if precision == "bf16":
        draft.put("mixed_precision", "training.precision", "bf16")
    elif precision == "fp16":
        draft.leave(
            "mixed_precision",
            precision,
            'tenuto has fp32 (used) and bf16: training.precision = "bf16" on cards that have it',
        )


def _put_samples(draft: Draft, options: dict[str, Any], folder: Path) -> None:
    """Sample prompts: a file, or the lines themselves."""
    given = _take(options, "sample_prompts")
    if not isinstance(given, str) or not given.strip():
        return
    try:
        place = find(given.strip(), folder) if "\n" not in given and len(given) < 1000 else folder
        is_text = is_there(place) and place.is_file() and place.suffix == ".txt"
        text = place.read_text(encoding="utf-8") if is_text else given
    except (OSError, UnicodeDecodeError, TenutoError):
        text = ""
    if text is given and given.strip().lower().endswith((".txt", ".toml", ".json")):
        draft.leave("sample_prompts", given, "no such text file here: write prompts into training.sample_prompts")
        return
    lines = [line.split(" --")[0].strip() for line in text.splitlines() if line.strip() and line[0] != "#"]
    if lines := [line for line in lines if line]:
        draft.put("sample_prompts", "training.sample_prompts", lines)
        draft.leave(
            "sample_prompts",
            f"({len(lines)})",
            "their sizes, seeds and negative prompts are not carried: "
            "tenuto's samples are made at the checkpoint's own size",
        )


def _say_differences(draft: Draft, subsets: Sequence[Subset]) -> None:
    """tenuto varies captions and pictures alike in all folders: the first folder's settings are used."""
    for subset in subsets[1:]:
        for name, value in subset.settings.items():
            if name in CARRIED and value != subsets[0].settings.get(name):
                draft.leave(name, value, f"of {subset.written} alone; tenuto varies all folders as the first one")
