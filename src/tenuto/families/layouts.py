"""Architectures that come as single files: their configs ship with tenuto, so that nothing is asked of the internet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

TOKENIZER = ("tenuto", "pocket", "checkpoint", "tokenizer")
"""CLIP's vocabulary, which all of them share. It ships once, as data, inside the pocket checkpoint's folder."""


@dataclass(frozen=True)
class TextLayout:
    """One text encoder."""

    form: Literal["clip", "open_clip"]
    """Whose naming the file follows."""
    prefixes: tuple[str, ...]
    """What its keys may begin with."""
    pad: int
    """The token that fills the rest of a pass."""
    config: Mapping[str, Any]
    projected: bool = False
    """Whether its projection of the pooled text is used."""


@dataclass(frozen=True)
class Layout:
    """One architecture."""

    title: str
    pipeline: str
    """diffusers' name of the pipeline that the parts make."""
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text_encoders: tuple[TextLayout, ...]
    scheduler: Mapping[str, Any]
    sample_size_if_v: int | None = None
    """Latent side that the v-predicting releases were trained at, where it differs."""
    leftovers: tuple[str, ...] = ()
    """Beginnings of keys that its releases hold and nobody needs."""
    tokenizer: Path | None = None
    """Folder of the tokenizer; None: CLIP's."""

    @classmethod
    def of(cls, table: Mapping[str, Any], tokenizer: Path | None = None) -> Layout:
        texts = tuple(TextLayout(**{**own, "prefixes": tuple(own["prefixes"])}) for own in table["text_encoders"])
        leftovers = tuple(table.get("leftovers", ()))
        return cls(**{**table, "text_encoders": texts, "leftovers": leftovers, "tokenizer": tokenizer})

    @property
    def signature(self) -> tuple[int, int, bool]:
        """(width of the first convolution, width of the text, whether sizes and pooled text are told): all differ."""
        told = self.unet.get("addition_embed_type") == "text_time"
        return self.unet["block_out_channels"][0], self.unet["cross_attention_dim"], told

    def tokenizer_folder(self) -> Path:
        if self.tokenizer is not None:
            return self.tokenizer
        package, *folders = TOKENIZER
        return Path(str(resources.files(package).joinpath(*folders)))


def _shipped(*place: str) -> Layout:
    text = resources.files("tenuto.families").joinpath(*place).read_text(encoding="utf-8")
    return Layout.of(json.loads(text))


LAYOUTS: dict[str, Layout] = {
    "sd1": _shipped("sd", "sd1.json"),
    "sd2": _shipped("sd", "sd2.json"),
    "sdxl": _shipped("sdxl", "sdxl.json"),
}
"""Every architecture that a single file is matched against, by its signature."""
