"""D8's settings and what they mean here, as data."""

from __future__ import annotations

from typing import Any

from tenuto.formats.option_tables import MIXED
from tenuto.formats.rules import Goes, Rule, reasons
from tenuto.formats.values import above_zero, flag, positive

RENAMED = {
    "src": "pretrained_model_name_or_path", "pretrained_vae_name_or_path": "vae", "lora_unet_rank": "network_dim",
    "num_train_epochs": "max_train_epochs", "optimizer": "optimizer_type", "model_name": "output_name",
}  # fmt: skip
"""D8's setting -> the option of the same meaning in `options.py`."""
SAME = (
    "train_batch_size",
    "gradient_accumulation_steps",
    "resolution",
    "mixed_precision",
    "lr_scheduler",
    "lr_warmup_steps",
    "text_encoder_lr",
)

CARRIED: dict[str, Rule] = {
    "clip_skip": Goes("base.clip_skip", positive, unset=(None, "", 0)),
    "mixed_precision": MIXED,
    "gradient_checkpointing": Goes("training.gradient_checkpointing", flag),
    "hflip": Goes("data.variation.flip", flag, unset=(None, "", False)),
    "freeze_spectral_norm": "a limit on how the weights grow; tenuto has no such setting yet",
    "offset_noise": Goes("regularizers.noise_offset.weight", above_zero, unset=(None, "", 0, 0.0)),
    "min_snr_gamma": "was set but never read by D8's loss; to have it add regularizers.snr_weight",
    "input_pertubation": "was set but never read by D8's loss; to have it add regularizers.input_perturbation",
    "use_dream": "tenuto has no such setting: the target is the plain one",
    "dream_detail_preservation": "belongs to use_dream",
    "use_ema": "an average of the whole checkpoint there; of a LoRA it is the method regularizers.ema_average",
    "split_loss": "tenuto always averages instance and prior rows apart, and logs both",
    "disable_class_matching": "tenuto matches prior rows to concepts and buckets",
    "use_lora_extended": Goes("training.adapter.parts", lambda _: ["attention", "feed_forward", "convolution"],
                              unset=(None, "", False)),
    "strict_tokens": "tenuto reads captions as they are",
    "pad_tokens": "tenuto always pads",
    "max_token_length": "captions of any length are read in passes of 75 tokens",
    "freeze_clip_normalization": "a LoRA never moves normalization layers",
    "stop_text_encoder": "tenuto trains the text encoder to the end or not at all; to leave it out take text_encoder "
                         "out of training.adapter.parts",
    "tenc_weight_decay": "tenuto has one weight decay for all layers",
    "tenc_grad_clip_norm": "tenuto has one limit for all gradients, training.clip_norm",
    "lora_txt_rank": "tenuto has one rank for all layers",
    "lora_txt_learning_rate": "tenuto has one learning rate for all layers",
    "lora_weight": "a scale that D8 wrote on export, and on attention alone; tenuto writes what it trained",
    "lora_txt_weight": "a scale that D8 wrote on export; tenuto writes what it trained",
    "lora_model_name": "a LoRA in D8's own folder to go on from: name its file in training.start_from",
    "lora_use_buggy_requires_grad": "a fault of old versions; nothing of it here",
    "dynamic_img_norm": "tenuto normalizes pictures as the autoencoder was trained",
    "train_unet": "tenuto trains what training.adapter.parts names",
    "tomesd": "speed there, not the result",
}  # fmt: skip

LEFT = reasons({
    "about memory and speed there, not about the result; tenuto plans its own":
        "attention cache_latents full_mixed_precision half_model deterministic gradient_set_to_none "
        "sample_batch_size",
    "saving and previews: tenuto saves every training.save_every updates and writes a report":
        "save_embedding_every save_preview_every save_lora_during save_lora_after save_lora_cancel "
        "save_lora_for_extra_net save_safetensors save_ckpt_during save_ckpt_after save_ckpt_cancel save_state_during "
        "save_state_after save_state_cancel save_ema use_subdir sanity_prompt sanity_seed graph_smoothing "
        "disable_logging epoch_pause_frequency epoch_pause_time scheduler snapshot",
    "D8's own book-keeping": "revision initial_revision lifetime_revision epoch model_dir model_path custom_model_name "
        "concepts_path use_concepts shared_diffusers_path use_shared_src has_ema ema_predict infer_ema train_imagic "
        "train_unfrozen deis_train_scheduler noise_scheduler pretrained_model_name_or_path v2 model_type",
    "of learning-rate schedules that tenuto has not": "learning_rate_min lr_cycles lr_factor lr_power lr_scale_pos",
    "of a full fine-tune; tenuto trains a LoRA": "learning_rate txt_learning_rate",
})  # fmt: skip

NEUTRAL: dict[str, Any] = {
    "lr_cycles": 1, "lr_power": 1.0, "stop_text_encoder": 1.0, "dream_detail_preservation": 0.5, "split_loss": True,
    "pad_tokens": True, "max_token_length": 75, "train_unet": True, "train_unfrozen": True, "sanity_seed": 420420,
}  # fmt: skip
