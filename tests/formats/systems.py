"""Small configs, each written by hand in the manner of a system, with the pictures that they speak of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image


def pictures(folder: Path, count: int, caption: str | None = None) -> Path:
    """A folder of small pictures, captioned or not."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.effect_noise((64, 64), 20 + i).convert("RGB").save(folder / f"{i:03}.png")
        if caption is not None:
            (folder / f"{i:03}.txt").write_text(caption.format(i), encoding="utf-8")
    return folder


def sets(folder: Path) -> None:
    """train/10_sks dog (4 captioned pictures) and reg/1_dog (60 without captions)."""
    pictures(folder / "train" / "10_sks dog", 4, "sks dog, park {}")
    pictures(folder / "reg" / "1_dog", 60)


COMMAND = r"""#!/bin/sh
# a comment with train_network.py in it
export MODEL="owner/checkpoint"
accelerate launch --num_cpu_threads_per_process=2 train_network.py \
  --pretrained_model_name_or_path=$MODEL --train_data_dir train --reg_data_dir="reg" \
  --network_module=networks.lora --network_dim=16 --network_alpha=8 --resolution="512,640" --enable_bucket \
  --prior_loss_weight=0.5 --max_train_steps=1000 --train_batch_size 2 --caption_extension=.txt \
  --learning_rate 1e-4 --text_encoder_lr 5e-5 --optimizer_type AdamW8bit \
  --optimizer_args weight_decay=0.1 "betas=0.9,0.99" --lr_scheduler cosine --lr_warmup_steps=0.1 \
  --caption_prefix "sks" --shuffle_caption --keep_tokens 1 --seed 7 --min_snr_gamma 5 --wandb_api_key s3cret
"""
WINDOWS = (
    "set MODEL=E:\\models\\nai.safetensors\r\naccelerate launch train_network.py ^\r\n"
    '  --pretrained_model_name_or_path="%MODEL%" --train_data_dir=train --network_dim=8 ^\r\n'
    "  --max_train_epochs=3 --learning_rate=1e-4 --caption_extension=.txt\r\n"
)
DATASET = """
[general]
caption_extension = ".txt"
enable_bucket = true
shuffle_caption = true
[[datasets]]
resolution = 768
batch_size = 2
  [[datasets.subsets]]
  image_dir = "train/10_sks dog"
  num_repeats = 10
  keep_tokens = 1
  [[datasets.subsets]]
  image_dir = 'reg\\1_dog'
  is_reg = true
  class_tokens = "dog"
"""
OPTIONS = """
[model]
pretrained_model_name_or_path = "owner/checkpoint"
[training]
network_dim = 8
network_alpha = 0
learning_rate = 1e-4
unet_lr = 2e-4
text_encoder_lr = 0
max_train_epochs = 4
max_grad_norm = 0
train_data_dir = "train"
caption_extension = ".txt"
prior_loss_weight = 0.1
network_args = ["conv_dim=4", "conv_alpha=1"]
"""
KOHYA_SS: dict[str, Any] = {
    "LoRA_type": "Standard", "pretrained_model_name_or_path": "owner/checkpoint", "train_data_dir": "./train",
    "reg_data_dir": "./reg", "max_resolution": "512,512", "train_batch_size": "2", "epoch": 5, "max_train_steps": "",
    "max_train_epochs": 0, "network_dim": 32, "network_alpha": 16.0, "conv_dim": 8, "optimizer": "AdamW8bit",
    "learning_rate": 0.0001, "unet_lr": 0.0001, "text_encoder_lr": 0, "lr_scheduler": "cosine", "lr_warmup": 10,
    "prior_loss_weight": 0, "max_grad_norm": 0, "seed": "", "caption_extension": ".txt", "xformers": "xformers",
    "noise_offset_type": "Multires", "noise_offset": 0.05, "multires_noise_iterations": 6, "keep_tokens": "1",
    "shuffle_caption": True, "min_snr_gamma": 5, "wandb_api_key": "s3cret", "t5xxl": "", "hunyuan_vae": "",
    "additional_parameters": "--caption_tag_dropout_rate=0.1 --zero_terminal_snr", "bucket_no_upscale": True,
    "enable_bucket": True, "mixed_precision": "bf16", "clip_skip": 2, "save_precision": "fp16",
}  # fmt: skip
DERRIAN = """
[[subsets]]
image_dir = "train/10_sks dog"
num_repeats = 10
caption_extension = ".txt"
shuffle_caption = true
name = "subset 1"
[[subsets]]
image_dir = "reg/1_dog"
num_repeats = 2
is_reg = true
caption_extension = ".txt"
[train_mode]
train_mode = "lora"
[general_args.args]
pretrained_model_name_or_path = "owner/checkpoint"
prior_loss_weight = 0.5
max_train_epochs = 10
seed = 23
clip_skip = 2
[general_args.dataset_args]
resolution = 512
batch_size = 2
[network_args.args]
network_dim = 32
network_alpha = 16.0
[network_args.args.network_args]
[optimizer_args.args]
optimizer_type = "AdamW"
learning_rate = 0.0001
lr_scheduler = "cosine"
warmup_ratio = 0.05
[optimizer_args.args.optimizer_args]
weight_decay = "0.1"
betas = "0.9,0.99"
[saving_args.args]
easy_name = "dog"
output_name = "${replace}-v1"
[bucket_args.dataset_args]
enable_bucket = true
[noise_args]
"""
D8_CONCEPTS = [
    {
        "instance_data_dir": "train/10_sks dog", "class_data_dir": "reg/1_dog", "instance_prompt": "[filewords]",
        "class_prompt": "[filewords]", "instance_token": "sks", "class_token": "dog", "num_class_images_per": 50,
        "class_guidance_scale": 7.5, "class_infer_steps": 40, "class_negative_prompt": "blurry", "n_save_sample": 1,
    },
    {"instance_data_dir": "", "instance_prompt": "nothing"},
]  # fmt: skip
D8_CONFIG = {
    "db_src": "owner/checkpoint", "use_lora": True, "lora_unet_rank": 16, "lora_learning_rate": 1e-4,
    "lora_txt_learning_rate": 5e-5, "prior_loss_weight": 0.75, "prior_loss_scale": True, "prior_loss_target": 60,
    "prior_loss_weight_min": 0.2, "num_train_epochs": 50, "train_batch_size": 2, "optimizer": "8bit AdamW",
    "resolution": 512, "shuffle_tags": True, "lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 20,
    "clip_skip": 2, "use_shared_src": [False], "offset_noise": 0, "mixed_precision": "fp16",
}  # fmt: skip
DIFFUSERS = """
export MODEL_NAME="owner/checkpoint"
export INSTANCE_DIR="train/10_sks dog"
accelerate launch train_dreambooth_lora.py \\
  --pretrained_model_name_or_path=$MODEL_NAME --instance_data_dir="$INSTANCE_DIR" --class_data_dir="reg/1_dog" \\
  --instance_prompt="a photo of sks dog" --class_prompt="a photo of dog" --with_prior_preservation \\
  --prior_loss_weight=0.8 --num_class_images=200 --resolution=512 --train_batch_size=1 \\
  --gradient_accumulation_steps=2 --rank=8 --learning_rate=1e-4 --num_train_epochs=3 --lr_scheduler="constant" \\
  --lr_warmup_steps=0 --seed=0 --validation_prompt="a sks dog in a bucket" --push_to_hub
"""


def write_all(folder: Path) -> dict[str, Path]:
    """Every config beside the pictures: name -> file."""
    sets(folder)
    contents = {
        "run.sh": COMMAND, "run.bat": WINDOWS, "dataset.toml": DATASET, "options.toml": OPTIONS,
        "kohya.json": json.dumps(KOHYA_SS), "derrian.toml": DERRIAN, "concepts_list.json": json.dumps(D8_CONCEPTS),
        "db_config.json": json.dumps(D8_CONFIG), "diffusers.sh": DIFFUSERS,
    }  # fmt: skip
    for name, text in contents.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    return {name: folder / name for name in contents}
