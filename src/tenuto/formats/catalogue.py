"""Every foreign system, written out by hand; the key is the name for --from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tenuto.formats import d8, d8_out, derrian, diffusers, kohya_ss, sd_scripts, sd_scripts_out
from tenuto.formats.command_line import commands
from tenuto.formats.exported import Exported, PriorSet
from tenuto.formats.imported import Imported
from tenuto.formats.source import Readable, Source, open_source, reading_only
from tenuto.words import TenutoError


@dataclass(frozen=True)
class System:
    """One way in."""

    about: str
    """What it reads."""
    recognises: Callable[[Source], bool]
    read: Callable[[Source, Mapping[str, Any], Path], Imported]


SYSTEMS: dict[str, System] = {
    "kohya_ss": System("kohya_ss (Bmaltais): the saved .json", kohya_ss.recognises, kohya_ss.read),
    "derrian": System("Derrian's LoRA_Easy_Training_Scripts: the saved .toml", derrian.recognises, derrian.read),
    "d8": System(
        "D8 sd_dreambooth_extension: concepts_list.json, db_config.json, model folder", d8.recognises, d8.read
    ),
    "diffusers": System("diffusers: a train_dreambooth_lora.py command line", diffusers.recognises, diffusers.read),
    "sd-scripts": System(
        "sd-scripts (Kohya): N_text folders, dataset .toml, option .toml, command line",
        sd_scripts.recognises,
        sd_scripts.read,
    ),
}
"""In the order in which they are tried."""

EXPORTS: dict[str, Callable[[PriorSet, Path], Exported]] = {
    "sd-scripts": sd_scripts_out.export,
    "d8": d8_out.export,
}
"""Ways out for a prior set; the key is the name for --to."""


def import_project(
    path: Path,
    target: Path,
    *,
    system: str | None = None,
    extra: str = "",
    may_read: Readable = lambda _: True,
    home: Path | None = None,
) -> Imported:
    """A foreign config as a project whose file will lie in `target`.

    system: a key of SYSTEMS; None: found out from the content. extra: further options that win over those of the
    file, as text ("--network_dim 8") or the name of a file that holds them. may_read: asked before a file or folder is
    looked at; what may not be read counts as not there. home: where its relative paths begin, if not where it lies.
    Raises TenutoError.
    """
    with reading_only(may_read):
        source = replace(open_source(path), home=home)
        found = _system(source, system)
        return SYSTEMS[found].read(source, _extra(extra), target.resolve())


def _system(source: Source, name: str | None) -> str:
    if name is not None:
        if name not in SYSTEMS:
            raise TenutoError(f"--from {name}: there are {', '.join(SYSTEMS)}")
        return name
    for key, system in SYSTEMS.items():
        if system.recognises(source):
            return key
    raise TenutoError(
        f"{source.path}: not recognised as a config of {', '.join(SYSTEMS)}; give another file, or name one with --from"
    )


def _extra(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        is_file = "\n" not in text and Path(text).is_file()
    except (OSError, ValueError):
        is_file = False
    if is_file:
        source = open_source(Path(text))
        if isinstance(source.data, dict):
            return sd_scripts.flat(source.data)
        text = source.text
    options = {name: value for each in commands(text) for name, value in each.options.items()}
    if not options:
        raise TenutoError(f"--args {text[:40]!r}: no options in it; write --name value, or name a file that holds them")
    return {name.replace("-", "_"): value for name, value in options.items()}
