"""By what means forwards are made: how many rows at a time, compiled or not. Only rounding depends on it.

What this machine cannot do is given up, said once, and remembered in the saved state, so that a resumed training rounds
as the uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tenuto.events import Listener, warn
from tenuto.families.base import Base
from tenuto.memory import is_out_of_memory, make_room
from tenuto.words import TenutoError

FAR = 0.5
"""How far a layer's gradient may lie from the one without the compiler, over its size: half precision rounds by some
percent, a gradient that was lost is off by 1."""
COUNTS = 0.01
"""Gradients smaller than this share of the largest are noise."""

Answer = Callable[[slice], Tensor]
"""The network's answer to some of the rows at hand."""


class Means:
    """Of one training."""

    def __init__(self, base: Base, micro_batch: int | None, compiled: bool, listener: Listener) -> None:
        self.rows = micro_batch
        """Most rows in a forward with its backward; None: no limit was met."""
        self.asked: int | None = None
        """The same of a forward alone."""
        self.compiled = compiled
        self._base, self._listener = base, listener
        self._largest = 0
        self._proven = False
        """Whether the compiler's gradients were found right in this process."""

    def standing(self) -> dict[str, Any]:
        """What a saved state holds of it."""
        return {"rows": self.rows, "asked": self.asked, "compiled": self.compiled}

    def stand(self, standing: Mapping[str, Any]) -> None:
        """Go on as a saved state says."""
        self.rows, self.asked, self.compiled = (standing[name] for name in ("rows", "asked", "compiled"))

    def begin(self) -> None:
        """Set the base up."""
        self._base.compiled(self.compiled)

    def tried(self, rows: int) -> None:
        """So many rows go into a forward with its backward now."""
        self._largest = rows

    def give_way(self, error: Exception) -> bool:
        """Whether there are other means than those that ended in this error; they are taken then."""
        if is_out_of_memory(error):
            self.rows = self._halved(self._largest, "in a training step")
            return True
        return self._uncompiled(error)

    def sound(self, parameters: Sequence[Tensor], again: Callable[[], object]) -> bool:
        """Whether the gradients that the parameters have are those without the compiler; if not, it is done without.

        Looked at once: `again` makes the same gradients, here by the library's own kernels.
        """
        given = [parameter.grad for parameter in parameters]
        if not self.compiled or self._proven or not all(own is None or bool(own.isfinite().all()) for own in given):
            return True
        with torch.compiler.set_stance("force_eager"):
            again()
        pairs = [(own, by.grad) for own, by in zip(given, parameters, strict=True) if own is not None]
        for parameter, own in zip(parameters, given, strict=True):
            parameter.grad = own
        off = _furthest([(own, right) for own, right in pairs if right is not None])
        self._proven = off <= FAR
        if not self._proven:
            self._without_compiler(f"a layer's gradient is {off:.0%} off")
        return self._proven

    def make_room(self) -> None:
        """As `memory.make_room`."""
        make_room(self._base.device)

    def without_gradient(self, count: int, answer: Answer) -> Tensor:
        """The answer to so many rows, in as many parts as memory asks for."""
        while True:
            each = min(self.asked or count, count)
            try:
                parts = [answer(slice(start, start + each)) for start in range(0, count, each)]
                return parts[0] if len(parts) == 1 else torch.cat(parts)
            except Exception as error:
                if each > 1 and is_out_of_memory(error):
                    self.asked = self._halved(each, "without a gradient")
                elif not self._uncompiled(error):
                    raise
            self.make_room()

    def _uncompiled(self, error: Exception) -> bool:
        if not self.compiled or not _is_compiler(error):
            return False
        why = str(error).strip().splitlines() or [type(error).__name__]
        self._without_compiler(why[0][:200])
        return True

    def _without_compiler(self, why: str) -> None:
        self.compiled = False
        self._base.compiled(False)
        warn(self._listener, f"training.compile: failed ({why}); this training goes on without it")

    def _halved(self, rows: int, where: str) -> int:
        if rows <= 1:
            raise TenutoError(
                f"out of memory with a single row {where}; set training.gradient_checkpointing = true and run the "
                'same command again, or training.precision = "bf16" or a smaller data.buckets.area with another --out'
            )
        half = rows // 2
        warn(
            self._listener,
            f"out of memory with {rows} rows {where}: {half} at a time from now on, which changes the result only by "
            f"rounding; training.micro_batch = {half} would say so from the beginning",
        )
        return half


def _furthest(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Of gradients and what they should be: the largest distance over size of any that counts."""
    sizes = [float(right.norm()) for _, right in pairs]
    least = COUNTS * max(sizes, default=0.0)
    told = [
        float((own - right).norm()) / size
        for (own, right), size in zip(pairs, sizes, strict=True)
        if size and size >= least
    ]
    return max(told, default=0.0)


def _is_compiler(error: Exception) -> bool:
    from torch._dynamo.exc import TorchDynamoException

    return isinstance(error, TorchDynamoException)
