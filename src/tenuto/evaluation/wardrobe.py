"""What the base wears while it is read: nothing, a LoRA at some strength, a second one below it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from tenuto.adapters.adapter import Adapter
from tenuto.evaluation.bench import Bench


@dataclass(frozen=True)
class Model:
    """What a reading is taken of: the base, or the base with LoRAs on it."""

    name: str
    lora: Path | None = None
    strength: float = 1.0
    second: Path | None = None


BASE = Model("base", strength=0.0)


class Wardrobe:
    """Puts LoRAs on a bench's base and takes them off."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._worn: tuple[tuple[Path | None, Path | None], Adapter | None, ExitStack] | None = None

    @contextmanager
    def on(self, model: Model) -> Iterator[None]:
        """The base as this model. What was put on stays on until something else is asked for: attaching and taking off
        take time. For the bare base it is switched off, which is the same bit for bit."""
        worn = self._worn
        if model == BASE and worn is not None and worn[0][1] is None and worn[1] is not None:
            with worn[1].disabled():
                yield
            return
        if self._worn is None or self._worn[0] != (model.lora, model.second):
            self.bare()
            with ExitStack() as stack:
                adapter = stack.enter_context(self._bench.wearing(model.lora, model.second))
                self._worn = ((model.lora, model.second), adapter, stack.pop_all())
        with self._at(self._worn[1], model.strength):
            yield

    def _at(self, adapter: Adapter | None, strength: float) -> AbstractContextManager[None]:
        """Merged into the weights, which saves a quarter of a forward, unless they are so coarse that the rounding
        would be read as drift."""
        if adapter is None:
            return nullcontext()
        return adapter.strength(strength) if self._bench.base.coarse else adapter.merged(strength)

    def bare(self) -> None:
        """Take everything off."""
        if self._worn is not None:
            worn, self._worn = self._worn, None
            worn[2].close()
