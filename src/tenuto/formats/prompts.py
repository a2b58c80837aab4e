"""What an instance prompt and a class prompt tell: the trigger, and what it is a case of."""

from __future__ import annotations

from tenuto.data.captions import split_tags
from tenuto.data.tags import has_trigger

RARE = ("sks", "ohwx", "zwx", "tok", "shs", "zkz")
"""Words that people take for triggers because they mean nothing."""
FILEWORDS = "[filewords]"


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
