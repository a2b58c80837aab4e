"""`tenuto lora …`: look at LoRA files and make others of them. Thin: the work is in `tenuto.adapters`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tenuto.cli.guard import guarded
from tenuto.cli.screen import Screen
from tenuto.words import TenutoError

if TYPE_CHECKING:
    import torch

    from tenuto.adapters.surgery import Change, Cut

lora = typer.Typer(no_args_is_help=True, help="LoRA files: look at them, convert, resize, merge, extract.")

LoraPath = Annotated[Path, typer.Argument(help="A LoRA file (.safetensors): kohya, LyCORIS, diffusers or peft.")]
New = Annotated[Path, typer.Option("--out", "-o", help="The new file; one that exists is never overwritten.")]
Ranks = Annotated[int | None, typer.Option("--rank", min=1, help="The largest rank of a layer.")]
Bound = Annotated[
    float, typer.Option("--error", min=0.0, max=1.0, help="Allowed |dW - dW'| / |dW| of each layer: the rank follows.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


@lora.command()
def info(
    file: LoraPath,
    header: Annotated[bool, typer.Option("--header", help="Also print the whole header.")] = False,
    as_json: Json = False,
) -> None:
    """Kind, ranks and alphas, layers and their norms, hash and header of a LoRA file."""
    with guarded():
        from tenuto.adapters.files import read_lora
        from tenuto.adapters.info import describe

        facts = describe(read_lora(file))
        typer.echo(json.dumps(facts, ensure_ascii=False) if as_json else _told(facts, header))


@lora.command()
def convert(
    file: LoraPath,
    out: New,
    to: Annotated[Literal["kohya", "diffusers"], typer.Option(help="How tensors are called in the new file.")],
    fold_alpha: Annotated[
        bool, typer.Option("--fold-alpha", help="Multiply alpha / rank into the weights and write no alpha.")
    ] = False,
    precision: Annotated[
        Literal["fp32", "fp16", "bf16"] | None, typer.Option(help="Round the weights to it; unset: as they are.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The same LoRA under other names, bit for bit; what the other naming cannot carry is said."""
    with guarded():
        from tenuto.adapters.files import read_lora, write_lora
        from tenuto.adapters.surgery import fold_alpha as folded
        from tenuto.adapters.surgery import in_precision

        read = read_lora(_new(file, out))
        read = folded(read) if fold_alpha else read
        lost = write_lora(in_precision(read, _dtype(precision)) if precision else read, out, to)
        _tell(as_json, {"file": str(out), "not_carried": lost}, [str(out), *(f"not as it was: {own}" for own in lost)])


@lora.command()
def resize(file: LoraPath, out: New, rank: Ranks = None, error: Bound = 0.0, as_json: Json = False) -> None:
    """The best LoRA of smaller ranks (singular values); makes plain LoRA of LoHa and LoKr. Says what it lost."""
    with guarded(), Screen() as screen:
        from tenuto.adapters.files import read_lora, write_lora
        from tenuto.adapters.surgery import resize as resized

        cut = _cut(rank, error)
        smaller, changes = resized(read_lora(_new(file, out)), cut, screen)
        lost = write_lora(smaller, out, smaller.naming)
        _report(as_json, out, changes, {"not_carried": lost}, [f"not carried: {own}" for own in lost])


@lora.command()
def merge(
    files: Annotated[list[Path], typer.Argument(help="LoRA files.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new file; with --into FOLDER the new folder.")],
    weights: Annotated[
        list[float] | None, typer.Option("--weight", "-w", help="Of each LoRA, in their order; unset: 1.")
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="A checkpoint (folder or single file) to add them to, instead.")
    ] = None,
    rank: Ranks = None,
    error: Bound = 0.0,
    as_json: Json = False,
) -> None:
    """Several LoRAs as one: their weighted sum, exact (ranks add up) or cut; or added to a checkpoint."""
    with guarded(), Screen() as screen:
        from tenuto.adapters.checkpoints import merge_into
        from tenuto.adapters.files import read_lora, write_lora
        from tenuto.adapters.surgery import merge as merged
        from tenuto.adapters.surgery import resize as resized

        shares = weights or [1.0] * len(files)
        if len(shares) != len(files):
            raise TenutoError(f"{len(shares)} weights for {len(files)} LoRAs; give each its own --weight, or none")
        loras = [read_lora(_new(file, out)) for file in files]
        if into is not None:
            count = merge_into(loras, shares, into, out, screen)
            _tell(as_json, {"checkpoint": str(out), "layers": count}, [f"{out}: {count} layers changed"])
            return
        whole = merged(loras, shares)
        if rank is None and not error:
            lost = write_lora(whole, out)
            facts = {"file": str(out), "layers": len(whole.layers), "not_carried": lost}
            _tell(as_json, facts, [f"{out}: {len(whole.layers)} layers", *(f"not carried: {own}" for own in lost)])
            return
        smaller, changes = resized(whole, _cut(rank, error), screen)
        lost = write_lora(smaller, out)
        _report(as_json, out, changes, {"not_carried": lost}, [f"not carried: {own}" for own in lost])


@lora.command()
def extract(
    base: Annotated[Path, typer.Argument(help="The checkpoint it began from: a single file or a diffusers folder.")],
    tuned: Annotated[Path, typer.Argument(help="The checkpoint that was made from it.")],
    out: New,
    rank: Ranks = None,
    error: Bound = 0.0,
    parts: Annotated[
        list[str] | None,
        typer.Option("--part", help="attention, feed_forward, convolution, text_encoder; several; unset: all."),
    ] = None,
    precision: Annotated[Literal["fp32", "fp16", "bf16"], typer.Option(help="Of the file's weights.")] = "fp16",
    as_json: Json = False,
) -> None:
    """A LoRA from the difference of two checkpoints, and how much of the difference it holds."""
    with guarded(), Screen() as screen:
        from tenuto.adapters.checkpoints import extract as extracted
        from tenuto.adapters.files import write_lora

        _new(base, out)
        cut, dtype = _cut(rank, error), _dtype(precision)
        file, result = extracted(base, tuned, cut, parts=_parts(parts), dtype=dtype, listener=screen)
        write_lora(file, out)
        left = {"left_out": len(result.left), "left_out_share": result.left_share}
        line = f"{len(result.left)} tensors that differ are not in it: {result.left_share:.1%} of the whole difference"
        _report(as_json, out, result.changes, left, [line] if result.left else [])


def _new(source: Path, out: Path) -> Path:
    """The source, once it is sure that nothing would be overwritten."""
    if out.exists():
        raise TenutoError(f"{out}: there already, and nothing is overwritten; choose another --out")
    return source


def _dtype(precision: str) -> torch.dtype:
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]


def _cut(rank: int | None, error: float) -> Cut:
    from tenuto.adapters.surgery import Cut

    if rank is None and not error:
        raise TenutoError("say how small: --rank 32, or --error 0.1 for the ranks that keep so much, or both")
    return Cut(rank, error)


def _parts(names: list[str] | None) -> list[Any] | None:
    from typing import get_args

    from tenuto.families.base import Part

    for name in names or []:
        if name not in get_args(Part):
            raise TenutoError(f"--part {name}: there are {', '.join(get_args(Part))}")
    return names


def _report(as_json: bool, out: Path, changes: dict[str, Change] | Any, more: dict[str, Any], lines: list[str]) -> None:
    """What a cut left, and how large the error is, of each part and in all."""
    from tenuto.adapters.surgery import errors_by_part, relative_error

    ranks = sorted(change.rank for change in changes.values())
    parts, error = errors_by_part(changes), relative_error(changes.values())
    facts = {"file": str(out), "layers": len(changes), "ranks": [ranks[0], ranks[-1]], "error": error, "parts": parts}
    told = [
        f"{out}: {len(changes)} layers of rank {ranks[0]} to {ranks[-1]}",
        f"relative error {error:.2%} ({', '.join(f'{part} {own:.2%}' for part, own in parts.items())})",
    ]
    _tell(as_json, facts | more, told + lines)


def _told(facts: dict[str, Any], header: bool) -> str:
    """The facts of a file for people."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in facts["kinds"].items())
    ranks = [f"rank {own['rank']} alpha {own['alpha']:g} ({own['layers']})" for own in facts["ranks"]]
    shown = ranks[:4] + ([f"{len(ranks) - 4} more"] if len(ranks) > 4 else [])
    lines = [
        facts["file"],
        f"  {kinds} layers for {facts['for']}, {facts['naming']} names, {'/'.join(facts['precision'])}, "
        f"{facts['parameters']:,} parameters, {facts['bytes'] / 2**20:.1f} MiB",
        f"  {', '.join(shown)}",
        *(
            f"  {part:14} {own['layers']:4} layers, |dW| {own['norm']:.4g}, largest in {own['largest']}"
            for part, own in facts["parts"].items()
        ),
        f"  hash {facts['hash'][:12]} (AutoV3)" + ("" if facts["hash_fits"] else "; the header says another"),
    ]
    lines += [f"  warning: {len(own)} {what}, first {own[0]}" for what, own in _odd(facts).items() if own]
    metadata = facts["metadata"]
    shortest = {key: value for key, value in metadata.items() if header or len(value) <= 120}
    lines += [f"  {key} = {value}" for key, value in shortest.items()]
    if len(shortest) < len(metadata):
        lines.append(f"  … and {len(metadata) - len(shortest)} long entries (--header prints them)")
    return "\n".join(lines)


def _odd(facts: dict[str, Any]) -> dict[str, list[str]]:
    return {"layers hold values that are not finite": facts["not_finite"], "tensors cannot be used": facts["unknown"]}


def _tell(as_json: bool, facts: dict[str, Any], lines: list[str]) -> None:
    typer.echo(json.dumps(facts, ensure_ascii=False) if as_json else "\n".join(lines))
