"""Architectures at full size, with random weights: written as a single file, opened, one training step on a CPU.

    python -m benchmarks.big [--only sdxl] [--precision bf16]

It shows that a downloaded checkpoint of that size loads and trains here, how long a step takes, the most memory that
was held, and how much of it the update took beside what the audit counts for it (`work/memory.py`; on Linux). Each
architecture runs in a process of its own, so that memory is counted apart.
"""

from __future__ import annotations

import math
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.data.schedule import Draw, Update
from tenuto.families.autoencoder import PREFIX
from tenuto.families.base import Base
from tenuto.families.checkpoints import open_base
from tenuto.families.keys import Origin, clip_origins, open_clip_origins, unet_origins, vae_origins
from tenuto.families.layouts import LAYOUTS, Layout
from tenuto.families.meter import bytes_of, weightless
from tenuto.families.recognise import UNET
from tenuto.families.weights import empty
from tenuto.training.loop import Run
from tenuto.training.rows import Row
from tenuto.training.settings import TrainingSettings
from tenuto.training.trial import held_by_update
from tenuto.words import Size

SIZE = Size(512, 512)
PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}


def random_file(form: str, path: str) -> None:
    """A whole checkpoint of this layout in bfloat16: small weights, norms of 1, biases of 0."""
    pool = torch.randn(1 << 26, generator=torch.Generator().manual_seed(0)).mul(0.02).to(torch.bfloat16)
    tensors: dict[str, Tensor] = {}
    for module, origins in _parts(LAYOUTS[form]):
        for name, value in module.state_dict().items():
            shape = _shape(tuple(value.shape), origins[name])
            if len(shape) == 1:
                made = torch.full(shape, float(name.endswith("weight")), dtype=torch.bfloat16)
            else:
                made = pool[: torch.Size(shape).numel()].reshape(shape).clone()
            tensors[origins[name].key] = made
    save_file(tensors, path)


def _parts(layout: Layout) -> Iterable[tuple[Any, Mapping[str, Origin]]]:
    unet, vae = empty(UNet2DConditionModel, layout.unet), empty(AutoencoderKL, layout.vae)
    yield unet, unet_origins(layout.unet, unet.state_dict(), UNET)
    yield vae, vae_origins(layout.vae, vae.state_dict(), PREFIX)
    for own in layout.text_encoders:
        encoder = empty(CLIPTextModelWithProjection if own.projected else CLIPTextModel, own.config)
        naming = clip_origins if own.form == "clip" else open_clip_origins
        yield encoder, naming(encoder.state_dict(), own.prefixes[0])


def _shape(shape: tuple[int, ...], origin: Origin) -> tuple[int, ...]:
    if origin.transposed:
        return shape[::-1]
    return shape if origin.third is None else (3 * shape[0], *shape[1:])


def one_step(path: str, precision: str, answer: Any) -> None:
    """Open the file, encode a picture and a prompt, make one update; tell seconds and the most memory held."""
    marks = [time.perf_counter()]
    base = open_base(path, device="cpu", dtype=PRECISIONS[precision])
    marks.append(time.perf_counter())
    pixels = torch.rand(1, 3, SIZE.height, SIZE.width, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latents = base.encode_image(pixels)[0]
    marks.append(time.perf_counter())
    settings = TrainingSettings(
        steps=1, batch=1, watch_every=0, gradient_checkpointing=True, adapter=AdapterSettings(rank=16)
    )
    adapter = Adapter.attach(base, settings.adapter)
    row = Row("a", 0, "instance", SIZE, "1girl, smile, beach", 1, latents)
    counted = _counted(base, settings, row)
    base.checkpointing(True)
    before = _resident(reset=True)
    marks.append(time.perf_counter())
    run = Run(
        base=base, adapter=adapter, settings=settings, regularizers={}, updates=[Update((Draw("a", 0, "instance"),))],
        sources={}, rows_per_epoch=1, seed=0, folder=Path(tempfile.gettempdir()),
    )  # fmt: skip
    losses = run.learn([row])
    moved = run.apply()
    marks.append(time.perf_counter())
    opened, encoded, _, stepped = (end - start for start, end in pairwise(marks))
    answer.put({
        "update": _resident() - before, "counted": counted / 2**30,
        "notes": base.notes[0], "opened": opened, "encoded": encoded, "stepped": stepped, "loss": losses["instance"],
        "gradient": moved["gradient_norm"], "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    })  # fmt: skip


def _counted(base: Base, settings: TrainingSettings, row: Row) -> int:
    """What the audit says that an update and the optimizer's moments take."""
    twin = weightless(base)
    adapter = Adapter.attach(twin, settings.adapter)
    moments = int(settings.optimizer.remembers * bytes_of(adapter.parameters()))
    return held_by_update(twin, adapter, settings, {}, [row]) + moments


def _resident(*, reset: bool = False) -> float:
    """GiB: the most that this process held since the last reset, or what it holds at the reset; nan off Linux."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not clear.exists():
        return math.nan
    if reset:
        clear.write_text("5")
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 2**20


def measure(form: str, precision: str, folder: Path) -> dict[str, Any]:
    """Write, then open and train, each in a fresh process."""
    context = multiprocessing.get_context("spawn")
    path, answer = folder / f"{form}.safetensors", context.Queue()
    for task, arguments in ((random_file, (form, str(path))), (one_step, (str(path), precision, answer))):
        worker = context.Process(target=task, args=arguments)
        worker.start()
        worker.join()
        if worker.exitcode:
            raise SystemExit(f"{form}: {task.__name__} ended with {worker.exitcode}")
    found: dict[str, Any] = answer.get()
    found["file"] = path.stat().st_size / 2**30
    path.unlink()
    return found


def main(
    only: Annotated[list[str] | None, typer.Option(help="sd1, sd2 or sdxl; unset: sd1 and sdxl")] = None,
    precision: Annotated[str, typer.Option(help="bf16 or fp32")] = "bf16",
    scratch: Annotated[Path | None, typer.Option(help="where the files (7 GiB) lie while they are used")] = None,
) -> None:
    for form in only or ("sd1", "sdxl"):
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            found = measure(form, precision, Path(folder))
        print(
            f"{found['notes']}: {SIZE}, {precision}; file {found['file']:.1f} GiB opened in {found['opened']:.1f} s, "
            f"picture encoded in {found['encoded']:.1f} s, update {found['stepped']:.1f} s, loss {found['loss']:.3f}, "
            f"peak memory {found['peak']:.1f} GiB; "
            f"the update took {found['update']:.2f} GiB, counted {found['counted']:.2f}",
            flush=True,
        )
        if not (math.isfinite(found["loss"]) and math.isfinite(found["gradient"]) and found["gradient"] > 0):
            sys.exit(f"{form}: loss {found['loss']}, gradient {found['gradient']}")


if __name__ == "__main__":
    typer.run(main)
