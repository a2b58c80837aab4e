"""A checkpoint proved on next to nothing where it is opened: a config that no weight's shape contradicts (heads, norms,
scales), and weights that are no numbers, show there and not in the middle of long work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tenuto.families.base import Base
from tenuto.families.sampling import check_samplers
from tenuto.files import first_line
from tenuto.words import Size, TenutoError


@torch.no_grad()
def prove(base: Base, place: Path) -> None:
    """One prompt and one picture of the smallest bucket, through each network once. Raises TenutoError.

    Cost   about a reading of every weight.
    """
    size = Size(base.geometry.multiple, base.geometry.multiple)
    pixels, latents = torch.zeros(1, 3, *size), torch.zeros(1, *base.geometry.latent(size))
    _run(place, "scheduler", lambda: check_samplers(base))
    text = _run(place, "text encoder", lambda: base.encode_text(["a"], [size]))
    _check(base, place, "text encoder", text.text, text.text.shape)
    answer = _run(place, "U-Net", lambda: base.predict(latents, torch.tensor([1]), text))
    _check(base, place, "U-Net", answer, latents.shape)
    answer = _run(place, "autoencoder", lambda: base.encode_image(pixels))
    _check(base, place, "autoencoder", answer, latents.shape)
    answer = _run(place, "autoencoder", lambda: base.decode(latents))
    _check(base, place, "autoencoder", answer, pixels.shape)


def _run(place: Path, part: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the libraries raise anything on damaged configs
        raise TenutoError(
            f"{place}: its {part} cannot be run ({first_line(error)}); its config is damaged or not of these weights: "
            "download the checkpoint again"
        ) from error


def _check(base: Base, place: Path, part: str, answer: Tensor, shape: torch.Size) -> None:
    if answer.shape != shape:
        raise TenutoError(
            f"{place}: its {part} answers {list(answer.shape)} where {list(shape)} is needed; give a plain "
            "text-to-image checkpoint"
        )
    if not answer.isfinite().all():
        precision = str(base.dtype).removeprefix("torch.")
        raise TenutoError(
            f"{place}: its {part} answers NaN or infinity: its weights are damaged, or too large for {precision}; "
            'download it again, or try training.precision = "fp32"'
        )
