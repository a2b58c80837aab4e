"""What a trained LoRA's file says of its training: sd-scripts' keys (ss_*), which web UIs show, and our own (tenuto_*).

Counts are of what was really used. Names of folders and files only, never paths.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import tomli_w

from tenuto import __version__
from tenuto.data.captions import split_tags
from tenuto.data.dataset import Item
from tenuto.data.schedule import Update, usage
from tenuto.evaluation.record import Comparison
from tenuto.files import hash_text
from tenuto.prior.store import PriorImage
from tenuto.project.settings import Project
from tenuto.work.prepare import Prepared
from tenuto.work.trainings import Training


def training_header(
    prepared: Prepared, training: Training, updates: Sequence[Update], prior: Sequence[PriorImage]
) -> Callable[[int], dict[str, str]]:
    """The header of a training's LoRA as it is after so many updates.

    Time stamps are the only thing in it that differs between equal runs.
    """
    started = time.time()

    def header(done: int) -> dict[str, str]:
        return {
            **_own(prepared, training, updates[:done], prior),
            **_data(prepared, updates[:done], prior, prepared.length.epochs * done / len(updates)),
            **_optimization(prepared, training, updates),
            **_place(prepared.length.epochs * done / len(updates), done),
            **_about(prepared, started),
        }

    return header


def results_header(results: Mapping[str, Comparison], training: Training) -> dict[str, str]:
    """What the comparison found of this training, concept by concept: numbers only, drift apart as well."""
    numbers = {concept: _numbers(result, training) for concept, result in results.items()}
    drifts = [own["drift"] for own in numbers.values() if "drift" in own]
    header = {"tenuto_comparison": json.dumps(numbers, ensure_ascii=False)}
    return header | ({"tenuto_drift": f"{sum(drifts) / len(drifts):.4g}"} if drifts else {})


def _numbers(result: Comparison, training: Training) -> dict[str, float]:
    """Of this training alone where there were several, else of the arm; without times: equal runs write equal bytes."""
    found = {}
    for name, number in result.arms.get(training.arm, {}).items():
        if name == "seconds":
            continue
        value = number.mean
        if result.per_seed_means == "trainings" and len(number.per_seed) == len(result.training_seeds[training.arm]):
            value = number.per_seed[result.training_seeds[training.arm].index(training.seed)]
        if value is not None:
            found[name] = float(f"{value:.4g}")
    return found


def _own(
    prepared: Prepared, training: Training, updates: Sequence[Update], prior: Sequence[PriorImage]
) -> dict[str, str]:
    use = usage(updates, prior)
    methods = {name: method.model_dump(mode="json") for name, method in training.regularizers.items()}
    return {
        "tenuto_version": __version__,
        "tenuto_project": tomli_w.dumps(_without_paths(prepared.project)),
        "tenuto_base_hash": prepared.base.hash,
        "tenuto_base_model": _name(prepared.project.base.model),
        "tenuto_arm": training.arm,
        "tenuto_seed": str(training.seed),
        "tenuto_regularizers": json.dumps(methods, sort_keys=True),
        "tenuto_instance_images": str(len(prepared.items)),
        "tenuto_prior_hash": hash_text(prepared.base.hash, *sorted(image.id for image in prior)),
        "tenuto_prior_images_used": str(len(use.used)),
        "tenuto_prior_images_unused": str(len(use.unused)),
        "tenuto_prior_rows": str(use.draws),
        "tenuto_triggers": ", ".join(concept.trigger for concept in prepared.concepts),
    }


def _data(prepared: Prepared, updates: Sequence[Update], prior: Sequence[PriorImage], epochs: float) -> dict[str, str]:
    items, use = prepared.items, usage(updates, prior)
    folders: dict[str, list[Item]] = {}
    for item in items:
        folders.setdefault(item.path.parent.name, []).append(item)
    buckets = Counter(item.bucket for item in items)
    header = {
        "ss_num_train_images": str(prepared.length.rows_per_epoch),
        "ss_num_reg_images": str(round(use.draws / max(epochs, 1e-9))),
        "ss_num_validation_images": str(len(prepared.validation)),
        "ss_dataset_dirs": _json({name: _folder(own) for name, own in folders.items()}),
        "ss_reg_dataset_dirs": _json({"prior": {"n_repeats": 1, "img_count": len(use.used)}} if use.used else {}),
        "ss_enable_bucket": "True",
        "ss_bucket_info": _json(
            {
                "buckets": {
                    str(number): {"resolution": list(size), "count": count}
                    for number, (size, count) in enumerate(sorted(buckets.items()))
                }
            }
        ),
        "ss_resolution": str(tuple(prepared.base.geometry.native)),
    }
    if prepared.project.training.tags_in_file:
        header["ss_tag_frequency"] = _json({name: _tags(own) for name, own in folders.items()})
    return header


def _folder(items: Sequence[Item]) -> dict[str, int]:
    return {"n_repeats": items[0].repeats, "img_count": len(items)}


def _tags(items: Sequence[Item]) -> dict[str, int]:
    return dict(Counter(tag.lower() for item in items for tag in split_tags(item.caption)))


def _optimization(prepared: Prepared, training: Training, updates: Sequence[Update]) -> dict[str, str]:
    own = prepared.project.training
    rate = own.optimizer.lr
    text = "text_encoder" in own.adapter.parts
    weights = [m.weight for m in training.regularizers.values() if m.active() and m.needs_prior()]
    header = {
        "ss_max_train_steps": str(len(updates)),
        "ss_num_epochs": f"{prepared.length.epochs:g}",
        "ss_num_batches_per_epoch": str(-(-prepared.length.rows_per_epoch // own.batch)),
        "ss_total_batch_size": str(own.batch),
        "ss_batch_size_per_device": str(own.batch),
        "ss_gradient_accumulation_steps": "1",
        "ss_gradient_checkpointing": str(own.gradient_checkpointing),
        "ss_seed": str(training.seed),
        "ss_learning_rate": str(rate),
        "ss_unet_lr": str(rate),
        "ss_text_encoder_lr": str(rate if text else None),
        "ss_lr_scheduler": own.learning_rate.shape,
        "ss_lr_warmup_steps": str(own.learning_rate.warmup),
        "ss_optimizer": own.optimizer.title,
        "ss_max_grad_norm": str(own.clip_norm),
        "ss_mixed_precision": "no" if own.precision == "fp32" else own.precision,
        "ss_full_fp16": "False",
        "ss_fp8_base_unet": str(prepared.project.base.fp8),
        "ss_cache_latents": "True",
    }
    return header | ({"ss_prior_loss_weight": str(max(weights))} if weights else {})


def _place(epochs: float, done: int) -> dict[str, str]:
    """Where this file stands on the way."""
    return {"ss_steps": str(done), "ss_epoch": str(int(epochs)), "ss_training_finished_at": str(time.time())}


def _about(prepared: Prepared, started: float) -> dict[str, str]:
    """Names, and when: the start of this training."""
    project = prepared.project
    name = project.name or prepared.concepts[0].name
    triggers = ", ".join(concept.trigger for concept in prepared.concepts if concept.trigger)
    return {
        "ss_output_name": name,
        "ss_sd_model_name": _name(project.base.model),
        "ss_clip_skip": str(project.base.clip_skip if project.base.clip_skip > 1 else None),
        "ss_training_started_at": str(started),
        "modelspec.title": name,
        "modelspec.date": datetime.fromtimestamp(started).isoformat(timespec="seconds"),
    } | ({"modelspec.trigger_phrase": triggers} if triggers else {})


def _without_paths(project: Project) -> dict[str, Any]:
    shortened: dict[str, Any] = _shorten(project.model_dump(mode="json", exclude_none=True, exclude_unset=True))
    return shortened


def _shorten(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _shorten(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shorten(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _name(model: str) -> str:
    return Path(model).name if "/" in model or "\\" in model else model


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
