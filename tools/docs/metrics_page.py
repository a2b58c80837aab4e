"""The metrics as a page: made of their words, docstrings and formulas, whenever the site is built."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator
from types import ModuleType

from tools.docs.words import linked, sentence, told

from tenuto.evaluation.metrics import METRICS, Metric
from tenuto.evaluation.wording import WORDS, Words

HEAD = """# Metrics

What the report's numbers mean. Every one is read on the base and on each arm at the same prompts and noise seeds;
where several trainings were made, the spread is over them. A number that cannot be read says why instead. What reads
the pictures: [readers](readers.md).
"""
COST = """## Cost

`seconds` and `forwards`: everything that an arm needed, prior set and caches included, in time and in passes of one
row through the network. Arms are never compared at equal steps: the report also says drift, bake and cost **at equal
concept strength**, read off each arm's curve of checkpoints and weights at the strength of the weaker of the two
([design](design.md#sweeps-and-the-leaderboard)).
"""


def page() -> str:
    """The whole page: one chapter for each file of metrics."""
    chapters: dict[ModuleType | None, dict[str, Metric]] = defaultdict(dict)
    for name, metric in METRICS.items():
        chapters[inspect.getmodule(metric)][name] = metric
    return (
        HEAD + "\n".join(line for file, own in chapters.items() if file for line in _chapter(file, own)) + "\n\n" + COST
    )


def _chapter(file: ModuleType, metrics: dict[str, Metric]) -> Iterator[str]:
    first, _, rest = inspect.cleandoc(file.__doc__ or "").partition("\n")
    title, _, question = first.rstrip(".").partition(": ")
    anchor = file.__name__.rpartition(".")[2]
    yield from ("", f"## {title} {{#about-{anchor}}}", "", linked(sentence(question)), "")
    for name, metric in metrics.items():
        words = WORDS.get(name, Words(name, "", ""))
        better = f"; {words.better} is better" if words.better else ""
        yield f'<span id="{name}"></span>**{words.name}** `{name}`{better}'
        yield f":   {sentence(words.says)}.\n"
        if own := inspect.getdoc(metric):
            yield f"    {linked(' '.join(own.split()))}\n"
    yield told(rest)
