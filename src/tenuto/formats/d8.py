"""D8 (d8ahazard's sd_dreambooth_extension): concepts_list.json and db_config.json, or the folder of its model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tenuto.families.base import Part
from tenuto.formats.concepts import put_placeholder
from tenuto.formats.d8_concepts import put_concept
from tenuto.formats.d8_tables import CARRIED, LEFT, NEUTRAL, RENAMED, SAME
from tenuto.formats.imported import Draft, Imported
from tenuto.formats.options import AS_RESOLUTION, convert_training
from tenuto.formats.rules import Goes, apply, carry
from tenuto.formats.source import Source, open_source
from tenuto.formats.values import above_zero, at_least_zero, flag, number, read_or_none
from tenuto.words import TenutoError

NAME = "d8"
CONFIG, CONCEPTS = FILES = ("db_config.json", "concepts_list.json")
"""What is read out of the folder of a model."""

PRIOR = ("prior_loss_weight", "prior_loss_scale", "prior_loss_target", "prior_loss_weight_min")
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
    if isinstance(source.data, dict) and all(isinstance(value, dict) for value in source.data.values()):
        raise TenutoError(
            f"{source.path}: titles or sliders of D8's interface, no training; give a model's {CONFIG}, or its folder"
        )
    draft = Draft(source.path, NAME)
    config, concepts = _both(draft, source)
    config = {**config, **extra}
    draft.table["concepts"] = []
    for number_, entry in enumerate(concepts):
        put_concept(draft, entry, number_, source.folder, target)
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
    for name in FILES:
        path = source.beside / name
        if path.is_file() and path != source.path and (source.kind == "folder" or source.path.name in FILES):
            found.append(open_source(path).data)
            draft.leave("the file", name, "lies beside it and was read too")
    return found


# -- Training ---------------------------------------------------------------------------------------------------------


def _put_prior(draft: Draft, config: dict[str, Any], classes: bool) -> None:
    """D8's three numbers: weight, the epoch at which the minimum is reached, minimum."""
    given = {name: config.pop(name) for name in PRIOR if name in config}
    if not classes and any("trigger" in own or "prior" in own for own in draft.table["concepts"]):
        draft.leave(
            "num_class_images_per",
            0,
            "no class images were asked for, and none are made; set "
            "concepts.prior.per_image and prompts for a prior set",
        )
        draft.leave_all(given, "without class images it did nothing")
        return
    ours = "regularizers.prior_preservation"
    weight = given.pop("prior_loss_weight", 0.75)
    carry(draft, "prior_loss_weight", weight, Goes(f"{ours}.weight", at_least_zero, note=DEAD_WEIGHT))
    draft.put("class images", "prior.ratio", 1.0)
    if read_or_none(given.get("prior_loss_scale", False), flag):
        target, least = given.get("prior_loss_target", 100), given.get("prior_loss_weight_min", 0.1)
        draft.put("prior_loss_scale", f"{ours}.schedule.shape", "linear")
        carry(draft, "prior_loss_target", target or 150, Goes(f"{ours}.schedule.until_epoch", above_zero))
        carry(draft, "prior_loss_weight_min", least, Goes(f"{ours}.schedule.minimum", at_least_zero))
        if read_or_none(least, number) == 0:
            draft.leave("prior_loss_weight_min", 0, "D8 took 0.1 where 0 was written; here 0 is a value")
    else:
        draft.leave_all(given, "the schedule was off: the weight stays as it is")
    draft.leave("backslashes in class prompts", "", r"D8 deleted every one, so \( lost its meaning; tenuto keeps them")


def _put_training(draft: Draft, config: dict[str, Any], folder: Path, target: Path) -> None:
    lora = read_or_none(config.pop("use_lora", None), flag)
    extended = read_or_none(config.get("use_lora_extended"), flag)
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
    if not read_or_none(config.get("stop_text_encoder", 1.0), number) and "network_dim" in rest:
        rest["network_train_unet_only"] = True
    if read_or_none(config.pop("shuffle_tags", None), flag):
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
