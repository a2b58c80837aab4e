"""sd-scripts' options as data: where each one goes, or why it is left."""

from __future__ import annotations

from typing import Any

from tenuto.formats.rules import Goes, Rule, reasons
from tenuto.formats.values import above_zero, below_one, flag, half_precision, natural, positive, saved_precision, share

MIXED = Goes("training.precision", half_precision, unset=(None, "", "no"))
CARRIED: dict[str, Rule] = {
    "mixed_precision": MIXED,
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
    "torch_compile": Goes("training.compile", flag, unset=(None, "", False)),
    "fp8_base": Goes(
        "base.fp8", flag, unset=(None, "", False), note="the U-Net's blocks; the text encoders leave the device instead"
    ),
    "fp8_base_unet": Goes("base.fp8", flag, unset=(None, "", False)),
    "save_precision": Goes("training.save_precision", saved_precision, unset=(None, "", "float")),
    "validation_split": Goes("data.validation", below_one, unset=(None, "", 0, 0.0)),
    "scale_weight_norms": Goes("regularizers.max_norm.limit", above_zero, unset=(None, "", 0, 0.0, "0")),
    "min_snr_gamma": Goes("regularizers.snr_weight.gamma", above_zero, unset=(None, "", 0, 0.0, "0")),
    "debiased_estimation_loss": Goes(
        "regularizers.snr_weight.shape", lambda on: "debiased" if flag(on) else "min_snr", unset=(None, "", False)
    ),
    "ip_noise_gamma": Goes("regularizers.input_perturbation.weight", above_zero, unset=(None, "", 0, 0.0, "0")),
    "noise_offset": Goes("regularizers.noise_offset.weight", above_zero, unset=(None, "", 0, 0.0, "0")),
    "zero_terminal_snr": Goes("base.zero_terminal_snr", flag, unset=(None, "", False)),
    "v_parameterization": Goes("base.prediction", lambda on: "v" if flag(on) else "auto", unset=(None, "", False)),
}

LEFT = reasons({
    "tenuto reads it from the checkpoint itself": "v2 sdxl",
    "about memory and speed there, not about the result; tenuto plans its own":
        "cache_latents cache_latents_to_disk vae_batch_size skip_cache_check cache_text_encoder_outputs "
        "cache_text_encoder_outputs_to_disk text_encoder_batch_size max_data_loader_n_workers "
        "persistent_data_loader_workers xformers sdpa mem_eff_attn lowram highvram lowvram full_fp16 full_bf16 "
        "no_half_vae cpu_offload_checkpointing fused_backward_pass dynamo_backend "
        "tokenizer_cache_dir disable_mmap_load_safetensors deepspeed zero_stage ddp_timeout "
        "ddp_gradient_as_bucket_view ddp_static_graph num_cpu_threads_per_process cache_info blocks_to_swap",
    "where and how results are saved: tenuto writes runs/<name>/<arm>/seed-N/lora.safetensors with its own metadata":
        "output_dir logging_dir log_with log_prefix log_tracker_name log_tracker_config wandb_run_name "
        "save_model_as save_last_n_epochs save_last_n_steps save_last_n_epochs_state save_last_n_steps_state "
        "save_state save_state_on_train_end save_n_epoch_ratio resume no_metadata training_comment metadata_title "
        "metadata_author metadata_description metadata_license metadata_tags metadata_usage_hint metadata_thumbnail "
        "metadata_merged_from metadata_trigger_phrase metadata_preprocessor metadata_is_negative_embedding log_config "
        "easy_name tag_occurrence tag_file_location save_toml save_toml_location output_config",
    "dropped: tenuto talks to no such service":
        "wandb_api_key huggingface_token huggingface_repo_id huggingface_repo_type huggingface_repo_visibility "
        "huggingface_path_in_repo save_state_to_huggingface resume_from_huggingface async_upload",
    "a further turn of a method that tenuto does not have": "noise_offset_random_strength adaptive_noise_scale "
        "ip_noise_gamma_random_strength",
    "tenuto has no such setting: errors are squared":
        "scale_v_pred_loss_like_noise_pred v_pred_like_loss loss_type huber_schedule huber_c huber_scale",
    "keeps the base's answers as tenuto's own methods do (its teacher had the text adapter on); see "
    "regularizers.output_preservation": "custom_attributes",
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
    "one multiplier for all; set the adapter's strength where you use it": "network_multiplier",
    "of LyCORIS and other networks; tenuto has no such setting":
        "preset factor unit bypass_mode wd_on_output use_tucker use_cp use_scalar rank_dropout_scale rescaled "
        "train_norm decompose_both train_on_input constraint block_size full_matrix rs_lora unbalanced_factorization "
        "disable_conv_cp train_lora_ggpo ggpo_sigma ggpo_beta dropout",
})  # fmt: skip

NEUTRAL_VALUES: dict[str, Any] = {
    "min_timestep": 0, "max_timestep": 1000, "loss_type": "l2", "huber_schedule": "snr", "huber_c": 0.1,
    "huber_scale": 1.0, "multires_noise_discount": 0.3, "token_warmup_min": 1, "max_token_length": 75,
    "caption_separator": ",", "network_multiplier": 1.0, "validation_seed": 42, "bucket_reso_steps": 64,
}  # fmt: skip
"""Defaults that are neither 0 nor false nor empty."""
