"""The stages, each of which continues where it was stopped. `python -m tools.pocket all` from the repository's root."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from tools.pocket.common import CHECKPOINT, REPOSITORY, Bench, device, moment

app = typer.Typer(no_args_is_help=True, add_completion=False)
BENCH = Bench(REPOSITORY / ".work/pocket/bench")
Until = Annotated[str | None, typer.Option(help="Decay the learning rate to nothing by this time, e.g. 11:55.")]


def deadline(until: str | None) -> float | None:
    return moment(until) if until else None


def on_gpu(gpu: int, cpu: int) -> int:
    return gpu if device().type == "cuda" else cpu


@app.command()
def render(count: int = 30_000, workers: int = 2) -> None:
    """Draw the pictures."""
    from tools.pocket.render import render as draw

    draw(BENCH, count, workers)


@app.command()
def vae(steps: int = 6000, until: Until = None, batch: int = 0, rate: float = 2e-3, init: Path | None = None) -> None:
    """Train the autoencoder."""
    from tools.pocket.vae import train

    train(BENCH, steps, deadline(until), batch or on_gpu(96, 24), rate, str(init) if init else None)


@app.command()
def encode(share: float = 1.0) -> None:
    """Turn the pictures, or the first `share` of them, into latents."""
    from tools.pocket.vae import encode as run

    run(BENCH, share)


@app.command()
def tokenizer(wheel: Path | None = None) -> None:
    """CLIP's vocabulary, out of the open_clip_torch wheel, or from the checkpoint that lies here."""
    from tools.pocket.models import write_tokenizer

    if wheel:
        write_tokenizer(wheel, BENCH.file("tokenizer"))
    elif not BENCH.file("tokenizer").exists():
        shutil.copytree(CHECKPOINT / "tokenizer", BENCH.file("tokenizer"))


@app.command()
def restore() -> None:
    """Take the weights of the checkpoint that lies here, for training on where the working folder was lost."""
    from tools.pocket.restore import restore as take

    take(BENCH)
    tokenizer()


@app.command()
def unet(steps: int = 20_000, until: Until = None, batch: int = 0, rate: float = 5e-4) -> None:
    """Train the U-Net and the text encoder together; exports on the way."""
    from tools.pocket.unet import train

    train(BENCH, steps, deadline(until), batch or on_gpu(256, 40), rate)


@app.command()
def tagger(steps: int = 4000, until: Until = None, threads: int = 1) -> None:
    """Train the network that says what a picture shows."""
    from tools.pocket.tagger import train

    torch.set_num_threads(threads)
    train(BENCH, steps, deadline(until))


@app.command()
def export() -> None:
    """Write the checkpoint folder from what is trained so far."""
    from tools.pocket.export import export as write

    write(BENCH)


@app.command()
def measure(count: int = 200, out: Path = REPOSITORY / "docs/pocket.json") -> None:
    """Say how well pictures follow their tags, and whether unseen names are live."""
    from tools.pocket.measure import measure as run

    run(count, out)


@app.command()
def sheet(out: Path = REPOSITORY / "docs/images") -> None:
    """Draw contact sheets."""
    from tools.pocket.measure import sheets

    sheets(out)


@app.command()
def second(work: Path = REPOSITORY / ".work/pocket/second") -> None:
    """Train the second LoRA of the demo's comparison."""
    from tools.pocket.second import make

    make(work)


@app.command()
def shaded(pictures: int = 6000, steps: int = 500, until: Until = None, batch: int = 0, rate: float = 5e-4) -> None:
    """Train the second base, which draws with light and shade."""
    from tools.pocket.shaded import make

    place = Bench(REPOSITORY / ".work/pocket/shaded")
    if not place.file("tokenizer").exists():
        shutil.copytree(CHECKPOINT / "tokenizer", place.file("tokenizer"))
    make(place, pictures, steps, deadline(until), batch or on_gpu(256, 40), rate)


@app.command("all")
def everything() -> None:
    """Every stage in turn."""
    render()
    vae()
    encode()
    tokenizer()
    unet()
    tagger()
    export()
    measure()
    sheet()
    second()
    shaded()


if __name__ == "__main__":
    app()
