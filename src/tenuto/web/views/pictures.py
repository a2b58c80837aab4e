"""The Pictures tab: what the audit says, captions as tags, edits of many at once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.responses import Response

from tenuto.data.captions import caption_path, read_caption, split_tags
from tenuto.data.dataset import Item
from tenuto.data.editing import CaptionEdit, edit_captions, undo, write_captions
from tenuto.data.images import EXTENSIONS
from tenuto.data.problems import Problem
from tenuto.data.tags import has_trigger, plain
from tenuto.files import write_text
from tenuto.project.settings import Project
from tenuto.web.core import Answer, Call
from tenuto.web.marks import WRITING, Change, mark_of, unchanged
from tenuto.web.places import Place
from tenuto.web.views.concepts import KINDS
from tenuto.web.views.start import Nothing
from tenuto.words import Settings, TenutoError

COMMON = 60
"""Tags that are listed with their number."""
SHOWN = 200
"""Changes of an edit that are sent to be looked at."""


class Edit(Settings):
    """An edit of many captions."""

    edit: CaptionEdit
    pictures: tuple[str, ...] | None = None
    """Their files, as the page names them; None: all."""
    write: bool = False


class Caption(Change):
    """The new caption of one picture."""

    picture: str
    text: str


def pictures(call: Call) -> Response:
    place, project = call.place, call.project
    extension = project.data.caption_extension
    values: dict[str, Any] = {"place": place, "tab": "pictures", "kinds": KINDS, "undo": _kept(place).is_file()}
    files = _files(project)
    values |= {"concepts": project.concepts, "counted": Counter(files.values())}
    values |= {"marks": {file: mark_of(caption_path(file, extension)) for file in files}}
    try:
        seen = call.studio.watcher.look(project)
    except TenutoError as error:
        return call.page(
            "pictures.html.j2",
            **values,
            error=str(error),
            cards=[_bare(file, concept, extension) for file, concept in files.items()],
            tags=[],
            report=None,
        )
    items = [*seen.outlook.items, *seen.outlook.validation]
    used = {item.path for item in items}
    trigger = {own.name: own.trigger for own in project.concepts}
    cards = [_card(item, trigger[item.concept], item in seen.outlook.validation) for item in items]
    cards += [_bare(file, concept, extension) for file, concept in files.items() if file not in used]
    named = _named(cards)
    counted = Counter(plain(tag) for item in items for tag in split_tags(item.caption))
    findings = [_finding(problem, named, extension) for problem in seen.report.problems]
    return call.page(
        "pictures.html.j2",
        **values,
        error="",
        cards=cards,
        tags=counted.most_common(COMMON),
        report=seen.report,
        findings=findings,
    )


def _files(project: Project) -> dict[Path, str]:
    """Every picture, and whose it is."""
    found: dict[Path, str] = {}
    for concept in project.concepts:
        folder = Path(concept.images)
        if folder.is_dir():
            own = sorted(p for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS and p.is_file())
            found |= {picture: concept.name for picture in own if picture not in found}
    return found


def _card(item: Item, trigger: str, aside: bool) -> dict[str, Any]:
    tags = [(tag, has_trigger(tag, trigger)) for tag in split_tags(item.caption)]
    return {
        "path": item.path,
        "name": item.path.name,
        "concept": item.concept,
        "caption": item.caption,
        "tags": tags,
        "bucket": str(item.bucket),
        "size": str(item.size),
        "aside": aside,
        "mask": item.mask,
        "plain": "|".join(plain(tag) for tag, _ in tags),
    }


def _bare(file: Path, concept: str, extension: str) -> dict[str, Any]:
    """A picture that the audit could not use: its caption as it stands."""
    try:
        caption = read_caption(file, extension)
    except TenutoError:
        caption = None
    text = caption.text if caption else ""
    tags = [(tag, False) for tag in split_tags(text)]
    return {
        "path": file,
        "name": file.name,
        "concept": concept,
        "caption": text,
        "tags": tags,
        "bucket": "",
        "size": "",
        "aside": False,
        "mask": None,
        "plain": "|".join(plain(tag) for tag, _ in tags),
    }


def _named(cards: Sequence[Mapping[str, Any]]) -> dict[Path, tuple[str, int]]:
    """Picture -> its name, with its folder where others are called the same, and its number on the page."""
    alike = Counter(card["name"] for card in cards)
    names = [c["name"] if alike[c["name"]] == 1 else f"{c['path'].parent.name}/{c['name']}" for c in cards]
    return {card["path"]: (name, number) for number, (card, name) in enumerate(zip(cards, names, strict=True))}


MERGED = re.compile(r"(?P<folder>.+) \((?P<count>\d+) files: (?P<names>.+), \.\.\.\)")
"""How a finding about many files names the first of them."""


def _finding(problem: Problem, named: Mapping[Path, tuple[str, int]], extension: str) -> dict[str, Any]:
    """With every picture that it names, and its number on the page."""
    many = MERGED.fullmatch(problem.file)
    about = [Path(many["folder"], name) for name in many["names"].split(", ")] if many else [Path(problem.file)]
    what, links = problem.what, []
    for path, (name, number) in named.items():
        if in_words := f"{path} " in f"{what} ":
            what = what.replace(str(path), name)
        if in_words or path in about or caption_path(path, extension) in about:
            links.append((name, number))
    shown = f"{Path(many['folder']).name} ({many['count']} files)" if many else problem.file
    file = about[0].name if not many and about[0].is_absolute() else shown
    return {"level": problem.level, "file": file, "what": what, "remedy": problem.remedy, "links": links}


def edit(call: Call, body: Edit) -> Answer:
    """Show what an edit would change, or make it."""
    place, project = call.place, call.project
    extension = project.data.caption_extension
    chosen = [file for file in _files(project) if body.pictures is None or str(file) in body.pictures]
    words = tuple(word for own in project.concepts for word in (own.trigger, own.class_word) if word)
    wanted = body.edit.model_copy(update={"keep": words})
    if body.write:
        with WRITING:
            count = write_captions(edit_captions(chosen, wanted, extension), _kept(place), extension)
        return {"say": f"{count} captions changed", "reload": True}
    changes = edit_captions(chosen, wanted, extension)
    shown = [{"name": own.picture.name, "before": own.before, "after": own.after} for own in changes[:SHOWN]]
    return {"changes": shown, "count": len(changes)}


def undone(call: Call, body: Nothing) -> Answer:
    with WRITING:
        done = undo(_kept(call.place))
    stay = f"; changed since and left alone: {len(done.left)}" if done.left else ""
    return {"say": f"{done.back} captions are as they were{stay}", "reload": True}


def caption(call: Call, body: Caption) -> Answer:
    """Write one caption."""
    project = call.project
    file = next((own for own in _files(project) if str(own) == body.picture), None)
    if file is None:
        raise TenutoError(f"{body.picture[:80]}: no such picture in this project")
    path, text = caption_path(file, project.data.caption_extension), " ".join(body.text.split())
    with unchanged(path, body.seen, f"{file.name}: its caption"):
        write_text(path, text + "\n")
    return {"say": f"{file.name}: caption saved", "reload": True}


def _kept(place: Place) -> Path:
    """The captions before the last edit."""
    return place.folder / "captions-before.json"
