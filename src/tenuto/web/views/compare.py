"""The Compare tab: the same prompts and seeds on the base and on every arm, alone, beside a second LoRA and on another
checkpoint; and a way back into the project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field
from starlette.responses import Response

from tenuto.evaluation.elsewhere import FOLDER as ELSEWHERE
from tenuto.evaluation.elsewhere import carried, elsewhere_of
from tenuto.evaluation.record import Comparison
from tenuto.evaluation.report import ROW_NAMES, prompts_of, strip_prompts
from tenuto.evaluation.tables import PARTS, table
from tenuto.evaluation.verdict import verdict
from tenuto.evaluation.wording import number_text
from tenuto.families.checkpoints import find_base
from tenuto.regularizers.catalogue import REGULARIZERS
from tenuto.web.core import Answer, Call
from tenuto.web.marks import Change
from tenuto.web.places import Place
from tenuto.web.roots import Roots
from tenuto.web.story import REPORT, comparisons_of
from tenuto.web.views.files import lora_file
from tenuto.web.views.start import checkpoint
from tenuto.words import TenutoError
from tenuto.work.prepare import check_other_base

NAMES = {"base": "Base", "plain": "Plain LoRA", "held": "Held LoRA"}
HEROES = {"trained": "As trained, with the trigger", "without": "As trained, trigger left out"}
TOGETHER = {"base": "The other alone", "plain": "With plain", "held": "With held"}
"""The same where all pictures are drawn with a second LoRA."""
VIEWS = {"": "Side by side", "second": "With a second LoRA", "elsewhere": "On another checkpoint"}
"""Parts of the tab, by their name in the address."""


class Use(Change):
    """An arm whose methods shall be the project's."""

    arm: str
    harder: float = Field(default=1.0, gt=0, le=100)
    """So many times as hard."""


class Against(Change):
    """What else to compare with; what is left out stays as it is, what is empty is not compared with any more."""

    second_lora: str | None = None
    second_prompt: str | None = None
    other_base: str | None = None


@dataclass(frozen=True)
class Column:
    """One side that can be chosen: an arm, of a comparison that lies in a folder."""

    name: str
    comparison: Comparison
    folder: Path
    arm: str

    def pictures(self, row: str) -> list[Path]:
        return _files(self.comparison, self.folder, self.arm, _kept_as(self.arm, row))


def compare(call: Call) -> Response:
    place, roots = call.place, call.studio.roots
    found = [file for file in comparisons_of(place.folder) if roots.holds(file)]
    asked = call.project.comparison
    view = call.asked("view") if call.asked("view") in VIEWS else ""
    values: dict[str, Any] = {"place": place, "tab": "compare", "views": VIEWS, "view": view, "settings": asked}
    values |= {"lora": _shown(roots, asked.second_lora), "other": _shown(roots, asked.other_base)}
    if not found:
        return call.page("compare.html.j2", **values, c=None)
    chosen = next((f for f in found if f.parent.name == call.asked("concept")), found[0])
    folder, comparison = chosen.parent, Comparison.load(chosen)
    inside = roots.holds(folder / ELSEWHERE / "comparison.json")
    there = elsewhere_of(comparison, folder) if view == "elsewhere" and inside else None
    columns = _columns(comparison, folder, TOGETHER if view == "second" else NAMES)
    if there is not None:
        own = [Column(f"{each.name}, own checkpoint", comparison, folder, each.arm) for each in columns]
        columns = [*_columns(there, folder / ELSEWHERE), *own]
    shown = there or comparison
    second = "second" in comparison.pictures.get("base", {})
    rows = HEROES | ROW_NAMES if view != "second" else {"second": ROW_NAMES["second"]}
    return call.page(
        "compare.html.j2",
        **values,
        c=shown,
        concept=folder.name,
        concepts=[file.parent.name for file in found] if len(found) > 1 else [],
        verdict=verdict(comparison),
        arms=list(comparison.arms),
        names=NAMES,
        columns=columns,
        right=len(_columns(shown, folder)) - 1,
        rows=[] if view == "elsewhere" and there is None else _rows(shown, rows, columns),
        strip=None if view else _strip(comparison, place, folder),
        numbers=[row for row in table(comparison) if any(own["reason"] is None for own in row["cells"].values())],
        bleed=_second_bleed(comparison),
        beside=_shown(roots, comparison.settings.get("second_lora")) if second else "",
        there=_shown(roots, there.base.get("name")) if there else "",
        carried=carried(comparison, there) if there else [],
        report=(folder / REPORT).is_file(),
    )


def _shown(roots: Roots, path: object) -> str:
    """A setting's path as the page names it; a name of the hub's as it is."""
    with suppress(OSError, ValueError):
        if path is not None and Path(str(path)).exists():
            return roots.name(Path(str(path)))
    return str(path or "")


def _columns(comparison: Comparison, folder: Path, names: Mapping[str, str] = NAMES) -> list[Column]:
    arms = ["base", *(arm for arm in comparison.pictures if arm != "base")]
    return [Column(names.get(arm, arm), comparison, folder, arm) for arm in arms]


def _rows(comparison: Comparison, names: dict[str, str], columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Each row of the comparison with the pictures of every column at the same seeds."""
    rows = []
    for row, name in names.items():
        pictures = [own.pictures(row) for own in columns]
        count = min((len(own) for own in pictures), default=0)
        if count:
            prompts = prompts_of(comparison, row)[:count]
            rows.append({"row": row, "name": name, "pictures": pictures, "count": count, "prompts": prompts})
    return rows


def _kept_as(arm: str, row: str) -> str:
    """The base's pictures with the trigger are kept as "trigger", those without as "trained"."""
    return {"trained": "trigger", "without": "trained"}.get(row, row) if arm == "base" else row


def _files(comparison: Comparison, folder: Path, arm: str, row: str) -> list[Path]:
    names = comparison.pictures.get(arm, {}).get(row, [])
    return [folder / name for name in names if (folder / name).is_file()]


def _strip(comparison: Comparison, place: Place, folder: Path) -> dict[str, Any] | None:
    """Every strength with its pictures, arm by arm, one of each prompt; and the LoRA that can be taken at one."""
    weights = sorted({float(weight) for weight in comparison.settings.get("weights", [])})
    arms: dict[str, dict[str, Any]] = {}
    for arm in comparison.arms:
        rows = [comparison.pictures.get(arm, {}).get(f"strip-{weight:g}", []) for weight in weights]
        files = [[folder / name if (folder / name).is_file() else None for name in row] for row in rows]
        if any(map(any, files)):
            number = comparison.arms[arm].get("usable_weight")
            usable = number_text(number.mean) if number and number.mean is not None else ""
            arms[arm] = {"files": files, "usable": usable}
    if not arms:
        return None
    drawn = max(len(files) for own in arms.values() for files in own["files"])
    return {
        "weights": weights,
        "arms": arms,
        "prompts": [*strip_prompts(comparison), *[""] * drawn][:drawn],
        "lora": _lora_of(comparison, place) if "held" in arms else "",
    }


def _lora_of(comparison: Comparison, place: Place) -> str:
    """The address of the held LoRA that drew the strip; empty where it is gone."""
    seed = next(iter(comparison.training_seeds.get("held", [])), None)
    there = seed is not None and lora_file(place, "held", seed).is_file()
    return f"/p/{place.key}/lora/held/{seed}" if there else ""


def _second_bleed(comparison: Comparison) -> dict[str, str]:
    """Arm -> how much of the set's style shows on the second LoRA's subject, as the report's table says it."""
    wanted = PARTS["style_bleed"]["c"]
    rows = [row for row in table(comparison) if row["key"] == "style_bleed"]
    return next((dict(cells) for row in rows for words, cells in row["parts"] if words == wanted), {})


def use(call: Call, body: Use) -> Answer:
    """Carry an arm's methods back into the project file, as they were or holding harder or softer."""
    place = call.place
    found = comparisons_of(place.folder)
    if not found:
        raise TenutoError(f"{place.key}: nothing was compared yet")
    settings = Comparison.load(found[0]).arm_settings.get(body.arm)
    if settings is None:
        raise TenutoError(f"{body.arm[:40]}: no arm of this comparison")
    methods = _harder(settings.get("regularizers", {}), body.harder)
    with place.changing(body.seen) as table:
        table["regularizers"] = methods
        place.save(table, call.studio.roots)
    names = ", ".join(methods) or "no method"
    return {"say": f"the project now holds by {names}", "go": f"/p/{place.key}/settings#regularizers"}


def _harder(methods: Mapping[str, Mapping[str, Any]], times: float) -> dict[str, dict[str, Any]]:
    """These methods, so many times the weights of all that have one; where a budget steers them, it alone: so much
    less of it. A method that the catalogue lacks is refused with the project."""
    dials = {name: REGULARIZERS[name].dial if name in REGULARIZERS else "weight" for name in methods}
    turned, factor = ("budget", 1 / times) if "budget" in dials.values() else ("weight", times)
    return {
        name: {**own, turned: own[turned] * factor} if dials[name] == turned and turned in own else dict(own)
        for name, own in methods.items()
    }


def against(call: Call, body: Against) -> Answer:
    """Keep in the project what else it is compared with, and run it: what is trained and measured already stays."""
    place, roots = call.place, call.studio.roots
    wanted = body.model_dump(exclude={"seen"}, exclude_none=True)
    given = {name: text.strip() for name, text in wanted.items()}
    if given.get("second_lora"):
        given["second_lora"] = str(roots.allowed(given["second_lora"]))
    if given.get("other_base"):
        given["other_base"] = checkpoint(given["other_base"], roots)
        if isinstance(find_base(given["other_base"]), Path):  # a hub id is asked by the run, which may fetch it
            check_other_base(call.project.base.model, given["other_base"])
    with place.changing(body.seen) as table:
        comparison = table.get("comparison", {}) | given
        table["comparison"] = {name: value for name, value in comparison.items() if value != "" or name not in given}
        place.save(table, roots)
    if not any(given.values()):
        return {"say": "left out of the comparison", "reload": True}
    call.studio.jobs.add(place, "run")
    return {"say": "started; what is trained already stays", "reload": True}
