"""Before long work: whether every machine has the same program and files, and sees the same folders."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from filelock import FileLock, Timeout
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import tenuto
from tenuto.cluster.machines import Machine
from tenuto.events import Listener, warn
from tenuto.files import cannot_write, hash_text
from tenuto.words import TenutoError

DECIDING = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "numpy", "pillow", "pydantic")
"""Packages whose versions decide what is learned, or whether machines understand each other."""
READ = 1 << 16
"""Bytes of a file that are compared, beside its size."""
PATIENCE = 300.0
"""Seconds in which a machine has to answer."""


@dataclass(frozen=True)
class Shared:
    """A folder that all machines must see as one."""

    folder: Path
    what: str
    remedy: str


@dataclass(frozen=True)
class Look:
    """What one machine has."""

    host: str
    versions: Mapping[str, str]
    code: str
    """Of the program's own files."""
    inputs: tuple[str, ...]
    """Of what the projects name, in their order."""
    unseen: tuple[int, ...] = ()
    """Which of the shared folders are other folders there, or cannot be written to."""
    unlocked: tuple[int, ...] = ()
    """Which of them do not keep a lock from one machine to another."""


def look(inputs: Sequence[Path], marks: Sequence[Path]) -> Look:
    """At this machine. marks: a file in every shared folder, which whoever asks has locked."""
    return Look(
        socket.gethostname(),
        {"Python": platform.python_version(), **{name: _version(name) for name in DECIDING}},
        fingerprint(Path(tenuto.__file__).parent),
        tuple(fingerprint(path) for path in inputs),
        tuple(number for number, mark in enumerate(marks) if not _is_seen(mark)),
        tuple(number for number, mark in enumerate(marks) if mark.is_file() and not _is_locked(mark)),
    )


def fingerprint(path: Path) -> str:
    """Of a file or all files below a folder: names, sizes, how each begins."""
    if not path.exists():
        return ""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return hash_text(*(_about(file, path) for file in files if file.is_file() and file.suffix != ".pyc"))


def _about(file: Path, folder: Path) -> str:
    with file.open("rb") as opened:
        start = sha256(opened.read(READ)).hexdigest()
    return f"{file.relative_to(folder).as_posix()} {file.stat().st_size} {start}"


def _version(name: str) -> str:
    """Without the build: the same release for CPUs and for GPUs is the same program."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return "none"


def _is_seen(mark: Path) -> bool:
    trial = mark.with_name(f"{mark.name}-{uuid4().hex[:8]}")
    try:
        trial.touch()
        trial.unlink()
    except OSError:
        return False
    return mark.is_file()


def _is_locked(mark: Path) -> bool:
    try:
        with FileLock(mark, timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False


def check(
    found: Sequence[Machine], inputs: Sequence[tuple[str, Path]], shared: Sequence[Shared], listener: Listener
) -> None:
    """Ask every machine. Raises TenutoError that names the first that is not fit, and the remedy.

    inputs: (setting, path) of what the projects read.
    """
    ask, paths = ray.remote(look), [path for _, path in inputs]
    with ExitStack() as marked:
        marks = [marked.enter_context(_marked(own)) for own in shared]
        here = look(paths, marks)
        answers = [
            ask.options(
                num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(own.id, soft=False)
            ).remote(paths, marks)
            for own in found
        ]
        for own, answer in zip(found, answers, strict=True):
            compare(_answer(own.host, answer), here, inputs, shared, listener)


@contextmanager
def _marked(own: Shared) -> Iterator[Path]:
    """A locked file of a new name, in the folder or the one in which it will be made."""
    folder = own.folder.absolute()
    there = next(place for place in (folder, *folder.parents) if place.is_dir())
    mark = there / f".tenuto-{uuid4().hex[:12]}"
    try:
        with FileLock(mark, timeout=0):
            yield mark
    except OSError as error:
        raise cannot_write(mark, error) from error
    finally:
        if os.access(there, os.W_OK):
            mark.unlink(missing_ok=True)


def _answer(host: str, reference: Any) -> Look:
    try:
        answer: Look = ray.get(reference, timeout=PATIENCE)
        return answer
    except GetTimeoutError as error:
        raise TenutoError(f"{host}: does not answer within {PATIENCE:.0f} s; is it up? `ray status` tells") from error
    except RayError as error:
        why = str(error).strip().splitlines()[-1]
        raise TenutoError(
            f"{host}: tenuto does not run there ({why}); install the same tenuto[cluster] into the Python that runs Ray"
        ) from error


def compare(
    there: Look, here: Look, inputs: Sequence[tuple[str, Path]], shared: Sequence[Shared], listener: Listener
) -> None:
    """Raises TenutoError when a machine has something else than we have here."""
    for name, own in here.versions.items():
        if there.versions[name] != own:
            raise TenutoError(
                f"{there.host}: has {name} {there.versions[name]}, here it is {own}; install the same versions on all "
                "machines, or the arms are not made alike"
            )
    if there.code != here.code:
        raise TenutoError(f"{there.host}: has another state of tenuto {tenuto.__version__} than here; install the same")
    for (setting, path), own, other in zip(inputs, here.inputs, there.inputs, strict=True):
        if own != other:
            what = "is another one there" if other else "is not there"
            raise TenutoError(
                f"{there.host}: {path} ({setting}) {what}; put the same files under the same path on all machines, "
                "best on a disk that they share"
            )
    for number in there.unseen:
        raise TenutoError(
            f"{there.host}: {shared[number].folder} ({shared[number].what}) is not the same folder there, or cannot be "
            f"written to; {shared[number].remedy}"
        )
    for number in there.unlocked:
        warn(
            listener,
            f"{shared[number].folder} keeps no locks between machines: the same thing may be made twice, to no harm",
        )
