"""sd-scripts' optimizers, their arguments, rates and schedules: names of tenuto's own. A class that a config names is
never imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

from tenuto.formats.imported import NEUTRAL, Draft
from tenuto.formats.rules import Goes, carry
from tenuto.formats.values import above_zero, at_least_zero, flag, literal, number, pairs, share

OURS = {
    "": "adamw", "adamw": "adamw", "pagedadamw": "adamw", "pagedadamw32bit": "adamw", "torch.optim.adamw": "adamw",
    "adamw8bit": "adamw_8bit", "pagedadamw8bit": "adamw_8bit", "bitsandbytes.optim.adamw8bit": "adamw_8bit",
    "prodigy": "prodigy", "prodigyopt.prodigy": "prodigy",
    "adafactor": "adafactor", "transformers.optimization.adafactor": "adafactor",
    "adamwschedulefree": "adamw_schedulefree", "schedulefree.adamwschedulefree": "adamw_schedulefree",
}  # fmt: skip
"""Their name in small letters -> `training.optimizer.name`."""
PAGED = "without paging: the same updates, a little more memory"
RELATIVE = "it found its own rate there (relative_step), which tenuto's does not: its 1e-4 stands"
PLACE = "training.optimizer"

WITH_BETAS = {"betas": Goes(f"{PLACE}.betas", lambda value: _betas(value))}
ARGUMENTS: dict[str, dict[str, Goes]] = {
    "adamw": WITH_BETAS,
    "adamw_8bit": WITH_BETAS,
    "adamw_schedulefree": WITH_BETAS,
    "prodigy": {
        **WITH_BETAS,
        "d0": Goes(f"{PLACE}.d0", above_zero),
        "d_coef": Goes(f"{PLACE}.d_coef", above_zero),
        "use_bias_correction": Goes(f"{PLACE}.bias_correction", flag),
        "safeguard_warmup": Goes(f"{PLACE}.safeguard_warmup", flag),
    },
    "adafactor": {
        "clip_threshold": Goes(f"{PLACE}.clip_threshold", above_zero),
        "decay_rate": Goes(f"{PLACE}.decay_rate", lambda value: _below_zero(value)),
        "scale_parameter": Goes(f"{PLACE}.scale_parameter", flag),
    },
}
"""tenuto's optimizer -> its arguments there, beside weight_decay."""
THEIR_DEFAULTS: dict[str, dict[str, Any]] = {
    "prodigy": {"weight_decay": 0.0, "use_bias_correction": False, "safeguard_warmup": False},
    "adamw_schedulefree": {"weight_decay": 0.0},
    "adafactor": {"weight_decay": 0.0, "scale_parameter": True},
}
"""What an argument is there that is not given, where tenuto's default is another."""
SAME = {"decouple": True, "warmup_init": False}
"""Arguments that tenuto always has at this value."""

SHAPES = {
    "constant": "constant", "constant_with_warmup": "constant", "cosine": "cosine", "linear": "linear",
    "cosine_with_restarts": "cosine", "polynomial": "linear", "cosine_with_min_lr": "cosine",
}  # fmt: skip
EXACT_SHAPES = {"constant", "constant_with_warmup", "cosine", "linear"}


def put_optimizer(draft: Draft, options: dict[str, Any]) -> str:
    """Takes out of the options what it uses. Returns tenuto's name of the optimizer."""
    theirs = str(options.pop("optimizer_type", None) or "")
    old = [key for key in ("use_8bit_adam", "use_lion_optimizer") if options.pop(key, False)]
    theirs = theirs or ("Lion" if "use_lion_optimizer" in old else "AdamW8bit" if old else "")
    ours = OURS.get(theirs.lower())
    arguments = draft.given("optimizer_args", options.pop("optimizer_args", None), pairs, {})
    rates = {key: _first(options.pop(key, None)) for key in ("learning_rate", "unet_lr", "text_encoder_lr")}
    rates = {key: value for key, value in rates.items() if value not in (None, "")}
    if ours is None:
        _leave(draft, theirs, arguments, rates)
    else:
        if theirs:
            draft.put("optimizer_type", f"{PLACE}.name", ours)
        if "paged" in theirs.lower():
            draft.leave("optimizer_type", theirs, PAGED)
        _put_arguments(draft, ours, arguments, rates)
    _put_clip(draft, options.pop("max_grad_norm", None))
    return ours or "adamw"


def _leave(draft: Draft, theirs: str, arguments: Mapping[str, Any], rates: Mapping[str, Any]) -> None:
    imported = "; a class named in a config is never imported" if "." in theirs else ""
    draft.leave("optimizer_type", theirs, f"tenuto trains with AdamW instead{imported}")
    for key, value in rates.items():
        draft.leave(key, value, f"a rate for {theirs}, not for AdamW: tenuto's 1e-4 stands")
    for key, value in arguments.items():
        draft.leave(f"optimizer_args {key}", value, f"an argument of {theirs} that tenuto has no setting for")


def _put_arguments(draft: Draft, ours: str, arguments: dict[str, Any], rates: Mapping[str, Any]) -> None:
    relative = ours == "adafactor" and draft.given("relative_step", arguments.pop("relative_step", None), flag, True)
    if relative:
        for key, value in rates.items():
            draft.leave(key, value, RELATIVE)
    elif rates:
        _put_rates(draft, rates)
    known = {"weight_decay": Goes(f"{PLACE}.weight_decay", at_least_zero), **ARGUMENTS[ours]}
    for key, value in arguments.items():
        name, rule = f"optimizer_args {key}", known.get(key)
        if key in SAME and value == SAME[key]:
            draft.leave(name, value, NEUTRAL)
        elif rule is None or not carry(draft, name, value, rule):
            draft.leave(name, value, "an argument of the optimizer that tenuto has no setting for")
    for key, value in THEIR_DEFAULTS.get(ours, {}).items():
        if key not in arguments:
            draft.put(f"optimizer_args {key} (its default)", known[key].ours, value)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def _betas(value: Any) -> list[float]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or len(parts) != 2:
        raise ValueError("not two numbers")
    return [share(part.strip() if isinstance(part, str) else part) for part in parts]


def _below_zero(value: Any) -> float:
    if (found := number(value)) >= 0:
        raise ValueError("not below 0")
    return found


def _put_rates(draft: Draft, rates: Mapping[str, Any]) -> None:
    read: Callable[[Any], float] = number
    base = draft.given("learning_rate", rates.get("learning_rate"), read, 2e-6)
    unet = draft.given("unet_lr", rates.get("unet_lr"), read, base)
    text = draft.given("text_encoder_lr", rates.get("text_encoder_lr"), read, base)
    used = unet if unet > 0 else text if text > 0 else base
    if used <= 0:
        draft.leave("learning_rate", base, "0: nothing would be learned; tenuto's 1e-4 stands")
        return
    draft.put("unet_lr" if "unet_lr" in rates else "learning_rate", f"{PLACE}.lr", used)
    if text not in (used, 0) and "text_encoder" in draft.table["training"].get("adapter", {}).get("parts", ()):
        draft.leave(
            "text_encoder_lr",
            text,
            f"tenuto has one learning rate, here {used:g}: the text encoder is trained "
            "with it too; take text_encoder out of training.adapter.parts if that is too much",
        )


def _put_clip(draft: Draft, value: Any) -> None:
    limit = draft.given("max_grad_norm", value, at_least_zero, 1.0)
    if limit == 0:
        draft.put("max_grad_norm", "training.clip_norm", 1e9)
        draft.leave("max_grad_norm", 0, "off; written as a limit that is never reached")
    elif limit != 1:
        draft.put("max_grad_norm", "training.clip_norm", limit)


def put_schedule(draft: Draft, options: dict[str, Any], updates: int | None, reg: bool, optimizer: str) -> None:
    """The learning rate's way. `updates`: of the whole run, where they are known."""
    given = "lr_scheduler" in options
    scheduler = str(options.pop("lr_scheduler", None) or "constant").lower()
    kind, arguments = options.pop("lr_scheduler_type", None), options.pop("lr_scheduler_args", None)
    cycles, power = options.pop("lr_scheduler_num_cycles", None), options.pop("lr_scheduler_power", None)
    shape = SHAPES.get(scheduler, "cosine")
    exact = scheduler in EXACT_SHAPES
    exact |= scheduler == "cosine_with_restarts" and draft.given("lr_scheduler_num_cycles", cycles, number, 1) <= 1
    exact |= scheduler == "polynomial" and draft.given("lr_scheduler_power", power, number, 1) == 1
    if kind:
        shape, exact = "cosine", True
        draft.leave("lr_scheduler_type", kind, "a class named in a config is never imported: a cosine is used instead")
    if optimizer == "adamw_schedulefree" and shape != "constant":
        draft.leave("lr_scheduler", scheduler, "a schedule-free optimizer averages instead: the rate stays constant")
        shape = "constant"
    if given or kind:
        draft.put("lr_scheduler_type" if kind else "lr_scheduler", "training.learning_rate.shape", shape)
    if not exact:
        draft.leave("lr_scheduler", scheduler, f"tenuto has constant, cosine and linear: {shape} is used instead")
    if arguments and kind:
        draft.leave("lr_scheduler_args", arguments, "of a scheduler that tenuto has not")
    _put_warmup(draft, options, scheduler, updates, reg)
    for name in ("lr_decay_steps", "lr_scheduler_timescale", "lr_scheduler_min_lr_ratio"):
        if value := options.pop(name, None):
            draft.leave(name, value, "tenuto's schedules run to the last update, down to 0")


def _put_warmup(draft: Draft, options: dict[str, Any], scheduler: str, updates: int | None, reg: bool) -> None:
    """A whole number counts steps, a number below 1 is a share of the run."""
    value = literal(options.pop("lr_warmup_steps", 0))
    asked = draft.given("lr_warmup_steps", value, at_least_zero, 0.0)
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
