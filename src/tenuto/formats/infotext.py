"""The text that web UIs keep inside a picture: prompt, negative prompt, settings."""

from __future__ import annotations

import json
from pathlib import Path

from tenuto.families.sampling import Sampler
from tenuto.prior.store import PriorImage

SAMPLERS: dict[Sampler, tuple[str, str]] = {
    "dpmpp_2m": ("DPM++ 2M", ""), "dpmpp_2m_karras": ("DPM++ 2M", "Karras"), "dpmpp_2m_sde": ("DPM++ 2M SDE", ""),
    "euler": ("Euler", ""), "euler_a": ("Euler a", ""), "ddim": ("DDIM", ""), "unipc": ("UniPC", ""),
}  # fmt: skip
"""tenuto's name -> (sampler, schedule) as web UIs call them."""


def infotext(image: PriorImage, model: str, base_hash: str, *, none: str = "") -> str:
    """The text of a prior image. `none` stands for an empty negative prompt; if empty too, that line is left out.

    The seed names tenuto's own noise, which other programs do not draw.
    """
    sampler, schedule = next((SAMPLERS[name] for name in SAMPLERS if name == image.sampler), (image.sampler, ""))
    settings = {
        "Steps": image.steps, "Sampler": sampler, "Schedule type": schedule, "CFG scale": f"{image.guidance:g}",
        "Seed": image.seed, "Size": str(image.bucket), "Model": Path(model).stem, "tenuto base": base_hash,
        "tenuto image": image.id, "tenuto role": "reg",
    }  # fmt: skip
    last = ", ".join(f"{name}: {_quoted(str(value))}" for name, value in settings.items() if value != "")
    negative = image.negative or none
    return "\n".join([image.prompt, *([f"Negative prompt: {negative}"] if negative else []), last])


def _quoted(value: str) -> str:
    """As web UIs do it: values that hold a separator stand in quotes."""
    return json.dumps(value, ensure_ascii=False) if any(char in value for char in ',:\n"') else value
