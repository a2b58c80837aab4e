"""What the project's methods cannot do without: found before any long work, shown by the audit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tenuto.adapters.tuners.base import TRAITS
from tenuto.data.dataset import Concept, Item
from tenuto.data.problems import Problem
from tenuto.families.base import Base
from tenuto.prior.prompts import PriorPrompt
from tenuto.project.settings import Project
from tenuto.regularizers.base import Regularizer
from tenuto.training.sources import MaskOf, Masks, mask_of, no_mask
from tenuto.work.adapter import tuner_for


def masks_of(project: Project, base: Base) -> MaskOf:
    """The pictures' masks, where the project has any."""
    alpha = project.data.alpha == "mask"
    return Masks(base, alpha=alpha) if alpha or any(own.masks for own in project.concepts) else no_mask


def lacks(
    project: Project,
    concepts: Sequence[Concept],
    items: Sequence[Item],
    validation: Sequence[Item],
    *,
    ratios: Mapping[str, float],
    prompts: Sequence[PriorPrompt],
) -> list[Problem]:
    """An error for everything that an active method, or the search for the best LoRA, needs and does not get.

    ratios: prior rows per instance row that there will be, by concept.
    """
    active = {name: method for name, method in project.regularizers.items() if method.active()}
    cut = [own.name for own in project.concepts if project.prior_of(own).captions != "full"]
    wordless = not any(item.caption for item in items) and not any(prompt.caption for prompt in prompts)
    found: list[Problem] = []
    tuner = tuner_for(project)
    if project.training.best.keep and not validation:
        what, remedy = "no pictures are kept out of training", "set data.validation, e.g. to 0.1, or give more pictures"
        found.append(Problem("error", "training.best", what, remedy))
    for name, method in active.items():
        if method.needs_prior() and not any(ratios.values()):
            setting = "prior.ratio is 0" if not any(project.ratios().values()) else 'prior.prompts is "none"'
            remedy = "set another one, or take the method out"
            found.append(Problem("error", f"regularizers.{name}", f"needs prior rows, and {setting}", remedy))
        if method.needs_words() and items and wordless:
            what = "measures by how much a prompt moves, and no caption has a word"
            remedy = "write captions, set concepts.caption, or normalised = false and a weight of its own"
            found.append(Problem("error", f"regularizers.{name}", what, remedy))
        if (trait := method.needs_trait()) and trait not in tuner.traits:
            what = f"needs an adapter that is {TRAITS[trait]}, and {tuner.file_kind} is none"
            found.append(
                Problem(
                    "error", f"regularizers.{name}", what, 'set training.adapter.kind = "lora", or the method otherwise'
                )
            )
        for what, remedy in _of(method, active):
            found.append(Problem("error", f"regularizers.{name}", what, remedy))
        if method.needs_states() and cut:
            what = f"kept states belong to whole prompts, and concept {cut[0]} cuts them"
            found.append(
                Problem(
                    "error",
                    f"regularizers.{name}",
                    what,
                    'set prior.captions = "full", or hold with prior_preservation',
                )
            )
        if method.needs_trigger() and not any(concept.trigger for concept in concepts):
            found.append(
                Problem("error", f"regularizers.{name}", "needs a trigger to leave out", "set concepts.trigger")
            )
        if method.needs_masks() and not _any_mask(project, items):
            remedy = 'set concepts.masks, or data.alpha = "mask" for pictures with transparency'
            found.append(Problem("error", f"regularizers.{name}", "needs masks", remedy))
    return found


def shipping(project: Project) -> list[Problem]:
    """A warning where what is trained will be no ordinary LoRA."""
    tuner = tuner_for(project)
    if not tuner.ships:
        return []
    what = f"{tuner.file_kind} does not ship as an ordinary LoRA: {tuner.ships}"
    return [Problem("warning", "training.adapter.kind", what, '"lora" is read everywhere')]


def _any_mask(project: Project, items: Sequence[Item]) -> bool:
    alpha = project.data.alpha == "mask"
    return any(mask_of(item, alpha=alpha) is not None for item in items)


def _of(method: Regularizer, active: Mapping[str, Regularizer]) -> Iterator[tuple[str, str]]:
    """What it lacks of the other methods."""
    others = active.values()
    if method.needs_company() and not any(other.needs_prior() for other in others):
        yield "changes prior rows, and no method has any", "name it alone, or add one that has, as cached_prior"
    if method.needs_sensor() and not any(other.holds() for other in others):
        yield "chooses weights, and no other method has one", "set prior.ratio above 0, or add output_preservation"
