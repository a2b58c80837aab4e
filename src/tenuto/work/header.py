"""What a trained LoRA's file says of its training: sd-scripts' keys (ss_*), which web UIs show, and our own (tenuto_*).

Counts are of what was really used. Names of folders and files only, never paths.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from tenuto import __version__
from tenuto.data.captions import split_tags
from tenuto.data.dataset import Item
from tenuto.data.schedule import Update, usage
from tenuto.files import hash_text
from tenuto.prior.store import PriorImage
from tenuto.project import Project
from tenuto.work.prepare import Prepared

if TYPE_CHECKING:
    from tenuto.work.train import Training


def training_header(
    prepared: Prepared, training: Training, updates: Sequence[Update], prior: Sequence[PriorImage]
) -> dict[str, str]:
    """The header of a training's LoRA files. Time stamps are the only thing in it that differs between equal runs."""
    return {
        **_own(prepared, training, updates, prior),
        **_data(prepared, updates, prior),
        **_optimization(prepared, training, updates),
        **_about(prepared),
    }


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


def _data(prepared: Prepared, updates: Sequence[Update], prior: Sequence[PriorImage]) -> dict[str, str]:
    items, use = prepared.items, usage(updates, prior)
    epochs = max(prepared.length.epochs, 1e-9)
    folders: dict[str, list[Item]] = {}
    for item in items:
        folders.setdefault(item.path.parent.name, []).append(item)
    buckets = Counter(item.bucket for item in items)
    header = {
        "ss_num_train_images": str(prepared.length.rows_per_epoch),
        "ss_num_reg_images": str(round(use.draws / epochs)),
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
    rate, method = own.optimizer.lr, own.optimizer
    text = "text_encoder" in own.adapter.parts
    weights = [m.weight for m in training.regularizers.values() if m.active() and m.needs_prior()]
    header = {
        "ss_steps": str(len(updates)),
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
        "ss_optimizer": f"torch.optim.adamw.AdamW(weight_decay={method.weight_decay},betas={method.betas})",
        "ss_max_grad_norm": str(own.clip_norm),
        "ss_mixed_precision": "bf16" if own.precision == "bf16" else "no",
        "ss_full_fp16": "False",
        "ss_cache_latents": "True",
    }
    return header | ({"ss_prior_loss_weight": str(max(weights))} if weights else {})


def _about(prepared: Prepared) -> dict[str, str]:
    """Names, and when: the start of this training."""
    project, now = prepared.project, time.time()
    name = project.name or prepared.concepts[0].name
    triggers = ", ".join(concept.trigger for concept in prepared.concepts if concept.trigger)
    return {
        "ss_output_name": name,
        "ss_sd_model_name": _name(project.base.model),
        "ss_clip_skip": str(project.base.clip_skip if project.base.clip_skip > 1 else None),
        "ss_training_started_at": str(now),
        "modelspec.title": name,
        "modelspec.date": datetime.fromtimestamp(now).isoformat(timespec="seconds"),
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
