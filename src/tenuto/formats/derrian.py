"""Derrian's LoRA_Easy_Training_Scripts: the TOML file that its interface saves, sections of sd-scripts' options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tenuto.formats.imported import Draft, Imported
from tenuto.formats.options import convert
from tenuto.formats.source import Source, find, is_absolute, written
from tenuto.formats.subsets import Subset, extension_of
from tenuto.formats.values import flag, literal, natural, number
from tenuto.words import TenutoError

NAME = "derrian"
PLACEHOLDER = "${replace}"
OWN = {"image_dir", "num_repeats", "is_reg", "name", "caption_extension"}
DATASET_NAMES = {"batch_size": "train_batch_size"}
OTHER_FAMILIES = ("flux_args", "anima_args")
DROPPED = {"prior_loss_weight": 1.0, "max_grad_norm": 1.0, "network_alpha": 1.0}


def recognises(source: Source) -> bool:
    data = source.data
    return source.kind == "toml" and isinstance(data, dict) and ("train_mode" in data or bool(_sections(data)))


def _sections(data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: table
        for name, table in data.items()
        if name.endswith("_args") and isinstance(table, dict) and ("args" in table or "dataset_args" in table)
    }


def read(source: Source, extra: Mapping[str, Any], target: Path) -> Imported:
    data = source.data
    if not isinstance(data, dict) or not (recognises(source) or "subsets" in data):
        raise TenutoError(f"{source.path}: no file of Derrian's scripts: it has sections such as [general_args.args]")
    _refuse_other_modes(source, data)
    draft = Draft(source.path, NAME)
    if source.repaired:
        draft.leave("the file", source.path.name, source.repaired)
    options = {**_options(data), **extra}
    _say_dropped_zeros(draft, options)
    _say_warmup(draft, options)
    options["network_module"], arguments = _network(options.pop("fa", False), options.pop("network_args", {}))
    options["network_args"] = arguments
    _start_weights(draft, options)
    if replaced := options.get("easy_name"):
        options = {k: v.replace(PLACEHOLDER, str(replaced)) if isinstance(v, str) else v for k, v in options.items()}
    subsets = _subsets(draft, source, data.get("subsets", []), target)
    first = next((subset.settings for subset in subsets if not subset.is_reg), {})
    convert(draft, {**options, **first}, subsets, source.folder, target)
    return draft.done()


def _refuse_other_modes(source: Source, data: Mapping[str, Any]) -> None:
    mode = data.get("train_mode", {})
    mode = mode.get("train_mode", "lora") if isinstance(mode, dict) else mode
    if mode != "lora":
        raise TenutoError(f"{source.path}: train_mode is {mode!r}, and tenuto trains LoRAs; save it in LoRA mode")
    for name in OTHER_FAMILIES:
        if data.get(name, {}) not in ({}, {"args": {}}):
            raise TenutoError(f"{source.path}: [{name}] is filled, and tenuto cannot train that family yet; empty it")


def _options(data: Mapping[str, Any]) -> dict[str, Any]:
    """All sections together; what belongs to the dataset under the trainer's name."""
    options: dict[str, Any] = {}
    for name, section in _sections(data).items():
        args, dataset = section.get("args", {}), section.get("dataset_args", {})
        found = {**(args if isinstance(args, dict) else {}), **(dataset if isinstance(dataset, dict) else {})}
        if name == "extra_args":
            found = {key: literal(value) for key, value in found.items()}
        options |= {DATASET_NAMES.get(key, key): value for key, value in found.items()}
    return options


def _say_dropped_zeros(draft: Draft, options: Mapping[str, Any]) -> None:
    for name, used in DROPPED.items():
        if options.get(name) == 0 and not isinstance(options[name], bool):
            draft.leave(
                name,
                options[name],
                f"these scripts drop zeros: it trained with {used:g}; here 0 is a value, and "
                "is carried as it is written",
            )


def _say_warmup(draft: Draft, options: dict[str, Any]) -> None:
    ratio = options.pop("warmup_ratio", None)
    try:
        share = number(ratio) if ratio is not None else 0.0
    except ValueError:
        share = 0.0
    if share > 0:
        options["lr_warmup_steps"] = share if share < 1 else int(share)
        draft.names["lr_warmup_steps"] = "warmup_ratio"
        draft.leave(
            "warmup_ratio",
            ratio,
            "these scripts counted all reg pictures in, used or not, so the warm-up was "
            "longer than asked for; the share is carried",
        )


def _network(fa: Any, arguments: Any) -> tuple[str, dict[str, Any]]:
    """The network module that these arguments meant."""
    found = dict(arguments) if isinstance(arguments, dict) else {}
    if fa is True:
        return "networks.lora_fa", found
    if "algo" in found:
        return "lycoris.kohya", found
    return ("networks.dylora" if "unit" in found else "networks.lora"), found


def _start_weights(draft: Draft, options: dict[str, Any]) -> None:
    """`dim_from_weights` is a path here."""
    if isinstance(path := options.get("dim_from_weights"), str) and path:
        options.pop("dim_from_weights")
        draft.leave("dim_from_weights", path, "took the rank from that file: set training.adapter.rank to the same")


def _subsets(draft: Draft, source: Source, tables: Any, target: Path) -> list[Subset]:
    found = []
    for table in tables if isinstance(tables, list) else [tables]:
        if not isinstance(table, dict):
            raise TenutoError(f"{source.path}: subsets holds {table!r}, not a table; save the file again")
        if (subset := _subset(draft, source, table, target)) is not None:
            found.append(subset)
    return found


def _subset(draft: Draft, source: Source, table: Mapping[str, Any], target: Path) -> Subset | None:
    place = table.get("image_dir")
    if not isinstance(place, str) or not place.strip():
        draft.leave("image_dir", place if place is not None else "", "a subset without a folder: left out")
        return None
    settings = {name: value for name, value in table.items() if name not in OWN}
    return Subset(
        find(place, source.folder),
        place if is_absolute(place) else written(place, source.folder, target),
        max(draft.read_or("num_repeats", table.get("num_repeats", 1), natural, 1), 1),
        None,
        bool(draft.read_or("is_reg", table.get("is_reg", False), flag, False)),
        extension=extension_of(table.get("caption_extension")),
        settings=settings,
    )
