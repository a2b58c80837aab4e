"""The Prior tab: the prompts beside their captions, three numbers with their cost, the pictures as they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from starlette.responses import Response

from tenuto.data.captions import split_tags
from tenuto.data.tags import plain
from tenuto.prior.prompts import PriorPrompt
from tenuto.project.file import project_in
from tenuto.project.settings import Project, as_tables
from tenuto.web.core import Answer, Call
from tenuto.web.marks import Change
from tenuto.web.outlook import Seen
from tenuto.web.places import Place
from tenuto.web.story import previews_of

LARGEST_POOL, LARGEST_RATIO = 2000, 100.0
SHOWN = 80
"""Different prompts that are listed."""


class Numbers(Change):
    """Those of the prior's three numbers that were changed; what is left out stays as it is."""

    per_image: int | None = Field(default=None, ge=0, le=LARGEST_POOL)
    """None: as many as the run needs."""
    ratio: float | None = Field(default=None, ge=0, le=LARGEST_RATIO)
    weight: float | None = Field(default=None, ge=0, le=10_000)
    keep: bool = False


def prior(call: Call) -> Response:
    place, project = call.place, call.project
    seen = call.studio.watcher.look(project)
    captions = {item.id: item for item in seen.outlook.items}
    rows = []
    for prompt in _distinct(seen.outlook.prompts):
        item = captions.get(prompt.source)
        rows.append({"prompt": prompt, "item": item, "caption": _marked(item.caption if item else "", prompt.removed)})
    name, weight = weighed(project)
    needed = -(-len(seen.outlook.plan.images) // max(1, len(seen.outlook.items)))
    pool = needed if project.prior.per_image is None else project.prior.per_image
    ratio = project.ratio_in(project.prior)
    return call.page(
        "prior.html.j2",
        place=place,
        tab="prior",
        project=project,
        rows=rows[:SHOWN],
        total=len(rows),
        method=name,
        weight=weight,
        pool=pool,
        ratio=ratio,
        most={
            "per_image": _reach(pool, 100, LARGEST_POOL),
            "ratio": _reach(ratio, 4, LARGEST_RATIO),
            "weight": max(2, weight * 2),
        },
        cost=cost_of(seen),
        gallery=gallery(place, seen),
        images=len(seen.outlook.plan.images),
    )


def _reach(value: float, usual: float, largest: float) -> float:
    """How far a slider goes: what stands in the file is never cut."""
    return max(usual, value, min(2 * value, largest))


def _distinct(prompts: Sequence[PriorPrompt]) -> list[PriorPrompt]:
    found: dict[tuple[str, str], PriorPrompt] = {}
    for prompt in prompts:
        found.setdefault((prompt.source, prompt.text), prompt)
    return list(found.values())


def _marked(caption: str, removed: Sequence[str]) -> list[tuple[str, bool]]:
    """The caption's tags, each with whether it was taken out."""
    gone = {plain(tag) for tag in removed}
    return [(tag, plain(tag) in gone) for tag in split_tags(caption)]


def weighed(project: Project) -> tuple[str, float]:
    """The method whose weight prior rows count with, and that weight; empty where none uses them."""
    own = [(name, m.weight) for name, m in project.regularizers.items() if m.needs_prior()]
    return max(own, key=lambda pair: pair[1], default=("", 0.0))


def gallery(place: Place, seen: Seen) -> list[dict[str, Any]]:
    """The prior images that are there to look at, in the plan's order."""
    files = previews_of(place.folder)
    return [
        {"path": files[image.id], "prompt": image.prompt} for image in seen.outlook.plan.images if image.id in files
    ]


def cost_of(seen: Seen) -> dict[str, Any]:
    """What the numbers come to, in the plan's own words."""
    plan = seen.outlook.plan
    lines = [
        {"concept": own.concept, "pool": own.pool, "rows": round(own.prior_rows), "unused": own.unused}
        for own in seen.report.concepts
    ]
    return {
        "images": len(plan.images),
        "forwards": plan.forwards,
        "sentences": list(seen.report.sentences),
        "lines": lines,
        "warnings": [f"{p.what}; {p.remedy}" for p in seen.report.problems if p.file.startswith("prior")],
    }


def numbers(call: Call, body: Numbers) -> Answer:
    """The cost of three numbers; kept in the project when asked."""
    place = call.place
    if body.keep:
        with place.changing(body.seen) as table:
            place.save(_with(table, call.project, body), call.studio.roots)
        return {"say": "kept in the project", "reload": True}
    made = project_in(_with(place.table(), call.project, body), place.file, place.file.name)
    return cost_of(call.studio.watcher.look(made)) | {"ratio": made.ratio_in(made.prior)}


def _with(table: dict[str, Any], project: Project, body: Numbers) -> dict[str, Any]:
    """The project's table with the numbers that were changed; the weight is that of the method the page names."""
    given = body.model_dump(include={"per_image", "ratio"}, exclude_unset=True)
    prior = table.get("prior", {}) | given
    table["prior"] = {name: value for name, value in prior.items() if value is not None}
    name, _ = weighed(project)
    if name and body.weight is not None:
        methods = as_tables(project.regularizers)
        table["regularizers"] = methods | {name: methods[name] | {"weight": body.weight}}
    return table
