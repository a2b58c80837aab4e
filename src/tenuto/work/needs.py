"""What the project's methods cannot do without: found before any long work, shown by the audit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tenuto.data.dataset import Concept, Item
from tenuto.data.problems import Problem
from tenuto.families.base import Base
from tenuto.project import Project
from tenuto.regularizers.base import Regularizer
from tenuto.training.sources import MaskOf, Masks, no_mask


def masks_of(project: Project, base: Base) -> MaskOf:
    """Masks from the pictures' transparency, where the project asks for them."""
    return Masks(base) if project.data.alpha == "mask" else no_mask


def lacks(project: Project, base: Base, concepts: Sequence[Concept], items: Sequence[Item]) -> list[Problem]:
    """An error for everything that an active method needs and does not get."""
    active = {name: method for name, method in project.regularizers.items() if method.active()}
    cut = [own.name for own in project.concepts if project.prior_of(own).captions != "full"]
    masks = masks_of(project, base)
    found: list[Problem] = []
    for name, method in active.items():
        for what, remedy in _of(method, active):
            found.append(Problem("error", f"regularizers.{name}", what, remedy))
        if method.needs_states() and cut:
            what = f"kept states belong to whole prompts, and concept {cut[0]} cuts them"
            found.append(Problem("error", f"regularizers.{name}", what, 'set prior.captions = "full"'))
        if method.needs_trigger() and not any(concept.trigger for concept in concepts):
            found.append(
                Problem("error", f"regularizers.{name}", "needs a trigger to leave out", "set concepts.trigger")
            )
        if method.needs_masks() and all(masks(item, False) is None for item in items):
            remedy = 'set data.alpha = "mask" and give pictures with transparency'
            found.append(Problem("error", f"regularizers.{name}", "needs masks", remedy))
    return found


def _of(method: Regularizer, active: Mapping[str, Regularizer]) -> Iterator[tuple[str, str]]:
    """What it lacks of the other methods."""
    others = active.values()
    if method.needs_company() and not any(other.needs_prior() for other in others):
        yield "changes prior rows, and no method has any", "add cached_prior"
    if method.needs_sensor() and not any(other.holds() for other in others):
        yield "chooses weights, and no other method has one", "add cached_prior"
