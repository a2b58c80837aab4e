"""D8 (d8ahazard's sd_dreambooth_extension): concepts_list.json and db_config.json, or the folder of its model."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

from tenuto.families.base import Part
from tenuto.formats.concepts import put_placeholder
from tenuto.formats.imported import Draft, Imported, Uncaptioned, pictures_in
from tenuto.formats.options import AS_RESOLUTION, convert_training
from tenuto.formats.rules import Goes, Rule, apply, carry, reasons
from tenuto.formats.source import Source, find, open_source, written
from tenuto.formats.subsets import Subset, texts, uncaptioned
from tenuto.formats.triggers import FILEWORDS, guess_trigger, trigger_of
from tenuto.formats.values import above_zero, at_least_zero, flag, natural, number, positive, words
from tenuto.words import TenutoError

NAME = "d8"
CONFIG, CONCEPTS = "db_config.json", "concepts_list.json"

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

PREVIEW = (
    "n_save_sample",
    "sample_seed",
    "save_guidance_scale",
    "save_infer_steps",
    "save_sample_prompt",
    "save_sample_negative_prompt",
    "save_sample_template",
    "is_valid",
)
SAMPLER: dict[str, Goes] = {
    "class_guidance_scale": Goes("prior.sampler.guidance", at_least_zero),
    "class_infer_steps": Goes("prior.sampler.steps", positive),
    "class_negative_prompt": Goes("prior.sampler.negative", words, unset=(None, "")),
}
DEAD_WEIGHT = (
    "in this D8 neither the weight nor its schedule reached the loss (SD 1.x, 2.x: unweighted; SDXL: latent channels "
    "were split by mistake), so old results do not show these numbers; here they count as written"
)


def recognises(source: Source) -> bool:
    if source.kind == "folder":
        return (source.path / CONFIG).is_file() or (source.path / CONCEPTS).is_file()
    data = source.data
    if source.kind != "json":
        return False
    if isinstance(data, list):
        return any(
            isinstance(entry, dict) and entry.keys() & {"instance_data_dir", "instance_prompt"} for entry in data
        )
    return isinstance(data, dict) and ("concepts_list" in data or "num_class_images_per" in data or any(
        str(name).startswith("db_") for name in data
    ))  # fmt: skip


def read(source: Source, extra: Mapping[str, Any], target: Path) -> Imported:
    draft = Draft(source.path, NAME)
    config, concepts = _both(draft, source)
    config = {**config, **extra}
    draft.table["concepts"] = []
    for number_, entry in enumerate(concepts):
        _put_concept(draft, entry, number_, source.folder, target)
    if not draft.table["concepts"]:
        if concepts:
            raise TenutoError(f"{source.path}: none of its {len(concepts)} concepts names an instance_data_dir; add it")
        put_placeholder(draft)
    classes = any("prior" in own and own["prior"].get("prompts") == "match" for own in draft.table["concepts"])
    _put_prior(draft, config, classes)
    _put_training(draft, config, source.folder, target)
    return draft.done()


def _both(draft: Draft, source: Source) -> tuple[dict[str, Any], list[Any]]:
    """(config, concepts): given as one file, the other is looked for beside it; in a folder both are."""
    config: dict[str, Any] = {}
    concepts: Any = None
    for data in (source.data, *_beside(draft, source)):
        if isinstance(data, list) and concepts is None:
            concepts = data
        elif isinstance(data, dict) and "instance_data_dir" in data and concepts is None:
            concepts = [data]
        elif isinstance(data, dict) and not config:
            config = {str(name).removeprefix("db_"): value for name, value in data.items()}
    inline = config.pop("concepts_list", None)
    return config, concepts if concepts is not None else inline if isinstance(inline, list) else []


def _beside(draft: Draft, source: Source) -> list[Any]:
    """D8's other files in the same folder."""
    found = []
    for name in (CONFIG, CONCEPTS):
        path = source.folder / name
        if (
            path.is_file()
            and path != source.path
            and (source.kind == "folder" or source.path.name in (CONFIG, CONCEPTS))
        ):
            found.append(open_source(path).data)
            draft.leave("the file", name, "lies beside it and was read too")
    return found


# -- Concepts ---------------------------------------------------------------------------------------------------------


def _text(table: Mapping[str, Any], name: str) -> str:
    value = table.get(name)
    return value.strip() if isinstance(value, str) else ""


def _put_concept(draft: Draft, entry: Any, number_: int, folder: Path, target: Path) -> None:
    if not isinstance(entry, dict) or not _text(entry, "instance_data_dir"):
        draft.leave(
            f"concept {number_ + 1}",
            entry,
            "names no instance_data_dir: D8 dropped it without a word; so it is left out, and said",
        )
        return
    place = _text(entry, "instance_data_dir")
    subset = Subset(find(place, folder), written(place, folder, target))
    at = len(draft.table["concepts"])
    taken = {own["name"] for own in draft.table["concepts"]}
    name = _text(entry, "class_token") or _text(entry, "instance_token") or subset.name()
    name = name.replace("/", " ").replace("\\", " ")
    name = name if name not in taken else f"{name} {at + 1}"
    draft.table["concepts"].append({"name": name})
    draft.put("instance_data_dir", f"concepts.{at}.images", subset.written)
    _put_tokens(draft, entry, at, subset)
    _say_instance_prompt(draft, entry, subset)
    _put_pool(draft, entry, at, subset)
    _say_class_folder(draft, entry, folder)
    for key in PREVIEW:
        if key in entry:
            draft.leave(key, entry[key], "previews: tenuto's are training.sample_prompts, and the report")
    known = {
        *PREVIEW,
        *SAMPLER,
        "instance_data_dir",
        "class_data_dir",
        "instance_prompt",
        "class_prompt",
        "instance_token",
        "class_token",
        "num_class_images_per",
        "num_class_images",
    }
    apply(draft, {str(key): value for key, value in entry.items() if key not in known}, {})


def _put_tokens(draft: Draft, entry: Mapping[str, Any], at: int, subset: Subset) -> None:
    token, class_token = _text(entry, "instance_token"), _text(entry, "class_token")
    if token:
        draft.put("instance_token", f"concepts.{at}.trigger", token)
        if class_token:
            draft.put("class_token", f"concepts.{at}.class_word", class_token)
        else:
            draft.leave(
                "class_token",
                "",
                "empty: D8 then left the trigger in every class prompt, which un-teaches the "
                "concept; tenuto always takes it out",
            )
        return
    trigger, class_word = trigger_of(_text(entry, "instance_prompt"), _text(entry, "class_prompt"))
    if not trigger:
        trigger, class_word = guess_trigger("", texts(subset))
    if not trigger:
        draft.leave(
            "instance_token",
            "",
            "empty, and the prompts do not tell: write concepts.trigger, or prior prompts will hold it",
        )
        return
    draft.put("instance_prompt", f"concepts.{at}.trigger", trigger)
    if class_word or class_token:
        draft.put("class_prompt", f"concepts.{at}.class_word", class_token or class_word)
    draft.leave(
        "instance_prompt",
        _text(entry, "instance_prompt"),
        f"{trigger!r} is taken for the trigger: the class prompt lacks it; mend concepts.trigger if it is another",
    )


def _say_instance_prompt(draft: Draft, entry: Mapping[str, Any], subset: Subset) -> None:
    prompt = _text(entry, "instance_prompt")
    lacking = uncaptioned(subset)
    if prompt and prompt != FILEWORDS:
        draft.leave("instance_prompt", prompt, "tenuto reads the caption beside each picture as it is and adds nothing")
    if not lacking:
        return
    if FILEWORDS in prompt:
        draft.leave(
            "instance_prompt",
            prompt,
            f"{lacking} pictures have no .txt: D8 took the name of the file; tenuto "
            "wants a caption beside each picture",
        )
    elif prompt:
        draft.leave(
            "instance_prompt",
            prompt,
            f"was the caption of {lacking} pictures without one: `tenuto import "
            "--write-captions` writes it beside them",
        )
        draft.uncaptioned.append(Uncaptioned(subset.folder, prompt))


def _put_pool(draft: Draft, entry: Mapping[str, Any], at: int, subset: Subset) -> None:
    """The pool: class images per instance image."""
    count = len(pictures_in(subset.folder))
    total = _read(entry.get("num_class_images"), natural)
    per_image = _read(entry.get("num_class_images_per"), natural)
    if not per_image and total:
        draft.leave(
            "num_class_images",
            total,
            "a total, which D8 does not read any more; here a pool per picture"
            + ("" if count else ": set concepts.prior.per_image"),
        )
        per_image = ceil(total / count) if count else None
    if not per_image:
        draft.put("num_class_images_per", f"concepts.{at}.prior.prompts", "none")
        return
    draft.put("num_class_images_per", f"concepts.{at}.prior.per_image", per_image)
    draft.put("class_prompt", f"concepts.{at}.prior.prompts", "match")
    prompt = _text(entry, "class_prompt")
    if FILEWORDS not in prompt:
        draft.leave(
            "class_prompt",
            prompt,
            "one prompt for all class images; tenuto asks for each picture's own caption "
            'without the trigger (prior.prompts = "own" takes a file of yours)',
        )
    elif prompt != FILEWORDS:
        draft.leave("class_prompt", prompt, "tenuto asks for the caption without the trigger, and puts nothing else in")
    for name, rule in SAMPLER.items():
        _put_sampler(draft, name, entry.get(name), rule)


def _put_sampler(draft: Draft, name: str, value: Any, rule: Goes) -> None:
    """One sampler for all prior images: the first concept's."""
    known = draft.table.get("prior", {}).get("sampler", {})
    field = rule.ours.rsplit(".", 1)[1]
    if field in known and value not in (None, "", known[field]):
        draft.leave(name, value, f"of this concept alone; tenuto samples all prior images alike, here {known[field]}")
    elif field not in known and value is not None:
        carry(draft, name, value, rule)


def _say_class_folder(draft: Draft, entry: Mapping[str, Any], folder: Path) -> None:
    place = _text(entry, "class_data_dir")
    if place:
        count = len(pictures_in(find(place, folder)))
        draft.leave(
            "class_data_dir",
            place,
            f"{count} pictures; which checkpoint made them is not recorded, it may have "
            "been the half-trained one: tenuto makes its own on your base. To take them in all the same, add "
            "[[prior.folders]] with path, and concept",
        )


def _read(value: Any, read: Any) -> Any:
    try:
        return read(value) if value not in (None, "") else None
    except ValueError:
        return None


# -- Training ---------------------------------------------------------------------------------------------------------


def _put_prior(draft: Draft, config: dict[str, Any], classes: bool) -> None:
    """D8's three numbers: weight, the epoch at which the minimum is reached, minimum."""
    weight, scaled = config.pop("prior_loss_weight", 0.75), config.pop("prior_loss_scale", False)
    target, least = config.pop("prior_loss_target", 100), config.pop("prior_loss_weight_min", 0.1)
    if not classes and any("trigger" in own or "prior" in own for own in draft.table["concepts"]):
        draft.leave(
            "num_class_images_per",
            0,
            "no class images were asked for, and none are made; set "
            "concepts.prior.per_image and prompts for a prior set",
        )
        return
    ours = "regularizers.prior_preservation"
    carry(draft, "prior_loss_weight", weight, Goes(f"{ours}.weight", at_least_zero, note=DEAD_WEIGHT))
    draft.put("class images", "prior.ratio", 1.0)
    if _read(scaled, flag):
        draft.put("prior_loss_scale", f"{ours}.schedule.shape", "linear")
        carry(draft, "prior_loss_target", target or 150, Goes(f"{ours}.schedule.until_epoch", above_zero))
        carry(draft, "prior_loss_weight_min", least, Goes(f"{ours}.schedule.minimum", at_least_zero))
        if _read(least, number) == 0:
            draft.leave("prior_loss_weight_min", 0, "D8 took 0.1 where 0 was written; here 0 is a value")
    draft.leave("backslashes in class prompts", "", r"D8 deleted every one, so \( lost its meaning; tenuto keeps them")


def _put_training(draft: Draft, config: dict[str, Any], folder: Path, target: Path) -> None:
    lora = _read(config.pop("use_lora", None), flag)
    extended = _read(config.get("use_lora_extended"), flag)
    if config and not lora:
        draft.leave(
            "use_lora",
            False,
            "a full fine-tune there, and tenuto trains LoRAs: rank and learning rate are tenuto's own",
        )
        config.pop("lora_unet_rank", None)
    rest = {RENAMED[name]: config.pop(name) for name in list(config) if name in RENAMED}
    rest |= {name: config.pop(name) for name in SAME if name in config}
    if lora and "lora_learning_rate" in config:
        rest["learning_rate"] = config.pop("lora_learning_rate")
    elif not lora:
        config.pop("lora_learning_rate", None)
    if "optimizer_type" in rest:
        rest["optimizer_type"] = _optimizer(str(rest["optimizer_type"]))
    if "weight_decay" in config:
        rest["optimizer_args"] = {"weight_decay": config.pop("weight_decay")}
    rest |= {"enable_bucket": True, "min_bucket_reso": 0, "bucket_no_upscale": False}
    if not _read(config.get("stop_text_encoder", 1.0), number) and "network_dim" in rest:
        rest["network_train_unet_only"] = True
    if _read(config.pop("shuffle_tags", None), flag):
        draft.put("shuffle_tags", "data.variation.shuffle", True)
        draft.put("shuffle_tags", "data.variation.keep_tokens", 1)
        draft.leave("shuffle_tags", True, "also shuffled class captions; in tenuto prior rows never vary")
    draft.names = {ours: theirs for theirs, ours in RENAMED.items()} | AS_RESOLUTION
    draft.names["learning_rate"] = "lora_learning_rate"
    extras: tuple[Part, ...] = ("convolution",) if extended else ()
    config.pop("use_lora_extended", None)
    convert_training(draft, rest, folder, target, parts=("attention", "feed_forward", *extras))
    draft.names = {}
    apply(draft, {**rest, **config}, {**LEFT, **CARRIED}, NEUTRAL)


def _optimizer(name: str) -> str:
    """ "8bit AdamW", "8Bit Adam", "Torch AdamW" -> the names of sd-scripts."""
    short = name.lower().replace(" ", "").replace("torch", "")
    return "AdamW8bit" if short in ("8bitadamw", "8bitadam") else "AdamW" if short == "adamw" else name
