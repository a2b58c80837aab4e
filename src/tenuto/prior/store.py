"""The prior store: what one base made, kept for ever and shared between runs.

A folder per base holds shards (safetensors, one planned batch each), each written whole or not at all. A shard's header
carries the records of its images and their hash, so there is no index that could disagree with what lies there; and it
is named by what decides its bits, so what a run gets does not depend on what other runs left behind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tenuto.files import cache_home, hash_text, parse_json, write_json, written_whole
from tenuto.prior.claims import Claims
from tenuto.prior.states import BasePath, Kept, State, state_of
from tenuto.words import Size, TenutoError

FORMAT = 1
STATES_FORMAT = 1
"""Of the files with kept states, which a store may have beside its shards."""
DTYPE = torch.float16


class WrongBase(TenutoError):
    """A prior set was made by another checkpoint than the one being trained on (law 1)."""


class DamagedShard(TenutoError):
    """A shard is not readable, or does not match its hashes."""


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
    made: str = ""
    """Where and how: device, precision, threads, rows at once."""
    sha: str = ""
    """SHA-256 of the latents."""
    shard: str = ""
    """The shard it lies in; not written down."""

    @property
    def work(self) -> float:
        """Forwards times pixels."""
        forwards = self.steps * (1 if self.guidance == 1 else 2)
        return float(forwards * self.bucket.width * self.bucket.height)


class PriorStore:
    """Everything that one base made. Make with `open`."""

    def __init__(self, folder: Path, base_hash: str) -> None:
        self.folder, self.base_hash = folder, base_hash
        self.claims = Claims(folder / "claims")
        self._records: dict[str, PriorImage] = {}
        self._passes: dict[tuple[str, int], int] = {}
        for path in sorted(self._shards().glob("*.safetensors")):
            try:
                header = self._header(path)
            except DamagedShard:
                continue  # `take` says so when a plan wants it
            for record in header:
                self._records.setdefault(record.id, record)

    @classmethod
    def open(cls, base_hash: str, folder: Path | None = None) -> PriorStore:
        """The store of this base: in `folder`, or where all projects share it.

        Raises WrongBase when the folder belongs to another base.
        """
        place = folder or cache_home() / "prior-sets" / base_hash[:16]
        about = place / "base.json"
        try:
            known = parse_json(about.read_text(encoding="utf-8"))
        except FileNotFoundError:
            known = {"base": base_hash, "format": FORMAT}
            write_json(about, known)
        except (OSError, ValueError) as error:
            raise TenutoError(
                f"{about}: not readable ({error}); delete the folder to make the prior set again"
            ) from error
        if not isinstance(known, dict) or known.get("format") != FORMAT:
            raise TenutoError(f"{place}: not a prior store of this version of tenuto; name another folder")
        if known.get("base") != base_hash:
            raise _wrong_base(place, str(known.get("base")), base_hash)
        return cls(place, base_hash)

    # -- reading ------------------------------------------------------------------------------------------------

    def __contains__(self, name: str) -> bool:
        return name in self._records

    def record(self, name: str) -> PriorImage:
        return self._records[name]

    def records(self, names: Iterable[str]) -> list[PriorImage]:
        return [self._records[name] for name in names]

    def latents(self, name: str) -> Tensor:
        """Clean scaled latents [C H W] in float32."""
        path = self._path(self._records[name].shard)
        try:
            with safe_open(path, framework="pt") as file:
                kept: Tensor = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from error
        return kept.float()

    def take(self, key: str, names: Sequence[str]) -> bool:
        """Whether this shard is here; if so its images are the ones that `record` and `latents` answer with.

        Raises DamagedShard when it does not match its hashes, or holds other images.
        """
        if not self._path(key).exists():
            return False
        found = self._verified(self._path(key))
        if [record.id for record in found] != list(names):
            raise DamagedShard(f"{self._path(key)}: holds other images than its name says")
        self._records |= {record.id: record for record in found}
        return True

    def take_states(self, key: str, count: int, names: Sequence[str]) -> bool:
        """Whether so many states of each image of this shard are here; if so `path` answers with them.

        Raises DamagedShard when the file does not match its hash.
        """
        path = self._states_path(key, count)
        if not path.exists():
            return False
        try:
            with safe_open(path, framework="pt") as file:
                header: dict[str, str] = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            known = header["base"], header["format"], header["sha"]
            passes = int(header["passes"])
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise _damaged(path, error) from error
        if known != (self.base_hash, str(STATES_FORMAT), _sha_of_all(tensors, header["passes"])):
            raise DamagedShard(f"{path}: damaged, of another base or of another version")
        if {name.partition("/")[0] for name in tensors} != set(names):
            raise DamagedShard(f"{path}: holds states of other images than its name says")
        self._passes[key, count] = passes
        return True

    def path(self, name: str, count: int) -> BasePath:
        """The kept states of an image. Raises TenutoError when there are none."""
        record = self._records[name]
        if (record.shard, count) not in self._passes:
            raise TenutoError(
                f"{self.folder}: keeps no {count} states of prior image {name}; `tenuto prior build` makes them"
            )
        place = self._states_path(record.shard, count)

        def read(index: int) -> State:
            try:
                with safe_open(place, framework="pt") as file:
                    parts = [part for part in file.keys() if part.startswith(f"{name}/")]  # noqa: SIM118
                    return state_of({part.partition("/")[2]: file.get_slice(part)[index] for part in parts})
            except (SafetensorError, OSError) as error:
                raise _damaged(place, error) from error

        there = min(count, record.steps)
        return BasePath(record.prompt, record.negative, record.bucket, self._passes[record.shard, count], there, read)

    def verify(self) -> list[str]:
        """Every shard read through and held against its hashes; one line for each that is damaged, naming it."""
        problems = []
        for path in sorted(self._shards().glob("*.safetensors")):
            try:
                self._verified(path)
            except DamagedShard as error:
                problems.append(str(error))
        return problems

    def pace(self) -> float | None:
        """Seconds per forward and pixel, measured over all that this base made; None before the first image."""
        timed = [record for record in self._records.values() if record.kind == "generated" and record.seconds > 0]
        work = sum(record.work for record in timed)
        return sum(record.seconds for record in timed) / work if work else None

    # -- writing ------------------------------------------------------------------------------------------------

    def add(self, key: str, records: Sequence[PriorImage], latents: Mapping[str, Tensor]) -> None:
        """Write one shard, replacing a damaged one. The records' `sha` is filled in here."""
        tensors = {name: value.detach().to("cpu", DTYPE).contiguous() for name, value in latents.items()}
        done = [replace(record, sha=_sha(tensors[record.id]), shard=key) for record in records]
        kept = json.dumps([{k: v for k, v in asdict(record).items() if k != "shard"} for record in done])
        header = {"base": self.base_hash, "records": kept, "sha": hash_text(self.base_hash, kept)}
        data = save(tensors, header)
        with written_whole(self._path(key)) as temporary:
            temporary.write_bytes(data)
        self._records |= {record.id: record for record in done}

    def add_states(self, key: str, count: int, passes: int, kept: Mapping[str, Kept]) -> None:
        """Write the states of one shard's images."""
        tensors = {f"{name}/{part}": value for name, own in kept.items() for part, value in own.items()}
        sha = _sha_of_all(tensors, str(passes))
        header = {"base": self.base_hash, "format": str(STATES_FORMAT), "passes": str(passes), "sha": sha}
        data = save({name: value.contiguous() for name, value in tensors.items()}, header)
        with written_whole(self._states_path(key, count)) as temporary:
            temporary.write_bytes(data)
        self._passes[key, count] = passes

    def tidy(self) -> None:
        """Remove what killed processes left half written or claimed; what a living one is at stays."""
        for folder in (self._shards(), self.folder / "states"):
            for left in folder.glob(".*.part"):
                key = left.name[1:].partition(".")[0].partition("-")[0]
                with self.claims.on([key]) as dead:
                    if dead:
                        left.unlink(missing_ok=True)
        self.claims.tidy()

    # -- shards -------------------------------------------------------------------------------------------------

    def _shards(self) -> Path:
        return self.folder / "shards"

    def _path(self, key: str) -> Path:
        return self._shards() / f"{key}.safetensors"

    def _states_path(self, key: str, count: int) -> Path:
        return self.folder / "states" / f"{key}-{count}.safetensors"

    def _header(self, path: Path) -> list[PriorImage]:
        """The records of a shard, if its header is whole. Raises DamagedShard, WrongBase."""
        try:
            with safe_open(path, framework="pt") as file:
                header: dict[str, str] = file.metadata() or {}
            records: list[dict[str, Any]] = parse_json(header["records"])
            if header["sha"] != hash_text(header["base"], header["records"]):
                raise ValueError("its records do not match their hash")
            found = [PriorImage(**{**r, "bucket": Size(*r["bucket"]), "shard": path.stem}) for r in records]
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path, error) from error
        if header["base"] != self.base_hash:
            raise _wrong_base(path, header["base"], self.base_hash)
        return found

    def _verified(self, path: Path) -> list[PriorImage]:
        """The records of a shard, every tensor held against its hash. Raises DamagedShard, WrongBase."""
        found = self._header(path)
        try:
            with safe_open(path, framework="pt") as file:
                wrong = [record.id for record in found if _sha(file.get_tensor(record.id)) != record.sha]
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from error
        if wrong:
            raise DamagedShard(f"{path}: damaged ({len(wrong)} of {len(found)} images do not match their hash)")
        return found


def _damaged(path: Path, error: Exception) -> DamagedShard:
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DamagedShard(f"{path}: damaged ({why}); `tenuto prior build` makes its images again")


def _wrong_base(place: Path, made_by: str, wanted: str) -> WrongBase:
    return WrongBase(
        f"{place}: this prior set was made by base {made_by[:12]}, but the project trains on {wanted[:12]}; "
        "name another folder in prior.store, or remove that line"
    )


def _sha(latents: Tensor) -> str:
    shape = f"{latents.dtype} {tuple(latents.shape)} "
    return sha256(shape.encode() + latents.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def _sha_of_all(tensors: Mapping[str, Tensor], passes: str) -> str:
    return hash_text(passes, *(f"{name} {_sha(tensors[name])}" for name in sorted(tensors)))
