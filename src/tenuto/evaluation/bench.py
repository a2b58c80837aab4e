"""The bench: one base on which LoRAs are put in turn, asked for pictures and predictions at named seeds.

Rows are grouped by size and by chunks of text, in batches of a fixed size; a row's noise depends on its own name
only, so that arms are paired picture by picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from tenuto.adapters.adapter import Adapter, added
from tenuto.adapters.files import read_lora
from tenuto.adapters.onto import attach_file
from tenuto.families.base import Base, Conditioning
from tenuto.families.sampling import SamplerSettings, sample
from tenuto.prior.states import evenly
from tenuto.words import Size


class Sampler(Protocol):
    """Draws latents [B C H W]; `watch` is told (t [B], x_t [B C H W]) in the family's native scale before each
    prediction."""

    def __call__(
        self,
        cond: Conditioning,
        uncond: Conditioning,
        size: Size,
        seeds: Sequence[int],
        watch: Callable[[Tensor, Tensor], None] | None = None,
    ) -> Tensor: ...


class Watched:
    """A base that tells what it is asked, and otherwise is that base."""

    def __init__(self, base: Base, rows: int, watch: Callable[[Tensor, Tensor], None]) -> None:
        self._base, self._rows, self._watch = base, rows, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base, name)

    def predict(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        self._watch(t[: self._rows], x_t[: self._rows])
        return self._base.predict(x_t, t, cond)


def sampler_of(base: Base, settings: SamplerSettings) -> Sampler:
    """The family's sampler with these settings."""

    def draw(
        cond: Conditioning,
        uncond: Conditioning,
        size: Size,
        seeds: Sequence[int],
        watch: Callable[[Tensor, Tensor], None] | None = None,
    ) -> Tensor:
        asked = base if watch is None else cast(Base, Watched(base, len(seeds), watch))
        return sample(asked, cond, uncond, size, seeds, settings)

    return draw


@dataclass(frozen=True)
class Wanted:
    """One picture."""

    text: str
    seed: int
    size: Size


@dataclass(frozen=True)
class State:
    """One place at which predictions are compared, on a base path."""

    text: str
    triggered: str | None
    """The same prompt with the trigger."""
    kind: str
    x_t: Tensor
    """[C H W]"""
    t: Tensor
    """A scalar."""
    size: Size


@dataclass(frozen=True)
class Bench:
    """A base, a way to sample from it, and how many rows at once."""

    base: Base
    sampler: Sampler
    negative: str = ""
    batch: int = 16
    stop: Callable[[], None] = lambda: None
    """Called between batches; raises to stop."""

    @contextmanager
    def wearing(self, lora: Path | None, second: Path | None = None) -> Iterator[Adapter | None]:
        """The base with a LoRA on it, and a second one merged into its weights; afterwards every weight is what it
        was."""
        with self._merged(second):
            if lora is None:
                yield None
                return
            adapter = attach_file(self.base, read_lora(lora))
            modes = [(module, module.training) for module in self.base.modules().values()]
            for module, _ in modes:
                module.eval()
            try:
                yield adapter
            finally:
                adapter.detach()
                for module, mode in modes:
                    module.train(mode)

    @contextmanager
    def _merged(self, lora: Path | None) -> Iterator[None]:
        if lora is None:
            yield
            return
        adapter = attach_file(self.base, read_lora(lora))
        with ExitStack() as weights:
            weights.enter_context(added(adapter.changes()))
            adapter.detach()
            yield

    def draw(self, wanted: Sequence[Wanted]) -> Iterator[tuple[int, Tensor]]:
        """(which, its pixels [3 H W] in -1..1), as the batches come."""
        for rows, drawn in self._sampled(wanted):
            yield from ((n, self._decode(latents)) for n, latents in zip(rows, drawn, strict=True))

    def _sampled(
        self, wanted: Sequence[Wanted], watch: Callable[[int, Tensor, Tensor], None] | None = None
    ) -> Iterator[tuple[list[int], Tensor]]:
        """(which, their latents [B C H W]), batch by batch. `watch` is told (which, t, x_t [C H W]) of every row at
        every step."""
        for rows in self._batches([(w.size, self._chunks(w.text, self.negative)) for w in wanted]):
            self.stop()
            size, chunks = wanted[rows[0]].size, self._chunks(wanted[rows[0]].text, self.negative)
            with torch.inference_mode():
                cond = self._text([wanted[n].text for n in rows], size, chunks)
                uncond = self._text([self.negative] * len(rows), size, chunks)
                drawn = self.sampler(cond, uncond, size, [wanted[n].seed for n in rows], self._each(rows, watch))
            yield rows, drawn.float()

    @staticmethod
    def _each(
        rows: Sequence[int], watch: Callable[[int, Tensor, Tensor], None] | None
    ) -> Callable[[Tensor, Tensor], None] | None:
        if watch is None:
            return None

        def tell(t: Tensor, x_t: Tensor) -> None:
            for place, n in enumerate(rows):
                watch(n, t.reshape(-1)[min(place, t.numel() - 1)].cpu().clone(), x_t[place].float().cpu().clone())

        return tell

    def paths(self, wanted: Sequence[Wanted], kinds: Sequence[tuple[str, str | None]], count: int) -> list[State]:
        """`count` states on the sampling path of each prompt, spread evenly over t. Call it without a LoRA on.

        kinds: per prompt its kind (near, far, empty) and its text with the trigger.
        """
        seen: dict[int, list[tuple[Tensor, Tensor]]] = {n: [] for n in range(len(wanted))}
        for _ in self._sampled(wanted, lambda n, t, x_t: seen[n].append((t, x_t))):
            pass
        states = []
        for n, (want, (kind, triggered)) in enumerate(zip(wanted, kinds, strict=True)):
            shares = [share_of(t, self.base.process.steps) for t, _ in seen[n]]
            for t, x_t in (seen[n][place] for place in evenly(shares, count)):
                states.append(State(want.text, triggered, kind, x_t, t, want.size))
        return states

    def predict(self, states: Sequence[State], texts: Sequence[str]) -> list[Tensor]:
        """The denoiser's answers [C H W] at these states under these prompts, float32 on the CPU."""
        found: dict[int, Tensor] = {}
        device, dtype = self.base.device, self.base.dtype
        for rows in self._batches(
            [(state.size, self._chunks(text)) for state, text in zip(states, texts, strict=True)]
        ):
            self.stop()
            with torch.inference_mode():
                cond = self._text([texts[n] for n in rows], states[rows[0]].size, self._chunks(texts[rows[0]]))
                x_t = torch.stack([states[n].x_t for n in rows]).to(device, dtype)
                t = torch.stack([states[n].t for n in rows]).to(device)
                answer = self.base.predict(x_t, t, cond)
            found |= {n: answer[place].float().cpu().clone() for place, n in enumerate(rows)}
        return [found[n] for n in range(len(states))]

    def losses(
        self, latents: Sequence[Tensor], texts: Sequence[str], sizes: Sequence[Size], ts: Sequence[float]
    ) -> list[float]:
        """Mean squared error against the process's target, per picture, over a fixed grid of t with named noise."""
        states, targets = [], []
        process = self.base.process
        for number, (x0, size) in enumerate(zip(latents, sizes, strict=True)):
            for share in ts:
                t = time_at(share, process.steps, process.prediction == "flow")
                noise = torch.randn(
                    x0.shape, generator=torch.Generator().manual_seed(1000 * number + round(100 * share))
                )
                states.append(State("", None, "loss", process.noisy(x0[None], noise[None], t[None])[0], t, size))
                targets.append(process.target(x0[None], noise[None], t[None])[0])
        answers = self.predict(states, [text for text in texts for _ in ts])
        errors = [float((a - b).square().mean()) for a, b in zip(answers, targets, strict=True)]
        return [sum(errors[n : n + len(ts)]) / len(ts) for n in range(0, len(errors), len(ts))]

    def encode(self, pixels: Tensor) -> Tensor:
        """Latents [C H W] of one picture [3 H W]."""
        with torch.inference_mode():
            return self.base.encode_image(pixels[None].to(self.base.device)).float().cpu().clone()[0]

    def _decode(self, latents: Tensor) -> Tensor:
        with torch.inference_mode():
            pixels = self.base.decode(latents[None].to(self.base.device))
        return pixels.float().clamp(-1, 1).cpu().clone()[0]

    def _text(self, texts: Sequence[str], size: Size, chunks: int) -> Conditioning:
        return self.base.encode_text(list(texts), [size] * len(texts), chunks)

    def _chunks(self, *texts: str) -> int:
        return max(self.base.chunks(text) for text in texts)

    def _batches(self, kinds: Sequence[tuple[Size, int]]) -> Iterator[list[int]]:
        for kind in dict.fromkeys(kinds):
            rows = [n for n, other in enumerate(kinds) if other == kind]
            yield from (rows[start : start + self.batch] for start in range(0, len(rows), self.batch))


def time_at(share: float, steps: int, flow: bool) -> Tensor:
    """t at a share of the process: a whole step, or the share itself for flow."""
    return torch.tensor(share) if flow else torch.tensor(min(round(share * steps), steps - 1))


def share_of(t: Tensor, steps: int) -> float:
    """Where t stands in the process, 0 (clean) .. 1 (noise)."""
    return float(t) if t.is_floating_point() and float(t) <= 1 else float(t) / steps


def every_few(states: Sequence[State], few: int | None) -> list[int]:
    """Numbers of the states of every few-th prompt of each kind, the empty prompt always."""
    if few is None:
        return list(range(len(states)))
    prompts = list(dict.fromkeys((state.kind, state.text) for state in states))
    chosen = {prompt for kind in ("near", "far", "empty") for prompt in [p for p in prompts if p[0] == kind][::few]}
    return [n for n, state in enumerate(states) if (state.kind, state.text) in chosen]


def callable_at(states: Sequence[State]) -> list[int]:
    """Numbers of the states whose prompt can call the concept."""
    return [n for n, state in enumerate(states) if state.triggered is not None]


def asked_at(states: Sequence[State], what: str) -> tuple[list[State], list[str]]:
    """What is asked where: the prompt, nothing, or the prompt with the trigger."""
    if what == "trigger":
        chosen = [states[n] for n in callable_at(states)]
        return chosen, [str(state.triggered) for state in chosen]
    return list(states), [state.text if what == "prompt" else "" for state in states]
