"""What a LoRA file holds, as plain data: for people, and for programs (`--json`)."""

from __future__ import annotations

import math
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

from tenuto.adapters.files import LoraFile
from tenuto.adapters.header import KOHYA_HASHES, base_version
from tenuto.adapters.surgery import part_of
from tenuto.words import TenutoError


def describe(file: LoraFile) -> dict[str, Any]:
    """Kinds, ranks, alphas, layers, norms, hash and header of a file. Everything in it is JSON."""
    layers = file.layers.values()
    recorded = file.metadata.get(KOHYA_HASHES[0])
    content = content_hash(file.path)
    return {
        "file": str(file.path),
        "bytes": file.path.stat().st_size,
        "naming": file.naming,
        "for": file.metadata.get("ss_base_model_version") or base_version(file, v_prediction=False),
        "kinds": file.kinds,
        "layers": len(file.layers),
        "parameters": sum(tensor.numel() for layer in layers for tensor in layer.tensors.values()),
        "precision": sorted({str(layer.dtype).removeprefix("torch.") for layer in layers}),
        "ranks": [
            {"rank": rank, "alpha": alpha, "layers": count}
            for (rank, alpha), count in Counter((layer.rank, layer.alpha) for layer in layers).most_common()
        ],
        "parts": _parts(file),
        "not_finite": [
            n for n, layer in file.layers.items() if not all(t.isfinite().all() for t in layer.tensors.values())
        ],
        "unknown": list(file.unknown),
        "hash": content,
        "hash_in_header": recorded,
        "hash_fits": recorded in (None, content),
        "metadata": dict(sorted(file.metadata.items())),
    }


def _parts(file: LoraFile) -> dict[str, dict[str, Any]]:
    """Part -> layers, |dW| of all together, and the layer with the largest."""
    norms: dict[str, dict[str, float]] = {}
    for name in file.layers:
        norms.setdefault(part_of(name), {})[name] = _norm(file, name)
    return {
        part: {"layers": len(own), "norm": math.hypot(*own.values()), "largest": max(own, key=lambda n: own[n])}
        for part, own in sorted(norms.items())
    }


def _norm(file: LoraFile, name: str) -> float:
    """|dW|; 0 for what cannot be told (a magnitude per input, values that are not finite)."""
    try:
        norm = file.lora(name).norm()
    except TenutoError:
        return 0.0
    return norm if math.isfinite(norm) else 0.0


def content_hash(path: Path) -> str:
    """SHA-256 of a file's data, without its header: what its sshs_model_hash should be."""
    digest = sha256()
    with path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()
