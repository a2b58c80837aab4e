"""A checkpoint's sizes from its configs and header alone: no weight is read, so a plan is there at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tenuto.families.base import Geometry
from tenuto.families.checkpoints import find_base
from tenuto.families.header import read_header
from tenuto.families.latent import geometry_of
from tenuto.families.parts import read_json
from tenuto.families.prediction import Wish, decided
from tenuto.families.recognise import recognise
from tenuto.families.signs import noising_of_file
from tenuto.families.single_file import unet_config
from tenuto.words import TenutoError


def survey(model: str, vae: str | None = None, noising: Wish | None = None) -> Geometry:
    """What `open_base` would find. Raises TenutoError, also for a hub checkpoint that is not on this machine yet."""
    place = find_base(model)
    try:
        return _of_place(place if isinstance(place, Path) else _fetched(place), vae, noising or Wish())
    except TenutoError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise TenutoError(f"{model}: its configs say no sizes ({error}); download the checkpoint again") from error


LAYERS = ("down_block_types", "block_out_channels", "layers_per_block", "cross_attention_dim")
"""What of a U-Net's config decides which layers it has, and how wide they are."""


def same_layers(one: str, other: str) -> bool:
    """Whether a LoRA of the one checkpoint fits the other, as far as their configs tell. Raises TenutoError."""
    return _layers(one) == _layers(other)


def _layers(model: str) -> list[Any]:
    place = find_base(model)
    place = place if isinstance(place, Path) else _fetched(place)
    unet = recognise(read_header(place)).unet if place.is_file() else read_json(place / "unet" / "config.json")
    return [unet.get(name) for name in LAYERS]


def _of_place(place: Path, vae: str | None, wish: Wish) -> Geometry:
    if place.is_file():
        header = read_header(place)
        layout = recognise(header)
        noising = decided(str(place), noising_of_file(header, layout), wish)
        return geometry_of(unet_config(layout, noising.prediction), _vae(vae) or layout.vae)
    unet = read_json(place / "unet" / "config.json")
    return geometry_of(unet, _vae(vae) or read_json(place / "vae" / "config.json"))


def _vae(vae: str | None) -> Mapping[str, Any] | None:
    """The config of another autoencoder; a single file has the checkpoint's own."""
    folder = Path(vae).expanduser() if vae else None
    return read_json(folder / "config.json") if folder is not None and folder.is_dir() else None


def _fetched(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except (HfHubHTTPError, OSError, ValueError) as error:  # LocalEntryNotFoundError is an OSError
        raise TenutoError(
            f"{model}: not on this machine yet; the first run fetches it, or give a local file or folder"
        ) from error
