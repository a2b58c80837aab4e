"""sd-scripts (Kohya): folders, dataset configs, option files and command lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tenuto.formats.command_line import USED, Command, commands
from tenuto.formats.imported import Draft, Imported
from tenuto.formats.options import convert
from tenuto.formats.rules import reasons
from tenuto.formats.source import Source, find, is_there, open_source, written
from tenuto.formats.subsets import PREFIXED, REG_NAMES, Subset, extension_of, layout, other_level, subfolders
from tenuto.formats.values import flag, natural, read_or_none
from tenuto.words import TenutoError

NAME = "sd-scripts"
TRAINERS = ("train_network.py", "sdxl_train_network.py")
ONLY_LORAS = "trains a whole checkpoint, and tenuto trains LoRAs: give the options of a LoRA training"
OTHER_FAMILY = "trains a family that tenuto cannot train yet: it trains SD 1.x, SD 2.x and SDXL"
OTHERS = reasons({
    ONLY_LORAS: "train_db.py fine_tune.py sdxl_train.py",
    OTHER_FAMILY: "flux_train_network.py sd3_train_network.py lumina_train_network.py anima_train_network.py "
        "hunyuan_image_train_network.py",
    "trains an embedding, and tenuto trains LoRAs": "train_textual_inversion.py sdxl_train_textual_inversion.py",
})  # fmt: skip
"""Scripts that are refused, and why."""
TYPICAL = frozenset(
    {
        "pretrained_model_name_or_path",
        "train_data_dir",
        "network_dim",
        "network_module",
        "dataset_config",
        "max_train_steps",
        "max_train_epochs",
        "train_batch_size",
        "unet_lr",
    }
)
TRAIN_NAMES = ("train", "img", "image", "images", "instance", "train_data", "data", "dataset")
DATASET_NAMES = {"batch_size": "train_batch_size"}
"""Names of the dataset config that options have otherwise."""
OWN = {"image_dir", "is_reg", "class_tokens", "num_repeats", "metadata_file", "subsets"}


def recognises(source: Source) -> bool:
    if source.kind == "folder":
        named = PREFIXED.fullmatch(source.path.resolve().name)
        return bool(named or subfolders(source.path)) or any(subfolders(child) for child in _folders(source.path))
    if source.kind == "text":
        return any(each.script in (*TRAINERS, *OTHERS) or _typical(each.options) for each in commands(source.text))
    if not isinstance(source.data, dict):
        return False
    return isinstance(source.data.get("datasets"), list) or (source.kind == "toml" and _typical(flat(source.data)))


def _typical(options: Mapping[str, Any]) -> bool:
    return len(TYPICAL & options.keys()) >= 2


def read(source: Source, extra: Mapping[str, Any], target: Path) -> Imported:
    """`extra`: options from the command line, which win over those of the file."""
    draft = Draft(source.path, NAME)
    if source.repaired:
        draft.leave("the file", source.path.name, source.repaired)
    if source.kind == "folder":
        options = {**_layout_of(source.path), **extra}
    elif source.kind == "text":
        options = {**_options(one_command(source, TRAINERS, OTHERS)), **extra}
        say_variables(draft, options)
    elif isinstance(source.data, dict) and isinstance(source.data.get("datasets"), list):
        options = {**extra, "dataset_config": str(source.path.resolve())}
    elif isinstance(source.data, dict):
        options = {**flat(source.data), **extra}
    else:
        raise TenutoError(
            f"{source.path}: no config of sd-scripts; give its dataset config, option file or command line"
        )
    convert_options(draft, options, source.folder, target)
    return draft.done()


def _options(command: Command) -> dict[str, Any]:
    options = dict(command.options)
    if command.script.startswith("sdxl_"):
        options["sdxl"] = True
    return options


def one_command(source: Source, scripts: Sequence[str], others: Mapping[str, str]) -> Command:
    """The call of a trainer in a script. Raises TenutoError when there is none, or several.

    others: scripts that are refused -> why.
    """
    calls = commands(source.text)
    named = [each for each in calls if each.script]
    found = [each for each in named if each.script in scripts] if named else calls
    if not found and (other := next((each.script for each in named if each.script in others), None)):
        raise TenutoError(f"{source.path}: {other} {others[other]}")
    if not found:
        raise TenutoError(f"{source.path}: no call of {scripts[0]} in it; give the command line or the config")
    if len(found) > 1:
        raise TenutoError(f"{source.path}: {len(found)} training commands in it; leave one, or give one per file")
    return found[0]


def say_variables(draft: Draft, options: Mapping[str, Any]) -> None:
    """Variables that are set elsewhere cannot be filled in."""
    for name, value in options.items():
        if isinstance(value, str) and USED.search(value):
            draft.leave(
                name, value, "holds a variable that this file does not set: write its value into the project file"
            )


def flat(data: Mapping[str, Any]) -> dict[str, Any]:
    """An option file: sections only group options, and the later of two wins."""
    options: dict[str, Any] = {}
    for name, value in data.items():
        options |= value if isinstance(value, dict) else {name: value}
    return {str(name): value for name, value in options.items()}


def _folders(parent: Path) -> list[Path]:
    try:
        return sorted(path for path in parent.iterdir() if path.is_dir())
    except OSError:
        return []


def _layout_of(folder: Path) -> dict[str, Any]:
    """train_data_dir and reg_data_dir of a folder that holds N_text folders, or folders of those."""
    if subfolders(folder):
        return {"train_data_dir": ".", "caption_extension": ".txt", "enable_bucket": True}
    inner = [path for path in _folders(folder) if subfolders(path)]
    reg = [path for path in inner if path.name.lower() in REG_NAMES]
    if not inner:
        raise TenutoError(f"{folder}: no folder in it is called like '10_sks dog'; {other_level(folder)}")
    train = [path for path in inner if path not in reg]
    train = [path for path in train if path.name.lower() in TRAIN_NAMES] or train
    if len(train) != 1 or len(reg) > 1:
        names = ", ".join(path.name for path in inner)
        raise TenutoError(
            f"{folder}: one folder of 'N_text' folders was looked for, found {names}; give the training folder itself"
        )
    options: dict[str, Any] = {"train_data_dir": train[0].name, "caption_extension": ".txt", "enable_bucket": True}
    return options | ({"reg_data_dir": reg[0].name} if reg else {})


def convert_options(draft: Draft, options: dict[str, Any], folder: Path, target: Path) -> None:
    """Options with the files that they name (--config_file, --dataset_config) into the draft."""
    options = {name.replace("-", "_"): value for name, value in options.items()}
    if isinstance(file := options.pop("config_file", None), str) and file:
        more = open_source(_with_ending(find(file, folder)))
        if not isinstance(more.data, dict):
            raise TenutoError(f"{more.path}: no option file; it is a TOML file of option = value")
        options = {**flat(more.data), **options}
    extension = extension_of(options.get("caption_extension"), options.get("caption_extention"))
    if isinstance(file := options.pop("dataset_config", None), str) and file:
        for name in ("train_data_dir", "reg_data_dir", "in_json"):
            if options.pop(name, None):
                draft.leave(name, "", "a dataset config was given, so it was ignored there, and is here")
        subsets, settings = _datasets(draft, find(file, folder), options, target)
        options = {**options, **settings}
    else:
        subsets = _from_folders(draft, options, extension, folder, target)
    convert(draft, options, subsets, folder, target)


def _with_ending(path: Path) -> Path:
    return path if path.suffix in (".toml", ".json") else path.with_name(path.name + ".toml")


def _from_folders(draft: Draft, options: dict[str, Any], extension: str, folder: Path, target: Path) -> list[Subset]:
    subsets: list[Subset] = []
    if options.pop("in_json", None):
        draft.leave("in_json", "", "fine-tuning metadata: tenuto reads captions beside the pictures")
    for name, is_reg in (("train_data_dir", False), ("reg_data_dir", True)):
        text = options.pop(name, None)
        if isinstance(text, str) and text.strip():
            place = find(text.strip(), folder)
            subsets += layout(draft, name, place, written(text.strip(), folder, target), is_reg, extension)
    return subsets


# -- Dataset config ---------------------------------------------------------------------------------------------------


def _datasets(
    draft: Draft, path: Path, options: Mapping[str, Any], target: Path
) -> tuple[list[Subset], dict[str, Any]]:
    """The subsets of a dataset config, and the settings of the first one that tenuto has once for all.

    A value is looked up in the subset, its dataset, [general], then the options.
    """
    if not is_there(path):
        draft.leave("dataset_config", str(path), "not on this machine, so the pictures are not known")
        return [], {}
    source = open_source(path)
    if not isinstance(source.data, dict) or not isinstance(source.data.get("datasets"), list):
        raise TenutoError(f"{path}: no dataset config; it holds [[datasets]] with [[datasets.subsets]]")
    if source.repaired:
        draft.leave("dataset_config", path.name, source.repaired)
    general = _table(source.data.get("general", {}), path, "general")
    subsets: list[Subset] = []
    first: dict[str, Any] = {}
    for number, entry in enumerate(source.data["datasets"]):
        dataset = _table(entry, path, f"datasets.{number}")
        inner = dataset.get("subsets", [])
        for place, raw in enumerate(inner if isinstance(inner, list) else [inner]):
            own = _table(raw, path, f"datasets.{number}.subsets.{place}")
            settings = {**general, **dataset, **own}
            subset = _subset(draft, settings, options, path.parent, target)
            if subset is None:
                continue
            subset = replace(subset, dataset=number, settings=_options_of(settings))
            subsets.append(subset)
            if not subset.is_reg and not first:
                first = _options_of(settings)
        _say_other_resolution(draft, dataset, first, number)
    return subsets, first or _options_of(general)


def _table(value: Any, path: Path, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TenutoError(f"{path}: {where} is {value!r}, not a table; mend the config")
    return value


def _options_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {DATASET_NAMES.get(name, name): value for name, value in settings.items() if name not in OWN}


def _subset(
    draft: Draft, settings: Mapping[str, Any], options: Mapping[str, Any], folder: Path, target: Path
) -> Subset | None:
    image_dir = settings.get("image_dir")
    if settings.get("metadata_file"):
        draft.leave(
            "metadata_file",
            settings["metadata_file"],
            "captions in a metadata file: tenuto reads those beside the pictures",
        )
    if not isinstance(image_dir, str) or not image_dir:
        draft.leave("image_dir", image_dir if image_dir is not None else "", "a subset without a folder: left out")
        return None
    extension = extension_of(settings.get("caption_extension"), options.get("caption_extension"))
    tokens = settings.get("class_tokens")
    repeats = settings.get("num_repeats", options.get("dataset_repeats", 1))
    masks = settings.get("conditioning_data_dir") if read_or_none(options.get("masked_loss"), flag) else None
    return Subset(
        find(image_dir, folder),
        written(image_dir, folder, target),
        max(draft.read_or("num_repeats", repeats, natural, 1), 1),
        tokens if isinstance(tokens, str) else None,
        bool(draft.read_or("is_reg", settings.get("is_reg", False), flag, False)),
        extension=extension,
        masks=written(masks, folder, target) if isinstance(masks, str) and masks else "",
    )


def _say_other_resolution(draft: Draft, dataset: Mapping[str, Any], first: Mapping[str, Any], number: int) -> None:
    for name in ("resolution", "batch_size"):
        known = first.get(DATASET_NAMES.get(name, name))
        if number and name in dataset and dataset[name] != known:
            draft.leave(
                name, dataset[name], f"of dataset {number + 1}: tenuto trains at one area and batch, here {known}"
            )
