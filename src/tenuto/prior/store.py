"""The prior store: what one base made, kept for ever and shared between runs.

A folder per base. It holds shards (safetensors, one planned batch each), each written whole or not at all; a shard's
header carries the records of its images. So there is no index that could disagree with what lies there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tenuto.files import cache_home, hash_text, write_json, written_whole
from tenuto.words import Size, TenutoError

FORMAT = 1
DTYPE = torch.float16


class WrongBase(TenutoError):
    """A prior set was made by another checkpoint than the one being trained on (law 1)."""


@dataclass(frozen=True)
class PriorImage:
    """The record of one image in a store."""

    id: str
    concept: str
    bucket: Size
    prompt: str
    """What it was made from; for foreign pictures their caption."""
    negative: str
    seed: int
    sampler: str
    steps: int
    guidance: float
    kind: Literal["generated", "foreign"]
    source: str
    """The instance item it was planned for, or the foreign file."""
    seconds: float = 0.0
    """What making it took, so that its cost can be told also when it is taken from the store."""
    sha: str = ""
    """SHA-256 of the latents' bytes."""


class PriorStore:
    """Everything that one base made. Make with `open`."""

    def __init__(self, folder: Path, base_hash: str) -> None:
        self.folder, self.base_hash = folder, base_hash
        self._where: dict[str, Path] = {}
        self._records: dict[str, PriorImage] = {}
        self.damaged: list[Path] = []
        for shard in sorted((folder / "shards").glob("*.safetensors")):
            self._read(shard)

    @classmethod
    def open(cls, base_hash: str, folder: Path | None = None) -> PriorStore:
        """The store of this base: in `folder`, or where all projects share it.

        Raises WrongBase when the folder belongs to another base.
        """
        place = folder or cache_home() / "prior-sets" / base_hash[:16]
        about = place / "base.json"
        try:
            known = json.loads(about.read_text(encoding="utf-8"))
        except FileNotFoundError:
            write_json(about, {"base": base_hash, "format": FORMAT})
            known = {"base": base_hash, "format": FORMAT}
        except (OSError, ValueError) as error:
            raise TenutoError(
                f"{about}: not readable ({error}); delete the folder to make the prior set again"
            ) from error
        if known.get("base") != base_hash:
            raise WrongBase(
                f"{place}: this prior set was made by base {str(known.get('base'))[:12]}, but the project trains on "
                f"{base_hash[:12]}; name another folder in prior.store, or remove that line"
            )
        if known.get("format") != FORMAT:
            raise TenutoError(
                f"{place}: written in format {known.get('format')}, this tenuto reads {FORMAT}; name another folder"
            )
        return cls(place, base_hash)

    def __contains__(self, name: str) -> bool:
        return name in self._records

    def record(self, name: str) -> PriorImage:
        return self._records[name]

    def records(self, names: Iterable[str]) -> list[PriorImage]:
        return [self._records[name] for name in names]

    def latents(self, name: str) -> Tensor:
        """Clean scaled latents [C H W] in float32."""
        return _open(self._where[name]).get_tensor(name).float()  # type: ignore[no-any-return]

    def lock(self) -> FileLock:
        """Held while a build writes, so that two processes never make the same images."""
        return FileLock(self.folder / "build.lock")

    def add(self, records: Mapping[str, PriorImage], latents: Mapping[str, Tensor]) -> None:
        """Write one shard. The records' `sha` is filled in here."""
        tensors = {name: value.detach().to("cpu", DTYPE).contiguous() for name, value in latents.items()}
        done = [
            PriorImage(**{**asdict(records[n]), "bucket": records[n].bucket, "sha": _sha(t)})
            for n, t in tensors.items()
        ]
        path = self.folder / "shards" / f"{hash_text(*sorted(tensors))[:24]}.safetensors"
        header = {"base": self.base_hash, "records": json.dumps([asdict(record) for record in done])}
        with written_whole(path) as temporary:
            save_file(tensors, temporary, metadata=header)
        self._read(path)

    def verify(self, names: Iterable[str]) -> list[str]:
        """Names whose latents no longer match their hash. Their shards are set aside; a build makes them again."""
        wrong = [name for name in names if name in self._records and not self._sound(name)]
        for shard in {self._where[name] for name in wrong}:
            shard.replace(shard.with_suffix(".damaged"))
            self.damaged.append(shard)
            for name in [own for own, place in self._where.items() if place == shard]:
                del self._where[name], self._records[name]
        return wrong

    def _sound(self, name: str) -> bool:
        try:
            return _sha(_open(self._where[name]).get_tensor(name)) == self._records[name].sha
        except (SafetensorError, OSError):
            return False

    def _read(self, shard: Path) -> None:
        try:
            with safe_open(shard, framework="pt") as file:
                records = json.loads((file.metadata() or {})["records"])
                names = set(file.keys())
            found = [PriorImage(**{**record, "bucket": Size(*record["bucket"])}) for record in records]
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            self.damaged.append(shard)  # as good as absent: the build makes its images again and says so
            return
        for record in found:
            if record.id in names and record.id not in self._records:
                self._records[record.id] = record
                self._where[record.id] = shard


def _sha(latents: Tensor) -> str:
    return sha256(latents.contiguous().numpy().tobytes()).hexdigest()


@lru_cache(maxsize=64)
def _open(shard: Path) -> safe_open:
    return safe_open(shard, framework="pt")
