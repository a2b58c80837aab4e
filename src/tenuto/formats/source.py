"""Opening a foreign file or folder, and finding the paths that it names. Nothing named by a config is ever run."""

from __future__ import annotations

import codecs
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

from tenuto.words import TenutoError

MAX_BYTES = 4 << 20
WEIGHTS = {".safetensors", ".ckpt", ".pt", ".pth", ".bin"}
BACKSLASHES = "the paths in it hold single backslashes, which TOML does not allow: they were read as written"

Readable = Callable[[Path], bool]
_READABLE: ContextVar[Readable] = ContextVar("readable", default=lambda _: True)
"""Asked before anything that a config names is looked at; whoever imports for others narrows it."""


@contextmanager
def reading_only(readable: Readable) -> Iterator[None]:
    """Within, only these of the files and folders that a config names are looked at."""
    token = _READABLE.set(readable)
    try:
        yield
    finally:
        _READABLE.reset(token)


def may_read(path: Path) -> bool:
    return _READABLE.get()(path)


@dataclass(frozen=True)
class Source:
    """A foreign file or folder, read."""

    path: Path
    kind: Literal["folder", "json", "toml", "text"]
    text: str = ""
    data: Any = None
    """Of JSON and TOML files."""
    repaired: str = ""
    """What had to be mended to read it."""
    home: Path | None = None
    """What relative paths in it are relative to, where it was brought here without what it names."""

    @property
    def folder(self) -> Path:
        """What relative paths in it are relative to."""
        return self.home or self.beside

    @property
    def beside(self) -> Path:
        """Where its other files lie."""
        return self.path if self.kind == "folder" else self.path.parent


def open_source(path: Path) -> Source:
    """Read a file or folder for an import. Raises TenutoError for everything that is no config."""
    if "\0" in str(path):
        raise TenutoError(f"{str(path)!r}: no path; give a config file or a folder")
    if not may_read(path):
        raise TenutoError(f"{path}: may not be read here; choose another, or allow its folder")
    if is_there(path) and path.is_dir():
        return Source(path, "folder")
    if path.suffix.lower() in WEIGHTS:
        raise TenutoError(f"{path}: holds weights, not settings; give the config or the folder of the training")
    text = _read(path)
    if path.suffix.lower() == ".json":
        return Source(path, "json", text, _parsed(path, text, json.loads, "JSON"))
    if path.suffix.lower() == ".toml":
        return _toml(path, text)
    return Source(path, "text", text)


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TenutoError(f"{path}: over {MAX_BYTES:,} bytes, hardly a config; give the config file")
        raw = path.read_bytes()
        wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return raw.decode("utf-16" if wide else "utf-8-sig")
    except FileNotFoundError as error:
        raise TenutoError(f"{path}: no such file or folder; check the path") from error
    except UnicodeDecodeError as error:
        raise TenutoError(f"{path}: not UTF-8 text; save it as UTF-8") from error
    except OSError as error:
        raise TenutoError(f"{path}: cannot be read ({error.strerror or error}); mend its permissions") from error


def _parsed(path: Path, text: str, parse: Callable[[str], Any], name: str) -> Any:
    try:
        data = parse(text)
        json.dumps(data, ensure_ascii=False, default=str).encode()
        return data
    except RecursionError as error:
        raise TenutoError(f"{path}: nested too deeply for a config; give the config file") from error
    except (ValueError, OverflowError) as error:
        why = "characters that are no text" if isinstance(error, UnicodeEncodeError) else str(error)[:120]
        raise TenutoError(f"{path}: not readable as {name} ({why}); mend or save it again") from error


def _toml(path: Path, text: str) -> Source:
    try:
        return Source(path, "toml", text, _parsed(path, text, tomllib.loads, "TOML"))
    except TenutoError:
        doubled = re.sub(r"\\+", r"\\\\", text)
        if doubled == text:
            raise
        try:
            data = _parsed(path, doubled, tomllib.loads, "TOML")
        except TenutoError:
            data = None
        if data is None:
            raise
        return Source(path, "toml", doubled, data, BACKSLASHES)


def find(text: str, folder: Path) -> Path:
    """Where a path in a config lies on this machine; what may not be read lies nowhere (no file has such a name)."""
    place = _place(text, folder)
    return place if may_read(place) else Path(f"{place}\0")


def _place(text: str, folder: Path) -> Path:
    """Beside the config, else in the working folder."""
    if "\0" in text or any(len(part.encode(errors="replace")) > 255 for part in re.split(r"[/\\]", text)):
        raise TenutoError(f"a path such as {text[:60]!r} can be no path; mend it in the training's config")
    if is_absolute(text):
        return home(text)
    unix = text.replace("\\", "/")
    places = (folder / text, folder / unix, Path.cwd() / text, Path.cwd() / unix)
    return next((place for place in places if is_there(place)), folder / unix)


def is_absolute(text: str) -> bool:
    """Also for a Windows path on another system."""
    return home(text).is_absolute() or PureWindowsPath(text).is_absolute()


def home(text: str) -> Path:
    """A path with its "~" filled in, where that is somebody's."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def is_there(path: Path) -> bool:
    """Whether something lies there; what cannot be a path lies nowhere."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def written(text: str, folder: Path, target: Path) -> str:
    """The same path for a project file in `target`: relative if it was relative in the config."""
    if is_absolute(text):
        return text
    place = _place(text, folder)
    try:
        return Path(os.path.relpath(place, target)).as_posix()
    except ValueError:  # another drive
        return str(place.absolute())
