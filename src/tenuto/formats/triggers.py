"""The trigger and the class word, guessed: no file of the field says which word is which."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from tenuto.data.captions import split_tags
from tenuto.data.tags import has_trigger, plain
from tenuto.prior.prompts import SUBJECTS

RARE = ("sks", "ohwx", "zwx", "tok", "shs", "zkz")
"""Words that people take for triggers because they mean nothing."""
CLASS_WORDS = frozenset(
    """person man woman girl boy guy lady people character style dog cat animal pet bird horse face costume outfit
    dress clothes clothing uniform hat car vehicle toy doll building room place pose weapon sword food
    background""".split()  # noqa: SIM905
)
"""Words that class tokens commonly end in."""
FILEWORDS = "[filewords]"


def guess_trigger(tokens: str, captions: Sequence[str], classes: Collection[str] = ()) -> tuple[str, str]:
    """(trigger, class word) of "sks dog"; the captions have the last word, where there are any.

    classes: class tokens of the reg folders, which name class words for certain.
    """
    whole = " ".join(part for part in re.split(r"[\s,]+", tokens) if part)
    split = _split(whole, classes)
    if not captions:
        return split
    heads = [split_tags(caption)[:1] for caption in captions]
    common = heads[0][0] if heads[0] and all(head == heads[0] for head in heads) else ""
    for word, class_word in [split, (whole, ""), (whole.split(" ")[0], ""), (common, "")]:
        if word and plain(word) not in SUBJECTS and 2 * sum(has_trigger(c, word) for c in captions) >= len(captions):
            return word, class_word
    return "", ""


def _split(whole: str, classes: Collection[str]) -> tuple[str, str]:
    """The words before the class word, and the class word."""
    for class_word in sorted((each for each in classes if each), key=len, reverse=True):
        if whole.endswith(" " + class_word):
            return _without(whole[: -len(class_word) - 1], class_word)
    head, _, last = whole.rpartition(" ")
    if head and (last.lower() in CLASS_WORDS or plain(last) in SUBJECTS):
        return _without(head, last)
    first, _, rest = whole.partition(" ")
    return _without(first, rest) if first.lower() in RARE and rest else (whole, "")


def _without(trigger: str, class_word: str) -> tuple[str, str]:
    return trigger, "" if has_trigger(class_word, trigger) else class_word


def trigger_of(instance: str, other: str) -> tuple[str, str]:
    """(trigger, class word) of "a photo of sks dog" beside "a photo of dog": what the second lacks."""
    words = [word for tag in split_tags(instance.replace(FILEWORDS, "")) for word in tag.split()]
    known = {word.lower() for tag in split_tags(other.replace(FILEWORDS, "")) for word in tag.split()}
    new = [at for at, word in enumerate(words) if (word.lower() not in known if known else word.lower() in RARE)]
    if not new:
        return "", ""
    run = [at for number, at in enumerate(new) if at == new[0] + number]
    trigger = " ".join(words[at] for at in run)
    after = words[run[-1] + 1 : run[-1] + 2]
    class_word = after[0] if after and (not known or after[0].lower() in known) else ""
    return trigger, "" if has_trigger(class_word, trigger) else class_word
