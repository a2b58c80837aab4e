"""The content hash of a base: of all that decides its predictions, wherever the files lie."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tenuto.files import cache_home, hash_file, hash_text, parse_json, write_json
from tenuto.words import TenutoError

PASSING = {"transformers_version", "torch_dtype", "dtype", "architectures"}
"""Keys of a config that no prediction depends on; those that begin with "_" are the others."""
PROCESS = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr",
    "prediction_type",
)  # fmt: skip
"""Keys of the scheduler's config that belong to the checkpoint; the rest is the sampler's business."""


def content_hash(scheduler: Mapping[str, Any], parts: Mapping[str, tuple[Mapping[str, Any], Iterable[Path]]]) -> str:
    """parts: name -> (its config, its weight files). A copy in another place has the same hash."""
    told = [json.dumps({key: scheduler.get(key) for key in PROCESS}, sort_keys=True)]
    for part, (config, files) in sorted(parts.items()):
        lasting = {key: value for key, value in config.items() if key not in PASSING and not key.startswith("_")}
        told += [part, json.dumps(lasting, sort_keys=True), *(hash_once(path) for path in files)]
    return hash_text(*told)


def hash_once(path: Path) -> str:
    """A file's hash, remembered by path, size and time of change: a large checkpoint is read through only once."""
    stat = path.stat()
    memo = cache_home() / "hashes" / f"{hash_text(str(path.resolve()), str(stat.st_size), str(stat.st_mtime_ns))}.json"
    try:
        return str(parse_json(memo.read_text(encoding="utf-8"))["hash"])
    except (OSError, ValueError, KeyError, TypeError):
        content = hash_file(path)
    with suppress(TenutoError):  # nowhere to remember it: it is read through again next time
        write_json(memo, {"hash": content, "file": str(path)})
    return content
