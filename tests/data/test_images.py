from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tenuto.data.images import EXTENSIONS, colour, fit, image_size, look_of, read_alpha, read_image, read_mask
from tenuto.words import Size, TenutoError


def gradient(width: int = 48, height: int = 32) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_formats(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a{extension}"
    gradient().save(path, quality=95)
    assert image_size(path) == Size(48, 32)
    assert np.abs(np.asarray(read_image(path), int) - np.asarray(gradient(), int)).mean() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_set_upright(tmp_path: Path, orientation: int) -> None:
    """A red top left corner comes back to the top left, whichever way the camera was held."""
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :16, 0] = 255
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.transpose(1, 0, 2), 6: np.rot90(upright),
        7: np.rot90(upright, 2).transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert image_size(tmp_path / "a.png") == Size(48, 32)
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")), upright)


def test_alpha_is_laid_on_the_stated_colour(tmp_path: Path) -> None:
    pixels = np.full((32, 32, 4), 255, np.uint8)
    pixels[:, :16] = (9, 9, 9, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", "#ff0000").getpixel((0, 0)) == (255, 0, 0)
    assert read_image(tmp_path / "a.png").getpixel((0, 0)) == (255, 255, 255)
    assert read_image(tmp_path / "a.png", None).getpixel((0, 0)) == (9, 9, 9)
    mask = read_alpha(tmp_path / "a.png", Size(32, 32))
    assert mask is not None
    assert mask.shape == (1, 32, 32)
    assert torch.equal(mask[0, 0, [0, 31]], torch.tensor([0.0, 1.0]))
    gradient().save(tmp_path / "b.png")
    assert read_alpha(tmp_path / "b.png", Size(32, 32)) is None


def test_a_mask_counts_by_its_red_channel_fitted_like_the_picture(tmp_path: Path) -> None:
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, 16:32] = (255, 0, 0)
    pixels[:, 32:48] = (127, 255, 255)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    mask = read_mask(tmp_path / "a.png", Size(32, 32))
    assert mask[0, 5, [4, 20]].tolist() == pytest.approx([1.0, 0.5], abs=0.01), "the middle of it is cut out"


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((32, 32), 0x8000, np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").getpixel((3, 3)) == (128, 128, 128)


def test_no_colour() -> None:
    with pytest.raises(ValueError, match="no colour"):
        colour("blurple")


def test_fit_keeps_shapes() -> None:
    """A disc stays a disc: the cut-out is centred and of the bucket's shape."""
    y, x = np.mgrid[:200, :400]
    disc = Image.fromarray((((x - 200) ** 2 + (y - 100) ** 2 < 60**2) * 255).astype(np.uint8))
    pixels = fit(disc, Size(64, 64))
    assert pixels.shape == (3, 64, 64)
    inside = pixels[0] > 0
    assert abs(int(inside.any(0).sum()) - int(inside.any(1).sum())) <= 1
    assert int(inside.any(0).sum()) == pytest.approx(64 * 120 / 200, abs=1)


def test_fit_of_the_same_size_is_exact() -> None:
    pixels = fit(gradient(), Size(48, 32))
    assert torch.equal(((pixels + 1) * 127.5).round().byte(), torch.from_numpy(np.array(gradient())).permute(2, 0, 1))
    assert pixels.min() == -1
    assert pixels.max() == 1


def png(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that nothing behind it backs."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(20_000, 20_000), "too large"),
        (png(2**31 - 1, 2**31 - 1), "too large"),
        (png(9_500, 9_500), "too large"),
        (png(1, 1), "1x1 is too small"),
        (png(64, 64), "not a readable picture"),
        (b"", "not a readable picture"),
        (b"\0" * 500, "not a readable picture"),
        (b"GIF89a" + b"\0" * 60, "not a readable picture"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(TenutoError, match=message) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for extension in EXTENSIONS:
        buffer = io.BytesIO()
        image = Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8))
        image.save(buffer, Image.registered_extensions()[extension])
        path = tmp_path / f"cut{extension}"
        path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
        with pytest.raises(TenutoError, match="cut"):
            read_image(path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(TenutoError, match="no such picture"):
        read_image(tmp_path / "none.png")


@given(st.binary(max_size=40), st.integers(0, 300), st.sampled_from(["PNG", "JPEG", "WEBP", "BMP"]))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_damage_never_escapes(tmp_path: Path, damage: bytes, at: int, kind: str) -> None:
    buffer = io.BytesIO()
    gradient().save(buffer, kind)
    data = buffer.getvalue()
    path = tmp_path / "x.png"
    path.write_bytes(data[:at] + damage + data[at + len(damage) :])
    try:
        read_image(path)
        image_size(path)
    except TenutoError:
        pass


def test_looks() -> None:
    picture = gradient(256, 256)
    smaller = picture.resize((200, 200))
    other = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert (look_of(picture) ^ look_of(smaller)).bit_count() <= 8
    assert (look_of(picture) ^ look_of(other)).bit_count() > 50
