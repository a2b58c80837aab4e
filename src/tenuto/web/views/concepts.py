"""What a project teaches: concepts are added, and taken out again. Their pictures and captions stay as they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tenuto.data.images import EXTENSIONS
from tenuto.web.core import Answer, Call
from tenuto.web.places import Place
from tenuto.web.roots import Roots
from tenuto.words import Kind, Settings, TenutoError

KINDS: tuple[tuple[Kind, str, str], ...] = (
    ("character", "A character", "one person or figure: face, hair, body"),
    ("clothing", "Clothing", "a dress, a hat, a uniform, on anybody"),
    ("concept", "A thing or idea", "an object, a pose, an expression"),
    ("style", "A style", "how pictures are drawn, whatever they show"),
)


class NewConcept(Settings):
    """What the form of a concept asks."""

    name: str = ""
    kind: Kind
    images: str
    trigger: str = ""
    class_word: str = ""


class OldConcept(Settings):
    """A concept by its name."""

    name: str


def picture_folder(text: str, roots: Roots) -> Path:
    """The folder of pictures that the text means. Raises TenutoError where it is none."""
    folder = roots.allowed(text)
    if not folder.exists():
        raise TenutoError(f"{text[:80]}: no such folder; choose the folder of its pictures")
    if not folder.is_dir():
        raise TenutoError(f"{text[:80]}: a file; choose the folder it lies in")
    try:
        shown = (path for path in folder.iterdir() if not path.name.startswith("."))
        found = any(path.suffix.lower() in EXTENSIONS and path.is_file() for path in shown)
    except OSError as error:
        raise TenutoError(f"{text[:80]}: cannot be read ({error.strerror}); mend its permissions") from error
    if not found:
        kinds = ", ".join(EXTENSIONS)
        raise TenutoError(f"{text[:80]}: no pictures in this folder; choose one that holds {kinds} files")
    return folder


def concept_table(body: NewConcept, name: str, folder: Path, place: Place, roots: Roots) -> dict[str, Any]:
    """The concept as it stands in a project file; what is empty is left out."""
    words = {"trigger": body.trigger.strip(), "class_word": body.class_word.strip()}
    own = {"name": name, "kind": body.kind, "images": _relative(folder, place, roots)}
    return own | {key: value for key, value in words.items() if value}


def _relative(folder: Path, place: Place, roots: Roots) -> str:
    """A folder of the workspace is named from the project file, so that the workspace can be moved."""
    if roots.workspace in folder.parents:
        return Path(os.path.relpath(folder, place.file.parent)).as_posix()
    return str(folder)


def add(call: Call, body: NewConcept) -> Answer:
    place, roots = call.place, call.studio.roots
    folder = picture_folder(body.images, roots)
    name = body.name.strip() or folder.name
    with place.changing() as table:
        table["concepts"] = [*table["concepts"], concept_table(body, name, folder, place, roots)]
        place.save(table, roots)
    return {"say": f"{name} is learned as well", "go": f"/p/{place.key}/pictures"}


def remove(call: Call, body: OldConcept) -> Answer:
    place = call.place
    with place.changing() as table:
        left = [own for own in table["concepts"] if own["name"] != body.name]
        if len(left) == len(table["concepts"]):
            raise TenutoError(f"{body.name[:40]}: no such concept in this project")
        if not left:
            raise TenutoError(f"{body.name}: the only concept; add another one first")
        table["concepts"] = left
        place.save(table, call.studio.roots)
    return {"say": f"{body.name} is left out; its pictures stay", "go": f"/p/{place.key}/pictures"}
