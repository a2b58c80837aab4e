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
from tenuto.formats.option_tables import CARRIED, LEFT, NEUTRAL_VALUES
from tenuto.formats.rules import Goes, apply, carry, is_neutral
from tenuto.formats.source import find, is_absolute, is_there, written
from tenuto.formats.subsets import Subset, rows_of
from tenuto.formats.values import (
    at_least_zero,
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
    _put_methods(draft, rest)
    _put_optimizer(draft, rest)
    _put_schedule(draft, rest, updates, reg)
    _put_samples(draft, rest, folder)


def whole_run(options: Mapping[str, Any]) -> bool:
    """Whether the training is described, and not its pictures alone."""
    return any(name in options for name in TRAINS)


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
    weight = options.pop("prior_loss_weight", 1.0 if whole_run(options) else None)
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
    resolution = options.pop("resolution", None)
    area = _read(draft, "resolution", resolution, size, None)
    if area:
        draft.put("resolution", "data.buckets.area", area[0] * area[1])
    else:
        draft.leave(
            "resolution", resolution or "", "not given: pictures are as large as the checkpoint was trained for"
        )
    bucketed = _read(draft, "enable_bucket", options.pop("enable_bucket", None), flag, False)
    least = _read(draft, "min_bucket_reso", options.pop("min_bucket_reso", None), natural, 256)
    most = _read(draft, "max_bucket_reso", options.get("max_bucket_reso"), positive, 1024)
    shrink = _read(draft, "bucket_no_upscale", options.pop("bucket_no_upscale", None), flag, False)
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
    options.pop("caption_extension", None), options.pop("caption_extention", None)
    extensions = sorted({subset.extension for subset in subsets if not subset.is_reg}) or [".txt"]
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
    batch = _read(draft, "train_batch_size", options.pop("train_batch_size", None), positive, 1)
    accumulate = _read(
        draft, "gradient_accumulation_steps", options.pop("gradient_accumulation_steps", None), positive, 1
    )
    draft.put("train_batch_size", "training.batch", batch * accumulate)
    if reg or accumulate > 1:
        name = "gradient_accumulation_steps" if accumulate > 1 else "train_batch_size"
        draft.put(name, "training.micro_batch", batch)
    return _put_epochs(draft, options, reg, rows, batch * accumulate)


def _put_epochs(draft: Draft, options: dict[str, Any], reg: bool, rows: int | None, batch: int | None) -> int | None:
    epochs = _read(draft, "max_train_epochs", options.pop("max_train_epochs", None), natural, 0)
    steps = _read(draft, "max_train_steps", options.pop("max_train_steps", None), natural, None)
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
    for ours in ("save_every", "sample_every"):
        _in_updates(draft, options, ours, per_epoch, reg)
    return total


def _in_updates(draft: Draft, options: dict[str, Any], ours: str, per_epoch: int | None, reg: bool) -> None:
    """How often something is done there, in epochs or steps, as updates here. Epochs win, as there."""
    in_epochs, in_steps = f"{ours}_n_epochs", f"{ours}_n_steps"
    epochs = _read(draft, in_epochs, options.pop(in_epochs, None), natural, 0)
    steps = _read(draft, in_steps, options.pop(in_steps, None), natural, 0)
    if epochs and per_epoch:
        draft.put(in_epochs, f"training.{ours}", epochs * per_epoch)
    elif epochs:
        why = f"counts epochs, and the pictures are not here to count: set training.{ours} (updates)"
        draft.leave(in_epochs, epochs, why)
    elif steps:
        draft.put(in_steps, f"training.{ours}", ceil(steps / 2) if reg else steps)
    if epochs and steps:
        draft.leave(in_steps, steps, f"beside {in_epochs}: tenuto has one interval, training.{ours}")


def _put_network(draft: Draft, options: dict[str, Any], parts: Sequence[Part]) -> None:
    """Which layers, which rank. networks.lora adapts attention and feed-forward; with conv_dim convolutions too."""
    extra = _read(draft, "network_args", options.pop("network_args", None), pairs, {})
    module = str(options.pop("network_module", None) or "networks.lora")
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
    rank = _read(draft, "network_dim", options.pop("network_dim", None), positive, 4)
    draft.put("network_dim", "training.adapter.rank", rank)
    alpha = _read(draft, "network_alpha", options.pop("network_alpha", None), at_least_zero, None)
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
    options |= {name: extra.pop(name) for name, _ in DROPOUTS if name in extra}
    if _read(draft, "dora_wd", extra.pop("dora_wd", None), flag, False):
        draft.put("dora_wd", "training.adapter.dora", True)
    for name, value in extra.items():
        reason = LEFT.get(name, "a setting of the network that tenuto has not")
        draft.leave(name, value, NEUTRAL if is_neutral(name, value, NETWORK_NEUTRAL) else reason)


def _parts(draft: Draft, options: dict[str, Any], unet: list[str]) -> list[str]:
    only_unet = _read(draft, "network_train_unet_only", options.pop("network_train_unet_only", None), flag, False)
    only_text = _read(
        draft, "network_train_text_encoder_only", options.pop("network_train_text_encoder_only", None), flag, False
    )
    text_lr = options.get("text_encoder_lr")
    text_lr = text_lr[0] if isinstance(text_lr, list) and text_lr else text_lr
    cached = _read(draft, "cache_text_encoder_outputs", options.get("cache_text_encoder_outputs"), flag, False)
    still = (
        only_unet or cached or (text_lr not in (None, "") and _read(draft, "text_encoder_lr", text_lr, number, 1) == 0)
    )
    return (["text_encoder"] if only_text else unet) if still or only_text else [*unet, "text_encoder"]


DROPOUTS = (("network_dropout", "neuron"), ("rank_dropout", "rank"), ("module_dropout", "module"))
"""Their option -> what `regularizers.adapter_dropout` calls it."""
SAME_IN_KIND = "the same in kind: there each coarser level is 2 to 4 times as coarse, drawn anew, here twice"


def _put_methods(draft: Draft, options: dict[str, Any]) -> None:
    """Methods that take more than one option."""
    dropout = "regularizers.adapter_dropout"
    for name, what in DROPOUTS:
        value = options.pop(name, None)
        chance = _read(draft, name, value, share, 0.0)
        taken = draft.table.get("regularizers", {}).get("adapter_dropout")
        if chance and taken:
            draft.leave(name, value, f"tenuto drops one kind of part, here a {taken['what']}")
        elif 0 < chance < 1:
            draft.put(name, f"{dropout}.weight", chance)
            draft.put(name, f"{dropout}.what", what)
    if levels := _read(draft, "multires_noise_iterations", options.pop("multires_noise_iterations", None), natural, 0):
        discount = _read(draft, "multires_noise_discount", options.get("multires_noise_discount"), share, 0.3)
        draft.put("multires_noise_iterations", "regularizers.multires_noise.levels", levels)
        draft.put("multires_noise_discount", "regularizers.multires_noise.weight", discount)
        draft.leave("multires_noise_iterations", levels, SAME_IN_KIND)
    options.pop("multires_noise_discount", None)
    low = _read(draft, "min_timestep", options.pop("min_timestep", None), natural, 0)
    high = _read(draft, "max_timestep", options.pop("max_timestep", None), positive, 1000)
    if 0 <= low < high <= 1000 and (low, high) != (0, 1000):
        draft.put("min_timestep", "regularizers.timestep_window.low", low / 1000)
        draft.put("max_timestep", "regularizers.timestep_window.high", high / 1000)
        draft.put("min_timestep, max_timestep", "regularizers.timestep_window.prior", True)


def _put_optimizer(draft: Draft, options: dict[str, Any]) -> None:
    name = str(options.pop("optimizer_type", None) or "")
    old = [key for key in ("use_8bit_adam", "use_lion_optimizer") if options.pop(key, False)]
    name = name or ("Lion" if "use_lion_optimizer" in old else "AdamW8bit" if old else "")
    arguments = _read(draft, "optimizer_args", options.pop("optimizer_args", None), pairs, {})
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
    _put_clip(draft, options.pop("max_grad_norm", None))


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
    scheduler = str(options.pop("lr_scheduler", None) or "constant").lower()
    kind, arguments = options.pop("lr_scheduler_type", None), options.pop("lr_scheduler_args", None)
    cycles, power = options.pop("lr_scheduler_num_cycles", None), options.pop("lr_scheduler_power", None)
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
    if precision := options.pop("mixed_precision", None):
        _put_precision(draft, str(precision).lower())
    for name in ("lr_decay_steps", "lr_scheduler_timescale", "lr_scheduler_min_lr_ratio"):
        if value := options.pop(name, None):
            draft.leave(name, value, "tenuto's schedules run to the last update, down to 0")


def _put_warmup(draft: Draft, options: dict[str, Any], scheduler: str, updates: int | None, reg: bool) -> None:
    """A whole number counts steps, a number below 1 is a share of the run."""
    value = literal(options.pop("lr_warmup_steps", 0))
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
