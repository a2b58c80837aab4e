"""Pictures, reports and LoRAs out of the roots; folders to choose from. Nothing else leaves the disk."""

from __future__ import annotations

import io
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, JSONResponse, Response

from tenuto.adapters.files import read_lora, write_lora
from tenuto.adapters.surgery import at_strength
from tenuto.data.images import EXTENSIONS, read_image
from tenuto.web.core import Call
from tenuto.web.places import Place
from tenuto.web.story import reports_of
from tenuto.words import TenutoError

LARGEST = 1600
"""Pixels of a picture's longer side."""
SMALL = 192
"""Pictures up to this size are sent as they are, lossless."""
SHOWN = 400
"""Entries of a folder that are listed."""
STRONGEST = 10.0
"""That a LoRA is taken at."""
REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'self'; sandbox"
CHOICES = {"checkpoint": {".safetensors"}, "config": {".json", ".toml", ".txt", ".sh", ".bat", ".ps1"}}
"""What a file may be chosen for -> its endings."""


def picture(call: Call) -> Response:
    """A picture below the roots, scaled down."""
    path = call.studio.roots.allowed(call.asked("path"))
    if path.suffix.lower() not in EXTENSIONS or not path.is_file():
        raise TenutoError(f"{path.name}: no picture")
    try:
        size = min(int(call.asked("size", "320")), LARGEST)
    except ValueError as error:
        raise TenutoError("size: not a number") from error
    if size < 1:
        raise TenutoError("size: less than one pixel")
    stat = path.stat()
    tag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}-{size}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if call.request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(_small(path, size, stat.st_mtime_ns), media_type="image/webp", headers=headers)


@lru_cache(maxsize=256)
def _small(path: Path, size: int, stamp: int) -> bytes:
    image = read_image(path)
    lossless = max(image.size) <= SMALL
    if not lossless:
        image.thumbnail((size, size), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, format="WEBP", lossless=lossless, quality=86, method=2)
    return file.getvalue()


def report(call: Call) -> Response:
    """The report of the run, or of one of its concepts, shut into a sandbox."""
    found = [file for file in reports_of(call.place.folder) if call.studio.roots.holds(file)]
    if not found:
        raise TenutoError(f"{call.place.key}: no report yet; run it to the end first")
    file = next((own for own in found if own.parent.name == call.asked("concept")), found[0])
    headers = {"Content-Security-Policy": REPORT_POLICY, "Cache-Control": "no-store"}
    return FileResponse(file, media_type="text/html", headers=headers)


def lora(call: Call) -> Response:
    """A finished LoRA of the run, to be kept; with a strength worked in, if one is asked for."""
    arm, seed = call.request.path_params["arm"], call.request.path_params["seed"]
    file = lora_file(call.place, arm, seed)
    if not file.is_file() or not call.studio.roots.holds(file):
        raise TenutoError(f"{call.place.key}: no LoRA {arm}, seed {seed}")
    name = call.place.key if arm == "held" else f"{call.place.key}-{arm}"
    strength = _strength(call.asked("strength", "1"))
    if strength == 1:
        return _kept(file, f"{name}.safetensors")
    folder = TemporaryDirectory(prefix="tenuto-")
    scaled = Path(folder.name) / file.name
    read = read_lora(file)
    write_lora(at_strength(read, strength), scaled, read.naming)
    return _kept(scaled, f"{name}-at-{strength:g}.safetensors", BackgroundTask(folder.cleanup))


def lora_file(place: Place, arm: str, seed: int) -> Path:
    """Where a training of the run leaves its LoRA."""
    return place.folder / arm / f"seed-{seed}" / "lora.safetensors"


def _strength(text: str) -> float:
    with suppress(ValueError):
        if 0 < (strength := float(text)) <= STRONGEST:
            return strength
    raise TenutoError(f"strength {text[:40]!r}: give a number above 0, at most {STRONGEST:g}")


def _kept(file: Path, name: str, afterwards: BackgroundTask | None = None) -> Response:
    return FileResponse(file, media_type="application/octet-stream", filename=name, background=afterwards)


def browse(call: Call) -> Response:
    """A folder's folders (and files of the wanted sort), to choose from."""
    roots, wanted = call.studio.roots, CHOICES.get(call.asked("for"), set())
    text = call.asked("path")
    folder = roots.allowed(text) if text else roots.workspace
    while not folder.is_dir() and roots.holds(folder.parent):
        folder = folder.parent
    try:
        entries = sorted(
            (p for p in folder.iterdir() if p.name[:1] != "."), key=lambda p: (p.is_file(), p.name.lower())
        )
        pictures = sum(p.suffix.lower() in EXTENSIONS for p in entries)
    except OSError as error:
        raise TenutoError(f"{folder.name}: cannot be read ({error.strerror})") from error
    chosen = [p for p in entries if p.is_dir() or p.suffix.lower() in wanted][:SHOWN]
    return JSONResponse(
        {
            "path": roots.name(folder) if folder != roots.workspace else ".",
            "up": roots.name(folder.parent) if roots.holds(folder.parent) and folder != roots.workspace else None,
            "roots": [str(root) for root in roots.folders],
            "pictures": pictures,
            "entries": [
                {"name": p.name, "path": roots.name(p), "folder": p.is_dir()} for p in chosen if roots.holds(p)
            ],
        }
    )
