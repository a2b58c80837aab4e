"""The processes of one job, as `accelerate launch` or `torchrun` starts them: each a rank, the first one writes.

Only small things are exchanged, so a few plain collectives are enough. Before each of them all ranks have met on the
CPU; one that failed has said so by then or is gone, and the others end instead of waiting for it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from tenuto.words import TenutoError

T = TypeVar("T")

PATIENCE = timedelta(hours=1)
"""How long ranks wait for each other, for instance while the first draws sample pictures."""
GRACE = 5.0
"""Seconds that the first rank, ending early, stays for the others; one that was killed never comes."""
FAILED = "tenuto/failed"
"""How many ranks have ended early."""


class RankLost(TenutoError):
    """Another process of the job is gone."""


class Ranks:
    """This process among those of its job. Alone, everything here is what a single process would do."""

    def __init__(self, store: Any = None, rank: int = 0, count: int = 1) -> None:
        """store: where the processes find each other (a torch.distributed store)."""
        self.rank, self.count, self._store = rank, count, store
        if count > 1:
            dist.init_process_group(store=store, rank=rank, world_size=count, timeout=PATIENCE)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def part(self, items: Sequence[T]) -> list[T]:
        """This rank's share of some work: every `count`-th item."""
        return list(items[self.rank :: self.count])

    # -- exchange: every rank calls these, in the same order -------------------------------------------------------

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks, bit for bit the same on each; `values` is overwritten."""
        if self.count > 1:
            if values.device.type != "cpu":
                self.meet()
            self._exchange(lambda: dist.all_reduce(values))
        return values

    def any(self, flag: bool) -> bool:
        """Whether any rank says yes."""
        return flag if self.count == 1 else bool(self.sum(torch.tensor(int(flag))))

    def meet(self) -> None:
        """Wait until all are here."""
        self.any(False)

    def same(self, text: str) -> bool:
        """Whether all ranks say the same."""
        if self.count == 1:
            return True
        own = torch.tensor(list(sha256(text.encode()).digest()), dtype=torch.int64)
        return not self.any(not torch.equal(self._from_first(own.clone()), own))

    def told(self, values: dict[str, Any]) -> dict[str, Any]:
        """Plain JSON values as the first rank has them."""
        if self.count == 1:
            return values
        told: dict[str, Any] = json.loads(self.from_first(json.dumps(values).encode()))
        return told

    def from_first(self, data: bytes) -> bytes:
        """What the first rank gives; what the others give is not looked at."""
        if self.count == 1:
            return data
        size = int(self._from_first(torch.tensor(len(data))))
        own = data if self.first else bytes(size)
        return self._from_first(torch.frombuffer(bytearray(own), dtype=torch.uint8)).numpy().tobytes() if size else b""

    def _from_first(self, values: Tensor) -> Tensor:
        self._exchange(lambda: dist.broadcast(values, src=0))
        return values

    def _exchange(self, collective: Callable[[], object]) -> None:
        try:
            collective()
        except RuntimeError as error:
            raise self._lost() from error

    # -- ending -------------------------------------------------------------------------------------------------

    def tells(self) -> bool:
        """Whether this rank, which is about to end early, is the one that says why: the first that comes here."""
        if self.count == 1:
            return True
        try:
            return bool(self._store.add(FAILED, 1) == 1)
        except RuntimeError:  # who kept the store is gone: better two lines than none
            return True

    def check(self) -> None:
        """Raise RankLost when another process has ended early: for long work between exchanges."""
        if self.count > 1 and self._failed():
            raise self._lost()

    def _failed(self) -> bool:
        try:
            return bool(self._store.check([FAILED]))
        except RuntimeError:
            return True

    def _lost(self) -> RankLost:
        return RankLost(
            f"process {self.rank + 1} of {self.count}: another process of this job has ended (killed, or out of "
            "memory?); the same command goes on from what was saved"
        )

    def leave(self) -> None:
        """Let go of the others. The first keeps the store: after a failure it stays until they have asked who tells."""
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()
            if self.first and self._failed():
                self._let_others_ask()

    def _let_others_ask(self) -> None:
        limit = time.monotonic() + GRACE
        while self._store.add(FAILED, 0) < self.count and time.monotonic() < limit:
            time.sleep(0.02)


ALONE = Ranks()


def from_environment(environment: Mapping[str, str] = os.environ) -> Ranks:
    """This process as its launcher started it. A GPU of its own is made the current one.

    Raises TenutoError when there are more processes than GPUs on a machine that has some.
    """
    count = int(environment.get("WORLD_SIZE", "1"))
    if count == 1:
        return ALONE
    if torch.cuda.is_available():
        local, gpus = int(environment.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= gpus:
            raise TenutoError(f"{local + 1} processes or more on a machine with {gpus} GPUs: start one for each GPU")
        torch.cuda.set_device(local)
    try:
        return Ranks(*next(rendezvous("env://")))
    except (RuntimeError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise TenutoError(
            f"the {count} processes of this job do not find each other ({why}); start them with `accelerate launch` or "
            "`torchrun`, and see that the first machine's address and port can be reached"
        ) from error


@contextmanager
def joined(environment: Mapping[str, str] = os.environ) -> Iterator[Ranks]:
    """This process's place in its job, for as long as the block lasts."""
    ranks = from_environment(environment)
    try:
        yield ranks
    finally:
        ranks.leave()
