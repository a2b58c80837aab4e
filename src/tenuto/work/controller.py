"""What the drift controller reads: prompts of its own, how their paths are sampled, and what each path counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, cycle
from math import ceil

from tenuto.data.bank import Bank
from tenuto.data.dataset import Concept, Item
from tenuto.evaluation.prompts import derive
from tenuto.prior.plan import PriorPlan, plan_prior
from tenuto.prior.prompts import PriorPrompt
from tenuto.project.settings import Project
from tenuto.training.probe import STATES_READ
from tenuto.words import TenutoError

STATES_KEPT = 8
"""Of a path: twice as many as there are places to read, so that some lie near every place of t."""
GUIDANCE = 4.0
"""Where the prior's sampler is not guided: both answers of the base are needed."""
STEPS = 12
"""Of a path at most: on twenty a LoRA drifts 3 or 4 % more, on six a tenth less (docs/findings.md)."""
NEAR_EVERY = 4
"""Of so many paths one is near the set: far from it lies most of what drifts, and prompts differ most in that."""


@dataclass(frozen=True)
class ControllerPlan(PriorPlan):
    """Images whose paths the controller reads, by turns one of each concept; none where there is no controller."""

    weights: tuple[float, ...] = ()
    """What each path counts, 1 in the mean: all that are near the sets as much as all that are far from them, as in a
    comparison."""


def plan_controller(
    project: Project, concepts: Sequence[Concept], items: Sequence[Item], bank: Bank, prior: Sequence[PriorPrompt]
) -> ControllerPlan:
    """None of the prompts is a prior prompt or a caption as it is: test prompts avoid what is taken, and would lie
    further off if the nearest were taken here. Far ones are spread over the bank, for how far they drift goes by their
    tags. Whoever looks at the first few sees some of all kinds."""
    sampler = project.prior_sampler().model_copy(update={"negative": ""})
    if not sampler.guided:
        sampler = sampler.model_copy(update={"guidance": GUIDANCE})
    sampler = sampler.model_copy(update={"steps": min(sampler.steps, STEPS)})
    count = ceil(project.sensor_states() / STATES_READ / len(concepts))
    of_each: list[list[tuple[PriorPrompt, float]]] = []
    for concept in concepts if count else ():
        taken = {prompt.text for prompt in prior} | {prompt.text for prompt, _ in chain.from_iterable(of_each)}
        captions = {concept.untriggered(item.caption) for item in items}
        near = ceil(count / NEAR_EVERY)
        far = count - near
        asks = derive(
            items, concept, bank, each=0, near=near, far=far, seed=project.seed, avoid=taken | captions,
            purpose="controller", spread=far,
        )  # fmt: skip
        if not (some := asks.near() or asks.rows["far"]):
            raise TenutoError(
                f"{bank.name}: no prompt is left for the drift controller; give `prior.bank` a larger one"
            )
        close, away = cycle(asks.near() or some), cycle(asks.rows["far"] or some)
        of_each.append([])
        for number in range(count):
            ask, weight = (next(away), count / 2 / far) if number % NEAR_EVERY else (next(close), count / 2 / near)
            prompt = PriorPrompt(ask.bare, f"controller {number}", concept.name, ask.size, caption=ask.bare)
            of_each[-1].append((prompt, weight))
    by_turns = list(chain.from_iterable(zip(*of_each, strict=True)))
    plan = plan_prior([own for own, _ in by_turns], sampler, seed=project.prior.seed, batch=project.prior.batch)
    return ControllerPlan(**vars(plan), weights=tuple(weight for _, weight in by_turns))
