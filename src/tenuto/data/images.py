"""Pictures: read safely, turned upright, flattened on a stated colour, fitted to a bucket without distortion.

Whatever a file holds, the answer is a picture or one TenutoError that names the file: never a traceback, never
a decoded bomb (the header's size is checked before a pixel is decoded).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageColor, UnidentifiedImageError, features
from torch import Tensor

from tenuto.words import Size, TenutoError

FORMATS = ["PNG", "JPEG", "WEBP", "BMP"] + (["AVIF"] if features.check("avif") else [])
"""What Pillow may try; everything else is refused unread."""
EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp") + ((".avif",) if "AVIF" in FORMATS else ())
UNREAD_EXTENSIONS = frozenset({".avif", ".gif", ".tif", ".tiff", ".jxl", ".heic", ".heif", ".psd", ".jp2"}) - {
    *EXTENSIONS
}
"""Pictures all the same: a folder that holds them is told that they are not used."""
MAX_PIXELS = 80_000_000
MIN_SIDE = 16

ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what sets the picture upright."""


def colour(name: str) -> tuple[int, int, int]:
    """A CSS colour name or #rrggbb as red, green, blue."""
    try:
        return ImageColor.getrgb(name)[:3]
    except ValueError as error:
        raise TenutoError(
            f"background {name!r} is no colour; use a name such as white or a value such as #808080"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file with its header read and its size judged. Whatever goes wrong inside becomes a TenutoError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                _refuse_size(path, Size(*image.size))
                yield image
    except TenutoError:
        raise
    except Image.DecompressionBombError as error:
        raise TenutoError(f"{path}: too large (over {MAX_PIXELS:,} pixels); scale it down") from error
    except FileNotFoundError as error:
        raise TenutoError(f"{path}: no such picture; check the path") from error
    except PermissionError as error:
        raise TenutoError(f"{path}: may not be read; mend its permissions") from error
    except Exception as error:  # decoders raise anything on damaged files: struct.error, KeyError, SyntaxError ...
        raise TenutoError(f"{path}: not a readable picture ({_short(error)}); replace or remove it") from error


def _short(error: Exception) -> str:
    return (
        "unknown or damaged format"
        if isinstance(error, UnidentifiedImageError)
        else str(error)[:80] or type(error).__name__
    )


def _refuse_size(path: Path, size: Size) -> None:
    if size.width * size.height > MAX_PIXELS:
        raise TenutoError(f"{path}: {size} is too large (over {MAX_PIXELS:,} pixels); scale it down")
    if min(size) < MIN_SIDE:
        raise TenutoError(f"{path}: {size} is too small (under {MIN_SIDE} pixels a side); replace or remove it")


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF beside good pixels: the picture is taken as it lies
        return 1
    return value if isinstance(value, int) else 1


def image_size(path: Path) -> Size:
    """The upright size, from the header alone."""
    with _opened(path) as image:
        width, height = image.size
        return Size(height, width) if _orientation(image) >= 5 else Size(width, height)


def _upright(path: Path) -> Image.Image:
    """Decoded and turned, as RGB or RGBA."""
    with _opened(path) as image:
        turn = UPRIGHT.get(_orientation(image))
        image.load()
        if image.mode.startswith("I"):  # 16 bits a pixel: Pillow's own conversion would clip instead of scale
            eight = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
            flat = Image.fromarray(eight).convert("RGB")
        else:
            flat = image.convert("RGBA" if image.has_transparency_data else "RGB")
        return flat.transpose(turn) if turn is not None else flat


def read_image(path: Path, background: str | None = "white") -> Image.Image:
    """The picture as RGB: upright, its transparent parts laid on `background`; of an animation the first frame.

    Without a background transparent parts keep the colours that the file holds there.
    """
    image = _upright(path)
    if image.mode == "RGB" or background is None:
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, (*colour(background), 255))
    return Image.alpha_composite(ground, image).convert("RGB")


def read_alpha(path: Path, bucket: Size) -> Tensor | None:
    """The alpha channel as loss weights [1 H W] in 0..1, fitted like the picture; None where there is none."""
    image = _upright(path)
    return None if image.mode == "RGB" else _weights(image.getchannel("A").convert("RGB"), bucket)


def read_mask(path: Path, bucket: Size) -> Tensor:
    """The red channel of a mask as loss weights [1 H W] in 0..1, fitted like the picture of its shape."""
    return _weights(_upright(path).convert("RGB"), bucket)


def _weights(image: Image.Image, bucket: Size) -> Tensor:
    return (fit(image, bucket)[:1] + 1) / 2


def fit(image: Image.Image, bucket: Size) -> Tensor:
    """Pixels [3 H W] in -1..1: the largest centred cut-out of the bucket's shape, resampled once (Lanczos)."""
    width, height = image.size
    scale = min(width / bucket.width, height / bucket.height)
    left, top = (width - bucket.width * scale) / 2, (height - bucket.height * scale) / 2
    box = (max(left, 0.0), max(top, 0.0), min(width - left, float(width)), min(height - top, float(height)))
    small = image.convert("RGB").resize(bucket, Image.Resampling.LANCZOS, box=box)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 127.5 - 1


LOOK = 16


def look_of(image: Image.Image) -> int:
    """A small perceptual hash (difference hash, LOOK x LOOK bits): alike pictures differ in few bits."""
    small = image.convert("L").resize((LOOK + 1, LOOK), Image.Resampling.BOX)
    grey = np.asarray(small).astype(np.int16)
    bits = np.packbits(grey[:, 1:] > grey[:, :-1])
    return int.from_bytes(bits.tobytes(), "big")
