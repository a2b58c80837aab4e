"""The first page: projects, the beginner's form, login."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse, Response

from tenuto.data.images import EXTENSIONS
from tenuto.families.shipped import BASES
from tenuto.project.file import RUNS
from tenuto.web.core import Answer, Call
from tenuto.web.guard import token_of
from tenuto.web.login import COOKIE, LASTS
from tenuto.web.places import DEMO, Place, new_place, own_place, places
from tenuto.web.roots import Roots
from tenuto.web.samples import PICTURES, passes, sampling
from tenuto.web.story import reports_of
from tenuto.web.views.concepts import KINDS, NewConcept, concept_table, picture_folder
from tenuto.words import Settings, TenutoError

DEPTH = 3
"""Folders below a root that are searched for checkpoints."""
FOUND = 60
LARGE = 500_000_000
"""Bytes that a checkpoint has at least."""
INSIDE = re.compile(r"/(?:[^/\\\x00-\x20][^\x00-\x1f]*)?")
"""An address of this page; browsers read "//", "/\\" and "/" before a control character as another site."""


class NewProject(NewConcept):
    """The beginner's form: a concept and its checkpoint."""

    model: str
    samples: bool = False
    """Draw pictures while it trains."""
    go: bool = False
    """Start at once, where the audit finds no error."""


class Credentials(Settings):
    user: str
    password: str


class Nothing(Settings):
    """An action without further values."""


def home(call: Call) -> Response:
    jobs = call.studio.jobs
    roots = call.studio.roots
    rows = [{"place": own, "job": jobs.of(own.key), "facts": _facts(own, roots)} for own in places(roots)]
    return call.page("home.html.j2", rows=rows)


def _facts(place: Place, roots: Roots) -> dict[str, Any]:
    pictures: list[Path] = []
    concept = ""
    try:
        project = place.load(roots)
        concept = ", ".join(f"{own.kind} “{own.trigger or own.name}”" for own in project.concepts)
        folder = Path(project.concepts[0].images)
        pictures = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in EXTENSIONS][:4]
    except (TenutoError, OSError) as error:
        return {"error": str(error), "pictures": [], "concept": concept, "report": False}
    report = bool(reports_of(place.folder))
    return {"error": "", "pictures": pictures, "concept": concept, "report": report}


def new(call: Call) -> Response:
    return call.page(
        "new.html.j2", kinds=KINDS, models=[*BASES, *_checkpoints(call.studio.roots)], samples=PICTURES, passes=passes()
    )


def create(call: Call, body: NewProject) -> Answer:
    roots, jobs = call.studio.roots, call.studio.jobs
    folder = picture_folder(body.images, roots)
    place = new_place(roots, body.name or folder.name)
    concept = concept_table(body, place.key, folder, place, roots)
    model = checkpoint(body.model.strip(), roots)
    drawn = sampling(folder) if body.samples else {}
    place.save({"base": {"model": model}, "concepts": [concept], **drawn}, roots)
    if not body.go:
        return {"go": f"/p/{place.key}/pictures"}
    try:
        report = call.studio.watcher.look(place.load(roots)).report
    except TenutoError:
        return {"go": f"/p/{place.key}/pictures"}
    if report.errors:
        return {"go": f"/p/{place.key}/pictures", "say": "Look at the findings first."}
    jobs.add(place, "run")
    return {"go": f"/p/{place.key}/training"}


def demo(call: Call, body: Nothing) -> Answer:
    """The demo as a run of this workspace; it writes its own pictures and project, once."""
    roots, jobs = call.studio.roots, call.studio.jobs
    there = next((own for own in places(roots) if own.key == DEMO), None)
    if there is not None:
        jobs.add(there, "run")
    else:
        jobs.add(own_place(roots, DEMO), "demo")
    return {"go": "/runs"}


def checkpoint(text: str, roots: Roots) -> str:
    """A file or folder that is here, by its whole path; otherwise a name, as it is."""
    try:
        here = text not in BASES and (roots.workspace / text).exists()
    except (OSError, ValueError) as error:
        raise TenutoError(f"{text[:60]!r}: no checkpoint; choose a file or folder, or give a hub id") from error
    return str(roots.allowed(text)) if here else text


def _checkpoints(roots: Roots) -> list[str]:
    """Files and folders below the roots that look like checkpoints."""
    found: list[str] = []

    def search(folder: Path, depth: int) -> None:
        try:
            entries = sorted(p for p in folder.iterdir() if p.name[:1] != ".")
        except OSError:
            return
        for path in entries:
            if len(found) >= FOUND:
                return
            if not roots.holds(path):
                continue
            if path.is_dir():
                if (path / "model_index.json").is_file():
                    found.append(roots.name(path))
                elif depth < DEPTH and path.name != RUNS:
                    search(path, depth + 1)
            elif path.suffix.lower() == ".safetensors" and _size(path) > LARGE:
                found.append(roots.name(path))

    for root in roots.folders:
        search(root, 0)
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a link that leads nowhere
        return 0


def login_page(call: Call) -> Response:
    return call.page("login.html.j2", next=_inside(call.asked("next", "/")))


def enter(call: Call, body: Credentials) -> Answer | Response:
    login = call.studio.login
    if login is None:
        return {"go": "/"}
    if login.tired():
        raise TenutoError("too many wrong passwords; wait a minute")
    token = login.enter(body.user, body.password)
    if token is None:
        raise TenutoError("user or password is wrong")
    answer = JSONResponse({"go": _inside(call.asked("next", "/"))})
    secure = call.request.url.scheme == "https"
    answer.set_cookie(COOKIE, token, max_age=LASTS, httponly=True, samesite="strict", secure=secure)
    return answer


def leave(call: Call, body: Nothing) -> Answer:
    if call.studio.login is not None:
        call.studio.login.leave(token_of(call.request.headers.get("cookie", "")))
    return {"go": "/login"}


def _inside(target: str) -> str:
    """A path of this page; never another site."""
    return target if INSIDE.fullmatch(target) else "/"
