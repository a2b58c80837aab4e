"""Every reader of foreign files: valid examples, which of their files are damaged, and what a user's command does with
them. One entry each; a new reader is one more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch
from tests.steps import make_run

from benchmarks.endurance import examples
from tenuto.adapters.checkpoints import merge_into
from tenuto.adapters.files import read_lora, write_lora
from tenuto.adapters.info import describe
from tenuto.adapters.onto import attach_file
from tenuto.adapters.surgery import Cut, fold_alpha, merge, resize
from tenuto.data.bank import Bank
from tenuto.data.cache import Cache
from tenuto.data.editing import undo
from tenuto.data.filtering import filter_folder, in_sum, write_filtered
from tenuto.data.images import fit as fit_picture
from tenuto.data.images import image_size, read_image, read_mask
from tenuto.data.tag_lists import TagCsv
from tenuto.data.tags import FILTERS
from tenuto.evaluation.encoders import load_clip, load_dino
from tenuto.evaluation.readings import Store
from tenuto.evaluation.record import Comparison
from tenuto.evaluation.report import write_report
from tenuto.evaluation.sweep import SweepResult
from tenuto.evaluation.sweep_page import write_page
from tenuto.evaluation.taggers import load_tagger, read_pictures
from tenuto.evaluation.wd_tagger import Vocabulary
from tenuto.families.base import Base
from tenuto.families.checkpoints import open_base
from tenuto.families.survey import survey
from tenuto.files import write_text
from tenuto.formats.catalogue import import_project
from tenuto.formats.exported import open_folder
from tenuto.pickles import REFUSED
from tenuto.pickles import main as convert_in_child
from tenuto.prior.store import PriorStore
from tenuto.project.file import load_project
from tenuto.project.settings import Project
from tenuto.training.journal import Journal
from tenuto.web.jobs import Jobs
from tenuto.web.roots import Roots
from tenuto.web.story import Logs, curves_of, made_of, story_of
from tenuto.words import Size, TenutoError
from tenuto.work.prepare import audited, look_ahead
from tenuto.work.sweep_file import load_sweep

SIZE = Size(16, 16)


@dataclass(frozen=True)
class Reader:
    """One way in."""

    make: Callable[[Path], object]
    """Writes a valid example into an empty folder."""
    files: tuple[str, ...]
    """Patterns of those of its files that are damaged, one at a time."""
    read: Callable[[Path], object]
    """What a command does with the folder; what it writes goes below `out` in it."""


def each(*steps: Callable[[], object]) -> None:
    """Several commands on the same files: one that refuses keeps none of the others from being tried."""
    refused: list[TenutoError] = []
    for step in steps:
        try:
            step()
        except TenutoError as error:
            refused.append(error)
    if refused:
        raise refused[0]


@cache
def _base() -> Base:
    """A tiny checkpoint that is whole."""
    return open_base(str(examples.checkpoint()), device="cpu")


def _pixels(side: int = 16) -> torch.Tensor:
    return torch.linspace(-1, 1, 3 * side * side).view(1, 3, side, side)


# -- projects and what others' trainers have --------------------------------------------------------------------------


def _audit(project: Project) -> None:
    audited(look_ahead(project, survey(project.base.model, project.base.vae)))


def _import(file: str, **more: Any) -> Callable[[Path], None]:
    def read(place: Path) -> None:
        target = place / "out" / "project.toml"
        imported = import_project(place / file, target.parent, **more)
        write_text(target, imported.to_toml())
        load_project(target)

    return read


def _import_options(place: Path) -> None:
    text = (place / "options.txt").read_text(encoding="utf-8", errors="replace")
    imported = import_project(place / "dataset.toml", place / "out", extra=text)
    write_text(place / "out" / "project.toml", imported.to_toml())
    load_project(place / "out" / "project.toml")


def _sweep_file(place: Path) -> None:
    for arm in load_sweep(place / "ask.toml").arms:
        _audit(arm.project)


# -- words and pictures -----------------------------------------------------------------------------------------------


def _tag_list(name: str) -> Callable[[Path], None]:
    def read(place: Path) -> None:
        known = TagCsv.load(place / name)
        in_sum(filter_folder(place / "captions", tuple(FILTERS), known))

    return read


def _captions(place: Path) -> None:
    def filtered() -> None:
        found = filter_folder(place, tuple(FILTERS))
        write_filtered(found, place / "out")

    each(filtered, lambda: _audit(load_project(place / "p.toml")))


def _bank(place: Path) -> None:
    bank = Bank.load(place / "bank.toml")
    for _ in range(20):
        for tag in bank.draw(Random(0)):
            bank.group_of(tag)


def _pictures(place: Path) -> None:
    def one(path: Path) -> None:
        image_size(path)
        fit_picture(read_image(path), SIZE)
        read_mask(path, SIZE)

    files = [path for path in sorted(place.iterdir()) if path.suffix not in (".toml", ".txt") and path.is_file()]
    each(*(lambda path=path: one(path) for path in files), lambda: _audit(load_project(place / "p.toml")))


def _masks(place: Path) -> None:
    each(
        lambda: _audit(load_project(place / "p.toml")),
        *(lambda path=path: read_mask(path, SIZE) for path in sorted((place / "masks").iterdir())),
    )


# -- weights ----------------------------------------------------------------------------------------------------------


def _lora(place: Path) -> None:
    file, out, base = read_lora(place / "lora.safetensors"), place / "out", _base()

    each(
        lambda: describe(file),
        lambda: write_lora(file, out / "kohya.safetensors"),
        lambda: write_lora(file, out / "diffusers.safetensors", "diffusers"),
        lambda: write_lora(resize(file, Cut(rank=1))[0], out / "small.safetensors"),
        lambda: write_lora(merge([file, fold_alpha(file)], [1.0, 0.5]), out / "both.safetensors"),
        lambda: merge_into([file], [1.0], examples.checkpoint(), out / "merged"),
        lambda: attach_file(base, file).detach(),
    )


def _checkpoint(name: str) -> Callable[[Path], None]:
    def read(place: Path) -> None:
        def opened() -> None:
            base = open_base(str(place / name), device="cpu")
            with torch.no_grad():
                cond = base.encode_text(["a dog"], [SIZE])
                latents = base.encode_image(_pixels())
                base.predict(latents, torch.tensor([5]), cond)
                base.decode(latents)

        lora = examples.lora()
        each(
            opened,
            lambda: survey(str(place / name)),
            lambda: merge_into([read_lora(lora)], [1.0], place / name, place / "out" / name),
        )

    return read


def _pickle(place: Path) -> None:
    """In this process what `tenuto convert` does in a child, whose line it prints."""
    status = convert_in_child(str(place / "weights.pt"), str(place / "out" / "weights.safetensors"))
    if status == REFUSED:
        raise TenutoError("refused")


def _tagger(place: Path) -> None:
    vocabulary = Vocabulary({"hair": ("red", "long hair")}, ("1girl",), {"c": "zxq"})
    read_pictures(load_tagger(place / "tagger", "cpu", vocabulary), _pixels())


def _clip(place: Path) -> None:
    clip = load_clip(place / "clip")
    clip.see(_pixels(24))
    clip.read(["a dog"])


# -- our own files, which a disk or a person may have changed ---------------------------------------------------------


def _store(place: Path) -> None:
    store = PriorStore.open(_base().hash, place / "store")
    store.verify()
    store.pace()
    for batch in examples.prior_plan().batches(_base().chunks):
        names = [image.id for image in batch.images]
        if store.take(batch.key, names) and store.take_states(batch.key, 2, names):
            for name in names:
                store.latents(name)
                store.path(name, 2).read(1)


def _state(place: Path) -> None:
    run = make_run(_base(), place / "run", steps=examples.UPDATES + 1)
    try:
        run.resume()
        for rows in run.remaining():
            run.learn(rows)
            break
    finally:
        run.adapter.detach()


def _comparison(place: Path) -> None:
    result = Comparison.load(place / "comparison.json")
    write_report(result, place, place / "out" / "report.html")


def _sweep_result(place: Path) -> None:
    write_page(SweepResult.load(place / "sweep.json"), place, place / "out" / "sweep.html")


def _readings(place: Path) -> None:
    anew = {"gaps": "made anew"}
    found = Store(place).keep("plain-0-far", examples.READING_KEY, lambda: anew)
    _as_it_was(found in (anew, examples.READING), found)


def _run_folder(place: Path) -> None:
    """What the page shows of a run, and what a resumed training does with its log."""
    project = examples.small_project()
    story_of(place).lives()
    each(
        lambda: curves_of(project, place, Logs()),
        lambda: made_of(project, place, Logs()),
        lambda: Journal(place / "held" / "seed-0" / "log.jsonl").cut(2),
    )


def _queue(place: Path) -> None:
    jobs = Jobs(Roots.of([place]))
    jobs.all()
    jobs.current()


def _cached(place: Path) -> None:
    found, whole = Cache(place / "cache").get(examples.CACHE_KEY), examples.cached_tensors()
    _as_it_was(found is None or torch.equal(found["latents"], whole["latents"]), found)


def _as_it_was(so: bool, found: object) -> None:
    """What has a checksum is read as it was written, or not at all."""
    assert so, f"damage was taken for whole: {found}"


READERS: dict[str, Reader] = {
    "project": Reader(examples.project, ("p.toml",), lambda place: _audit(load_project(place / "p.toml"))),
    "sweep file": Reader(examples.sweep_file, ("ask.toml",), _sweep_file),
    "sd-scripts command line": Reader(examples.configs, ("run.sh",), _import("run.sh")),
    "sd-scripts batch file": Reader(examples.configs, ("run.bat",), _import("run.bat")),
    "sd-scripts dataset": Reader(examples.configs, ("dataset.toml",), _import("dataset.toml")),
    "sd-scripts options": Reader(examples.configs, ("options.toml",), _import("options.toml")),
    "sd-scripts --args": Reader(examples.configs, ("options.txt",), _import_options),
    "kohya_ss": Reader(examples.configs, ("kohya.json",), _import("kohya.json")),
    "derrian": Reader(examples.configs, ("derrian.toml",), _import("derrian.toml")),
    "d8 concepts list": Reader(examples.configs, ("concepts_list.json",), _import("concepts_list.json")),
    "d8 db_config": Reader(examples.configs, ("db_config.json",), _import("db_config.json")),
    "d8 model folder": Reader(examples.d8_folder, ("model/*.json",), _import("model", system="d8")),
    "diffusers command line": Reader(examples.configs, ("diffusers.sh",), _import("diffusers.sh")),
    "tag list, autocomplete": Reader(examples.tag_lists, ("danbooru.csv",), _tag_list("danbooru.csv")),
    "tag list, of a tagger": Reader(examples.tag_lists, ("selected_tags.csv",), _tag_list("selected_tags.csv")),
    "tag list, JSON": Reader(examples.tag_lists, ("tag_mapping.json",), _tag_list("tag_mapping.json")),
    "captions": Reader(examples.captioned, ("*.txt",), _captions),
    "prompt bank": Reader(examples.bank, ("bank.toml",), _bank),
    "pictures": Reader(examples.pictures, ("*.png", "*.jpg", "*.webp", "*.bmp"), _pictures),
    "masks": Reader(examples.masks, ("masks/*.png",), _masks),
    "LoRA, kohya": Reader(examples.kohya_lora, ("lora.safetensors",), _lora),
    "LoRA, diffusers": Reader(examples.diffusers_lora, ("lora.safetensors",), _lora),
    "LoRA, peft": Reader(examples.peft_lora, ("lora.safetensors",), _lora),
    "LoRA, LyCORIS": Reader(examples.lycoris, ("lora.safetensors",), _lora),
    "checkpoint, SD file": Reader(examples.single_file, ("sd.safetensors",), _checkpoint("sd.safetensors")),
    "checkpoint, SDXL file": Reader(examples.single_xl_file, ("xl.safetensors",), _checkpoint("xl.safetensors")),
    "checkpoint, folder": Reader(
        examples.checkpoint_folder, ("sd/*.json", "sd/*/*.json", "sd/*/*.txt", "sd/*/*.safetensors"), _checkpoint("sd")
    ),
    "pickle": Reader(examples.pickled, ("weights.pt",), _pickle),
    "tagger, ONNX": Reader(examples.onnx_tagger, ("tagger/*",), _tagger),
    "tagger, tenuto's": Reader(examples.own_tagger, ("tagger/*",), _tagger),
    "encoder, DINO": Reader(examples.dino, ("dino/*",), lambda place: load_dino(place / "dino").see(_pixels(24))),
    "encoder, CLIP": Reader(examples.clip, ("clip/*",), _clip),
    "prior store": Reader(examples.prior_store, ("store/*.json", "store/*/*.safetensors"), _store),
    "training state": Reader(examples.training_state, ("run/states/*",), _state),
    "comparison.json": Reader(examples.comparison, ("comparison.json", "*.jsonl"), _comparison),
    "sweep.json": Reader(examples.sweep_result, ("sweep.json",), _sweep_result),
    "kept readings": Reader(examples.readings, ("*.json",), _readings),
    "run folder": Reader(examples.run_folder, ("*.jsonl", "held/*/*"), _run_folder),
    "queue": Reader(examples.queue, ("runs/.jobs/*.json",), _queue),
    "cache": Reader(examples.cached, ("cache/*/*",), _cached),
    "export's record": Reader(examples.exported, ("tenuto.json",), lambda place: open_folder(place)),
    "undo record": Reader(examples.edited, ("kept.json",), lambda place: undo(place / "kept.json")),
}
