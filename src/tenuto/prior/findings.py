"""Findings about pictures, captions and prompts, whatever the plan is: what the audit asks of each set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from tenuto.data.captions import split_tags
from tenuto.data.dataset import Concept, Item
from tenuto.data.problems import Problem
from tenuto.data.tags import has_trigger
from tenuto.prior.prompts import PriorPrompt

NEAR = 8
"""Pictures whose perceptual hashes (256 bits) differ in at most this many bits count as near copies."""
SHOWN = 3
"""Files named in a finding about many of them."""


def words(concept: Concept, items: Sequence[Item]) -> Iterable[Problem]:
    """Trigger and class word against the captions."""
    mine = [item for item in items if item.concept == concept.name]
    where = str(concept.images or concept.name)
    if not mine:
        yield Problem("error", where, f"concept {concept.name!r} has no usable picture", "mend or add pictures")
        return
    if not concept.trigger and concept.kind != "style":
        yield Problem("warning", where, f"concept {concept.name!r} has no trigger", "give the word that shall call it")
    if concept.trigger:
        without = [item for item in mine if not has_trigger(item.caption, concept.trigger)]
        if len(without) == len(mine):
            what = f"trigger {concept.trigger!r} stands in no caption"
            yield Problem("error", where, what, "write it into the captions or mend `trigger`")
        for item in without if len(without) < len(mine) else ():
            what = f"caption without the trigger {concept.trigger!r}"
            yield Problem("warning", str(item.path), what, "add it unless the picture lacks the concept")
    if concept.class_word and has_trigger(concept.class_word, concept.trigger):
        what = f"class word {concept.class_word!r} holds the trigger {concept.trigger!r}"
        yield Problem("error", where, what, "choose another class word or trigger")
    elif concept.class_word and not any(has_trigger(item.caption, concept.class_word) for item in mine):
        what = f"class word {concept.class_word!r} stands in no caption"
        yield Problem("warning", where, what, "add it to the captions or choose one that they use")


def duplicates(items: Sequence[Item]) -> Iterable[Problem]:
    """Copies byte for byte, and pictures that look the same (pairs, each picture with the first one like it)."""
    first: dict[str, Item] = {}
    distinct: list[Item] = []
    for item in items:
        if item.content and item.content in first:
            other = first[item.content]
            where = f" of concept {other.concept!r}" if other.concept != item.concept else ""
            what = f"the same file as {other.path}{where}"
            yield Problem("warning", str(item.path), what, "remove one, or use `repeats` if it shall count more")
            continue
        first[item.content] = item
        near = next((o for o in distinct if item.look and o.look and (item.look ^ o.look).bit_count() <= NEAR), None)
        if near is not None:
            yield Problem("warning", str(item.path), f"looks like {near.path}", "keep one of near copies")
        distinct.append(item)


def enlarged(items: Sequence[Item]) -> Iterable[Problem]:
    for item in items:
        if item.size.width < item.bucket.width or item.size.height < item.bucket.height:
            what = f"{item.size} is enlarged to {item.bucket}"
            yield Problem("warning", str(item.path), what, "use a larger picture or set buckets.upscale = false")


def empty_prompts(prompts: Sequence[PriorPrompt]) -> Iterable[Problem]:
    counts = Counter(prompt.concept for prompt in prompts if not split_tags(prompt.text))
    for concept, count in counts.items():
        remedy = "write fuller captions, give a class word, or set prior.enrich = true"
        yield Problem("warning", f"prior prompt of {concept}", f"{count} prompts are empty", remedy)


def foreign_pictures(foreign: Sequence[Item], concepts: Sequence[Concept]) -> Iterable[Problem]:
    for item in foreign:
        for concept in concepts:
            if has_trigger(item.caption, concept.trigger):
                what = f"reg caption holds the trigger {concept.trigger!r}"
                yield Problem("error", str(item.path), what, "take it out: the picture would un-teach the concept")
    if uncaptioned := [item for item in foreign if not item.caption]:
        what = f"{len(uncaptioned)} reg pictures without a caption are trained on empty text"
        yield Problem("warning", str(uncaptioned[0].path.parent), what, "write captions or set the folder's `caption`")
    if foreign and any(item.role == "prior" for item in foreign):
        what = "reg pictures of unknown origin: they are not what this base would have made"
        yield Problem("warning", str(foreign[0].path.parent), what, "prefer a set generated on the base")


def merged(problems: Iterable[Problem]) -> list[Problem]:
    """The same finding about many files becomes one that counts them and names the first."""
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for problem in problems:
        files = groups[problem.level, problem.what, problem.remedy]
        if problem.file not in files:
            files.append(problem.file)
    merged = []
    for (level, what, remedy), files in groups.items():
        if len(files) > SHOWN:
            names = ", ".join(Path(file).name for file in files[:SHOWN])
            files = [f"{Path(files[0]).parent} ({len(files)} files: {names}, ...)"]
        merged += [Problem("error" if level == "error" else "warning", file, what, remedy) for file in files]
    return merged
