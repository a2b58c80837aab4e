"""diffusers: command lines of train_dreambooth_lora.py and train_dreambooth_lora_sdxl.py."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

from tenuto.formats.command_line import commands
from tenuto.formats.concepts import put_caption, put_placeholder
from tenuto.formats.imported import Draft, Imported, Uncaptioned
from tenuto.formats.option_tables import MIXED
from tenuto.formats.options import AS_RESOLUTION, convert_training
from tenuto.formats.rules import Goes, Rule, apply, carry, reasons
from tenuto.formats.sd_scripts import ONLY_LORAS, OTHER_FAMILY, one_command, say_variables
from tenuto.formats.source import Source, find, written
from tenuto.formats.subsets import Subset
from tenuto.formats.triggers import trigger_of
from tenuto.formats.values import above_zero, at_least_zero, flag, natural, positive, share

NAME = "diffusers"
SCRIPTS = ("train_dreambooth_lora.py", "train_dreambooth_lora_sdxl.py")
OTHERS = reasons({
    ONLY_LORAS: "train_dreambooth.py",
    OTHER_FAMILY: "train_dreambooth_lora_flux.py train_dreambooth_lora_sd3.py train_dreambooth_flux.py "
        "train_dreambooth_sd3.py train_dreambooth_lora_lumina2.py train_dreambooth_lora_sana.py "
        "train_dreambooth_lora_qwen_image.py train_dreambooth_lora_hidream.py train_dreambooth_lora_flux2.py "
        "train_dreambooth_lora_z_image.py train_dreambooth_lora_flux_kontext.py",
})  # fmt: skip
OWN_OPTIONS = frozenset({"instance_data_dir", "instance_prompt", "with_prior_preservation", "class_data_dir"})

RENAMED = {
    "pretrained_vae_model_name_or_path": "vae", "rank": "network_dim", "num_train_epochs": "max_train_epochs",
    "optimizer": "optimizer_type", "lora_dropout": "network_dropout",
}  # fmt: skip
DEFAULTS: dict[str, Any] = {
    "rank": 4,
    "train_batch_size": 4,
    "resolution": 512,
    "learning_rate": 5e-4,
    "lr_scheduler": "constant",
    "lr_warmup_steps": 500,
}
DEFAULTS_XL = DEFAULTS | {"resolution": 1024, "learning_rate": 1e-4}
ARGUMENTS = {
    "adam_weight_decay": "weight_decay",
    "prodigy_use_bias_correction": "use_bias_correction",
    "prodigy_safeguard_warmup": "safeguard_warmup",
}

RULES: dict[str, Rule] = {
    **reasons({
        "about memory, speed or the hub; not about the result":
            "enable_xformers_memory_efficient_attention allow_tf32 dataloader_num_workers local_rank "
            "push_to_hub hub_token hub_model_id report_to logging_dir output_dir cache_dir sample_batch_size "
            "prior_generation_precision pre_compute_text_embeddings variant revision scale_lr output_kohya_format "
            "checkpoints_total_limit resume_from_checkpoint upcast_before_saving bnb_quantization_config_path",
        "tenuto always crops the middle to the picture's own bucket": "center_crop image_interpolation_mode",
        "tenuto reads pictures and captions from a folder":
            "dataset_name dataset_config_name image_column caption_column",
        "previews: tenuto's are training.sample_prompts, and the report": "num_validation_images validation_epochs",
        "tenuto has no such setting, the run does without it": "do_edm_style_training lora_layers",
        "captions of any length are read in passes of 75 tokens":
            "tokenizer_max_length text_encoder_use_attention_mask",
        "tenuto has one rate and decay for all layers": "text_encoder_lr adam_weight_decay_text_encoder",
        "tenuto has no such setting of the optimizer": "adam_epsilon prodigy_beta3 prodigy_decouple",
        "tenuto's schedules are constant, cosine or linear to the end": "lr_num_cycles lr_power",
        "tenuto has no such setting": "class_labels_conditioning tokenizer_name",
    }),
    "repeats": Goes("concepts.0.repeats", positive),
    "random_flip": Goes("data.variation.flip", flag),
    "mixed_precision": MIXED,
    "gradient_checkpointing": Goes("training.gradient_checkpointing", flag),
    "checkpointing_steps": Goes("training.save_every", positive),
    "use_dora": Goes("training.adapter.dora", flag),
    "snr_gamma": Goes("regularizers.snr_weight.gamma", above_zero),
}  # fmt: skip
NEUTRAL: dict[str, Any] = {
    "adam_epsilon": 1e-8,
    "lr_num_cycles": 1,
    "lr_power": 1.0,
    "report_to": "tensorboard",
    "adam_weight_decay_text_encoder": 1e-3,
}


def recognises(source: Source) -> bool:
    if source.kind != "text":
        return False
    found = commands(source.text)
    return any(each.script in (*SCRIPTS, *OTHERS) or len(OWN_OPTIONS & each.options.keys()) > 1 for each in found)


def read(source: Source, extra: Mapping[str, Any], target: Path) -> Imported:
    command = one_command(source, SCRIPTS, OTHERS)
    large = command.script.endswith("_sdxl.py")
    given = {**command.options, **extra}
    options = {**(DEFAULTS_XL if large else DEFAULTS), **given}
    draft = Draft(source.path, NAME)
    draft.names = {ours: theirs for theirs, ours in RENAMED.items()} | AS_RESOLUTION
    draft.defaults = frozenset(RENAMED.get(name, name) for name in options.keys() - given.keys())
    say_variables(draft, given)
    subset = _put_concept(draft, options, source.folder, target)
    count = len(subset.pictures()) if subset else 0
    classes = _put_prior(draft, options, count)
    _put_length(draft, options, count, classes)
    rest = {RENAMED.get(name, name): value for name, value in options.items() if name not in RULES or name in RENAMED}
    others = {name: value for name, value in options.items() if name in RULES and name not in RENAMED}
    if not rest.pop("train_text_encoder", False):
        rest["network_train_unet_only"] = True
    if validation := rest.pop("validation_prompt", None):
        rest["sample_prompts"] = validation
    rest["optimizer_args"] = _arguments(rest)
    convert_training(draft, rest, source.folder, target, parts=("attention",))
    draft.names = {}
    draft.leave(
        "seed", "", "the order of rows and the noise are drawn by other names here: the run is alike, not equal"
    )
    apply(draft, {**rest, **others}, RULES, NEUTRAL)
    return draft.done()


def _arguments(rest: dict[str, Any]) -> dict[str, Any]:
    arguments = {ours: rest.pop(theirs) for theirs, ours in ARGUMENTS.items() if theirs in rest}
    betas = [rest.pop("adam_beta1", 0.9), rest.pop("adam_beta2", 0.999)]
    try:
        if (found := [share(beta) for beta in betas]) != [0.9, 0.999]:
            arguments["betas"] = found
    except ValueError:
        arguments["betas"] = betas
    return arguments


def _put_concept(draft: Draft, options: dict[str, Any], folder: Path, target: Path) -> Subset | None:
    draft.table["concepts"] = []
    place, prompt = options.pop("instance_data_dir", None), options.pop("instance_prompt", None)
    if not isinstance(place, str) or not place:
        put_placeholder(draft)
        return None
    subset = Subset(find(place, folder), written(place, folder, target))
    prompt = prompt if isinstance(prompt, str) else ""
    other = options.get("class_prompt")
    trigger, class_word = trigger_of(prompt, other if isinstance(other, str) else "")
    draft.table["concepts"].append({"name": class_word or subset.name()})
    draft.put("instance_data_dir", "concepts.0.images", subset.written)
    if trigger:
        draft.put("instance_prompt", "concepts.0.trigger", trigger)
        draft.leave(
            "instance_prompt", prompt, f"{trigger!r} is taken for the trigger; mend concepts.trigger if it is another"
        )
    else:
        draft.leave(
            "instance_prompt",
            prompt,
            "no word in it is known to be the trigger: write concepts.trigger, or prior prompts will hold it",
        )
    if class_word:
        draft.put("class_prompt", "concepts.0.class_word", class_word)
    if prompt and not options.get("caption_column"):
        put_caption(draft, "instance_prompt", 0, Uncaptioned(subset.folder, prompt))
        draft.leave(
            "instance_prompt",
            prompt,
            "was the caption of every picture; tenuto reads the one beside each, and takes this where there is none "
            "(concepts.caption); `tenuto import --write-captions` writes it there, to be filled in",
        )
    return subset


def _put_prior(draft: Draft, options: dict[str, Any], count: int) -> int:
    """The prior set; returns how many class images there were."""
    weight, number_ = options.pop("prior_loss_weight", 1.0), options.pop("num_class_images", 100)
    place, prompt = options.pop("class_data_dir", None), options.pop("class_prompt", None)
    if not options.pop("with_prior_preservation", False):
        draft.leave(
            "with_prior_preservation",
            False,
            "no prior there; tenuto makes one of your captions, which is what it "
            "is for: [prior] ratio = 0 turns it off",
        )
        return 0
    carry(
        draft,
        "prior_loss_weight",
        weight,
        Goes("regularizers.prior_preservation.weight", at_least_zero, note="the same sum of two means as here"),
    )
    draft.put("with_prior_preservation", "prior.ratio", 1.0)
    classes = _natural(number_)
    if count and classes:
        draft.put("num_class_images", "prior.per_image", ceil(classes / count))
    else:
        draft.leave(
            "num_class_images",
            number_,
            "a total; tenuto's pool counts per picture, and the pictures are not "
            "here to count: set prior.per_image, or leave it, and each prior image is used five times",
        )
    draft.leave(
        "class_prompt",
        prompt or "",
        "one prompt for all; tenuto asks for each picture's own caption without the trigger, at the picture's own size",
    )
    if place:
        draft.leave(
            "class_data_dir",
            place,
            "made without a record of checkpoint and prompt: tenuto makes its own; to "
            "take these in add [[prior.folders]] with path and caption",
        )
    return classes


def _natural(value: Any) -> int:
    try:
        return natural(value)
    except ValueError:
        return 0


def _put_length(draft: Draft, options: dict[str, Any], count: int, classes: int) -> None:
    """An epoch there was as long as the larger of both folders."""
    if options.get("max_train_steps"):
        epochs = options.pop("num_train_epochs", None)
        if epochs is not None and "max_train_epochs" not in draft.defaults:
            draft.leave("num_train_epochs", epochs, "max_train_steps wins over it there, and here")
        return
    options.pop("max_train_steps", None)
    epochs = _natural(options.get("num_train_epochs", 1)) or 1
    options["num_train_epochs"] = epochs
    if classes and count:
        options["num_train_epochs"] = max(round(epochs * max(count, classes) / count), 1)
        draft.leave(
            "num_train_epochs",
            epochs,
            f"an epoch there was {max(count, classes)} rows, the larger of both "
            f"folders; here it is {count}, so their number is adapted",
        )
    elif classes:
        draft.leave(
            "num_train_epochs",
            epochs,
            "an epoch there was as long as the larger of both folders, which are not "
            "here to count; here it is your own pictures once",
        )
