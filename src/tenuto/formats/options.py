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
from tenuto.formats.concepts import put_subsets
from tenuto.formats.imported import NEUTRAL, Draft
from tenuto.formats.network_options import DROPOUTS, put_network
from tenuto.formats.optimizer_options import put_optimizer, put_schedule
from tenuto.formats.option_tables import CARRIED, LEFT, NEUTRAL_VALUES
from tenuto.formats.rules import Goes, apply, carry
from tenuto.formats.source import find, is_absolute, is_there, written
from tenuto.formats.subsets import Subset, extension_of, rows_of
from tenuto.formats.values import (
    at_least_zero,
    flag,
    natural,
    positive,
    share,
    size,
    whole,
)
from tenuto.words import TenutoError

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
AS_RESOLUTION = dict.fromkeys(("enable_bucket", "bucket_no_upscale", "min_bucket_reso, max_bucket_reso"), "resolution")
"""Names for systems that have no bucket settings: their resolution says it all."""
PRIOR_SAME = (
    "the same number here: their loss averages both kinds of rows in one mean, ours each by itself, and the relation "
    "w : 1 stays. 1 is deceptively high for a LoRA: try 0.25, towards 0.1 for long trainings"
)

MASKED_MEAN = "there a mean over the whole picture, here over the masked part: a small mask counts more here"

IDLE = "there were no reg pictures, so it did nothing; tenuto's own 0.25 stands for the prior set that it makes"


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
    _put_masks(draft, rest, subsets)
    reg = any(subset.is_reg for subset in subsets)
    _put_prior(draft, rest, reg)
    _put_captions(draft, rest, subsets)
    convert_training(draft, rest, folder, target, reg=reg, rows=rows_of(subsets))
    apply(draft, rest, {**LEFT, **CARRIED}, NEUTRAL_VALUES)
    _say_differences(draft, [subset for subset in subsets if not subset.is_reg])


def _put_masks(draft: Draft, options: dict[str, Any], subsets: Sequence[Subset]) -> None:
    """Masks count where they counted there: those of a folder with masked_loss only."""
    folder, masked, alpha = (options.pop(name, None) for name in ("conditioning_data_dir", "masked_loss", "alpha_mask"))
    by_alpha = bool(draft.given("alpha_mask", alpha, flag, False))
    if by_alpha:
        draft.put("alpha_mask", "data.alpha", "mask")
    elif alpha is not None:
        draft.leave("alpha_mask", alpha, NEUTRAL)
    if by_alpha or any(subset.masks for subset in subsets):
        draft.leave("masked_loss", True, MASKED_MEAN)
    elif masked is not None:
        used = bool(draft.given("masked_loss", masked, flag, False))
        draft.leave("masked_loss", masked, "no masks were given, so it did nothing" if used else NEUTRAL)
    if folder and not any(subset.masks for subset in subsets):
        draft.leave("conditioning_data_dir", folder, "without masked_loss its masks did nothing, and are not carried")


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
    put_network(draft, rest, parts)
    _put_methods(draft, rest)
    optimizer = put_optimizer(draft, rest)
    put_schedule(draft, rest, updates, reg, optimizer)
    _put_samples(draft, rest, folder)


def whole_run(options: Mapping[str, Any]) -> bool:
    """Whether the training is described, and not its pictures alone."""
    return any(name in options for name in TRAINS)


# -- What belongs together --------------------------------------------------------------------------------------------


def put_base(draft: Draft, options: dict[str, Any], folder: Path, target: Path) -> None:
    """Checkpoint, autoencoder, seed, name."""
    model = options.pop("pretrained_model_name_or_path", None)
    if isinstance(model, str) and model.strip():
        draft.put("pretrained_model_name_or_path", "base.model", model_place(model.strip(), folder, target))
    else:
        draft.leave("pretrained_model_name_or_path", model or "", "no checkpoint is named: write yours into base.model")
        draft.table["base"] = {"model": "your-checkpoint"}
    _put_file(draft, "vae", options.pop("vae", None), "base.vae", folder, target)
    _put_file(draft, "network_weights", options.pop("network_weights", None), "training.start_from", folder, target)
    seed = options.pop("seed", None)
    if seed in (None, ""):
        draft.leave("seed", "", "drawn anew for every run there; in tenuto the seed is always known (seed = 0)")
    else:
        carry(draft, "seed", seed, Goes("seed", whole))
    name = options.pop("output_name", None)
    if isinstance(name, str) and (safe := name.replace("/", "-").replace("\\", "-").strip(" .")):
        draft.put("output_name", "name", safe)


def _put_file(draft: Draft, name: str, text: Any, ours: str, folder: Path, target: Path) -> None:
    """A file or folder beside the checkpoint. Pickles are not carried, nor what is not there and may be a hub id."""
    if not isinstance(text, str) or not text.strip():
        return
    text = text.strip()
    if text.lower().endswith((".ckpt", ".pt", ".pth", ".bin")):
        draft.leave(
            name, text, f"a pickle, which can run code, is not read: `tenuto convert` makes a .safetensors for {ours}"
        )
    elif is_absolute(text) or is_there(find(text, folder)):
        draft.put(name, ours, written(text, folder, target))
    else:
        draft.leave(name, text, f"not on this machine: left out; name it in {ours}")


def model_place(model: str, folder: Path, target: Path) -> str:
    """A path that is there, relative to the project file; anything else (a hub id) as it is."""
    return written(model, folder, target) if is_there(find(model, folder)) else model


def _put_prior(draft: Draft, options: dict[str, Any], reg: bool) -> None:
    given = options.pop("prior_loss_weight", None)
    if not reg:
        if given is not None:
            draft.leave("prior_loss_weight", given, NEUTRAL if given in (1.0, "1", "1.0") else IDLE)
        return
    weight = 1.0 if given is None and whole_run(options) else given
    ours = "regularizers.prior_preservation.weight"
    if weight is not None and not carry(draft, "prior_loss_weight", weight, Goes(ours, at_least_zero, note=PRIOR_SAME)):
        draft.put("prior_loss_weight", ours, 1.0)


def _put_buckets(draft: Draft, options: dict[str, Any]) -> None:
    resolution = options.pop("resolution", None)
    area = draft.given("resolution", resolution, size, None)
    if area:
        draft.put("resolution", "data.buckets.area", area[0] * area[1])
    else:
        draft.leave(
            "resolution", resolution or "", "not given: pictures are as large as the checkpoint was trained for"
        )
    bucketed = draft.given("enable_bucket", options.pop("enable_bucket", None), flag, False)
    least = draft.given("min_bucket_reso", options.pop("min_bucket_reso", None), natural, 256)
    most = draft.given("max_bucket_reso", options.get("max_bucket_reso"), positive, 1024)
    shrink = draft.given("bucket_no_upscale", options.pop("bucket_no_upscale", None), flag, False)
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
        widest = min(most / least, area[0] * area[1] / least**2)
        draft.put("min_bucket_reso, max_bucket_reso", "data.buckets.max_ratio", round(max(widest, 1.0), 2))
        if least <= int(sqrt(area[0] * area[1])):
            draft.put("min_bucket_reso", "data.buckets.min_side", least)
    draft.put("bucket_no_upscale", "data.buckets.upscale", not shrink)


def _put_captions(draft: Draft, options: dict[str, Any], subsets: Sequence[Subset]) -> None:
    asked = [options.pop(name, None) for name in ("caption_extension", "caption_extention")]
    extensions = sorted({subset.extension for subset in subsets if not subset.is_reg})
    extensions = extensions or [extension_of(*asked) if any(asked) else ".txt"]
    if extensions[0] != ".txt":
        draft.put("caption_extension", "data.caption_extension", extensions[0])
    for other in extensions[1:]:
        draft.leave("caption_extension", other, f"tenuto reads one kind of caption file, here {extensions[0]}")
    for name in ("caption_prefix", "caption_suffix"):
        text = options.pop(name, None)
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
    batch = draft.given("train_batch_size", options.pop("train_batch_size", None), positive, 1)
    accumulate = draft.given(
        "gradient_accumulation_steps", options.pop("gradient_accumulation_steps", None), positive, 1
    )
    draft.put("train_batch_size", "training.batch", batch * accumulate)
    if reg or accumulate > 1:
        name = "gradient_accumulation_steps" if accumulate > 1 else "train_batch_size"
        draft.put(name, "training.micro_batch", batch)
    return _put_epochs(draft, options, reg, rows, batch * accumulate)


def _put_epochs(draft: Draft, options: dict[str, Any], reg: bool, rows: int | None, batch: int | None) -> int | None:
    epochs = draft.given("max_train_epochs", options.pop("max_train_epochs", None), natural, 0)
    steps = draft.given("max_train_steps", options.pop("max_train_steps", None), natural, None)
    per_epoch = ceil(rows / batch) if rows and batch else None
    total = None
    if epochs:
        draft.put("max_train_epochs", "training.epochs", epochs)
        total = epochs * per_epoch if per_epoch else None
        if steps is not None and "max_train_steps" not in draft.defaults:
            draft.leave("max_train_steps", steps, "max_train_epochs wins over it there, and here")
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
    for ours in ("save_every", "sample_every"):
        _in_updates(draft, options, ours, per_epoch, reg)
    return total


def _in_updates(draft: Draft, options: dict[str, Any], ours: str, per_epoch: int | None, reg: bool) -> None:
    """How often something is done there, in epochs or steps, as updates here. Epochs win, as there."""
    in_epochs, in_steps = f"{ours}_n_epochs", f"{ours}_n_steps"
    epochs = draft.given(in_epochs, options.pop(in_epochs, None), natural, 0)
    steps = draft.given(in_steps, options.pop(in_steps, None), natural, 0)
    if epochs and per_epoch:
        draft.put(in_epochs, f"training.{ours}", epochs * per_epoch)
    elif epochs:
        why = f"counts epochs, and the pictures are not here to count: set training.{ours} (updates)"
        draft.leave(in_epochs, epochs, why)
    elif steps:
        draft.put(in_steps, f"training.{ours}", ceil(steps / 2) if reg else steps)
    if epochs and steps:
        draft.leave(in_steps, steps, f"beside {in_epochs}: tenuto has one interval, training.{ours}")


SAME_IN_KIND = "the same in kind: there each coarser level is 2 to 4 times as coarse, drawn anew, here twice"


def _put_methods(draft: Draft, options: dict[str, Any]) -> None:
    """Methods that take more than one option."""
    dropout = "regularizers.adapter_dropout"
    for name, what in DROPOUTS:
        value = options.pop(name, None)
        chance = draft.given(name, value, share, 0.0)
        taken = draft.table.get("regularizers", {}).get("adapter_dropout")
        if chance and taken:
            draft.leave(name, value, f"tenuto drops one kind of part, here a {taken['what']}")
        elif 0 < chance < 1:
            draft.put(name, f"{dropout}.weight", chance)
            draft.put(name, f"{dropout}.what", what)
    if levels := draft.given("multires_noise_iterations", options.pop("multires_noise_iterations", None), natural, 0):
        discount = draft.given("multires_noise_discount", options.get("multires_noise_discount"), share, 0.3)
        draft.put("multires_noise_iterations", "regularizers.multires_noise.levels", levels)
        draft.put("multires_noise_discount", "regularizers.multires_noise.weight", discount)
        draft.leave("multires_noise_iterations", levels, SAME_IN_KIND)
    options.pop("multires_noise_discount", None)
    low = draft.given("min_timestep", options.pop("min_timestep", None), natural, 0)
    high = draft.given("max_timestep", options.pop("max_timestep", None), positive, 1000)
    if 0 <= low < high <= 1000 and (low, high) != (0, 1000):
        draft.put("min_timestep", "regularizers.timestep_window.low", low / 1000)
        draft.put("max_timestep", "regularizers.timestep_window.high", high / 1000)
        draft.put("min_timestep, max_timestep", "regularizers.timestep_window.prior", True)


def _put_samples(draft: Draft, options: dict[str, Any], folder: Path) -> None:
    """Sample prompts: a file, or the lines themselves."""
    given = options.pop("sample_prompts", None)
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
