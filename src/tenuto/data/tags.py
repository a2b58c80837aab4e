r"""Tags: taking the trigger out of a caption, and filters for whole classes of tags.

The trigger is found literally: by walking over characters, never by a pattern made of the user's text. Found as the
same are: upper and lower case; spaces, underscores and hyphens between words; escaped and plain brackets
(`\(` and `(`); a plural -s or -es. Not found is a trigger inside a longer word (`near_misses` tells of those).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from tenuto.data.captions import is_sentence, join_tags, split_tags
from tenuto.words import TenutoError

if TYPE_CHECKING:
    from tenuto.data.tag_lists import TagCsv

# -- The trigger ------------------------------------------------------------------------------------------------------

SEPARATORS = frozenset(" \t\r\n_-\u00a0\u3000")
LINKS = frozenset(
    {"a", "an", "the", "and", "of", "with", "by", "in", "on", "at", "as", "like", "named", "called"}
    | {"showing", "featuring", "depicting", "starring", "wearing"}
)
"""Words that hang in the air when what followed them is taken out."""
OPENING, CLOSING = "([{<", ")]}>"


def _lowered(text: str) -> str:
    """In lower case, one character for one."""
    whole = text.lower()
    if len(whole) == len(text) and "\N{GREEK CAPITAL LETTER SIGMA}" not in text:  # its lower case depends on its place
        return whole
    return "".join(low if len(low := char.lower()) == 1 else char for char in text)


def _phrase(text: str) -> str:
    """How a phrase is compared: lower case, no backslashes, one space between words."""
    plain = _lowered(unicodedata.normalize("NFC", text).replace("\\", ""))
    return " ".join("".join(" " if char in SEPARATORS else char for char in plain).split())


def phrases(trigger: str) -> tuple[str, ...]:
    """A trigger setting as the phrases to look for (commas separate several), the longest first."""
    found = {phrase for tag in split_tags(trigger) if (phrase := _phrase(tag))}
    return tuple(sorted(found, key=lambda phrase: (-len(phrase), phrase)))


def _match(text: str, start: int, phrase: str) -> int | None:
    """The end of `phrase` in `text` (in lower case) when it begins exactly at `start`."""
    at = start
    for char in phrase:
        before = at
        if char == " ":
            while at < len(text) and (text[at] in SEPARATORS or text[at] == "\\"):
                at += 1
            if at == before:
                return None
            continue
        while at > start and at < len(text) and text[at] == "\\":
            at += 1
        if at >= len(text) or text[at] != char:
            return None
        at += 1
    return _word_end(text, at, phrase)


def _word_end(text: str, at: int, phrase: str) -> int | None:
    """`at`, or the end of a plural there; None in the middle of a word."""
    if not phrase[-1].isalnum():
        return at
    plurals = ("es",) if phrase.endswith(("s", "x", "z", "ch", "sh")) else ("s", "es")
    for suffix in ("", *(plurals if len(phrase.split()[-1]) >= 3 else ())):
        end = at + len(suffix)
        if text[at:end] == suffix and not (end < len(text) and text[end].isalnum()):
            return end
    return None


def _find(text: str, phrase: str) -> tuple[int, int] | None:
    lowered = _lowered(text)
    unescaped = lowered.replace("\\", "")
    if not all(word in unescaped for word in phrase.split()):  # quick, however long a caption is
        return None
    for start in _places(lowered, phrase[0]):
        if phrase[0].isalnum() and start and lowered[start - 1].isalnum():
            continue
        if (end := _match(lowered, start, phrase)) is not None:
            return start, end
    return None


def _places(text: str, char: str) -> Iterator[int]:
    at = text.find(char)
    while at >= 0:
        yield at
        at = text.find(char, at + 1)


def has_trigger(text: str, trigger: str) -> bool:
    """Whether the text holds the trigger (any of its phrases) in any spelling that counts as the same."""
    text = unicodedata.normalize("NFC", text)
    return any(_find(text, phrase) for phrase in phrases(trigger))


def near_misses(text: str, trigger: str) -> tuple[str, ...]:
    """Longer words that contain the trigger: left alone by the removal, worth a look."""
    words = {_phrase(word) for tag in split_tags(text) for word in tag.split() if not has_trigger(word, trigger)}
    glued = [phrase.replace(" ", "") for phrase in phrases(trigger)]
    return tuple(sorted(word for word in words if any(len(g) >= 3 and g in word.replace(" ", "") for g in glued)))


@lru_cache(maxsize=10_000)  # a training asks for the same captions in every epoch
def remove_trigger(caption: str, trigger: str, class_word: str = "") -> str:
    r"""The caption without the trigger: what the base would be asked for.

    A tag that is the trigger goes; a tag or sentence that holds it loses it, and the words that then hang in the air.
    With a class word, the caption keeps saying what there is to see: the class word takes the trigger's place, unless
    it stands there already. Parts that do not hold the trigger stay exactly as they are.

        remove_trigger("zxq eyes, 1girl, smile", "zxq eyes")               -> "1girl, smile"
        remove_trigger("a photo of zxq on a beach", "zxq", "dog")          -> "a photo of dog on a beach"
        remove_trigger("a photo of zxq on a beach", "zxq")                 -> "a photo on a beach"
    """
    wanted = phrases(trigger)
    if has_trigger(class_word, trigger):
        raise TenutoError(
            f"class word {class_word!r} holds the trigger {trigger!r}; choose another class word or trigger"
        )
    if not wanted or not has_trigger(caption, trigger):
        return caption
    caption = unicodedata.normalize("NFC", caption)
    everywhere = is_sentence(caption)
    named = bool(class_word) and has_trigger(caption, class_word)
    kept: list[str] = []
    place: int | None = None
    opened = ""
    changed: set[int] = set()
    for piece in split_tags(caption):
        rest = piece
        if has_trigger(piece, trigger):
            word = class_word if class_word and (everywhere or not named) else ""
            rest, used = _cut(piece, wanted, word)
            named = named or used
        if not any(char.isalnum() for char in rest.split(":")[0]) and rest != piece:
            opens, closes = _brackets(rest)
            opened += opens
            if closes and kept:
                kept[-1] += closes
            place = len(kept) if place is None else place
            continue
        if rest != piece:
            changed.add(len(kept))
        kept.append(opened + rest)
        opened = ""
    if class_word and place is not None and not named:
        kept.insert(place, class_word)
        changed = {index + (index >= place) for index in changed}
    others = [tag for index, tag in enumerate(kept) if index not in changed]
    kept = [tag for index, tag in enumerate(kept) if index not in changed or tag not in others]
    return join_tags(kept)


def _cut(piece: str, wanted: tuple[str, ...], word: str) -> tuple[str, bool]:
    """One part of a caption without any of the phrases; and whether `word` was put in their place."""
    used = False
    while found := next((span for phrase in wanted if (span := _find(piece, phrase))), None):
        left, right = piece[: found[0]].rstrip(" \t_-\\"), piece[found[1] :].lstrip(" \t_-")
        bare = not left and not right
        if word and not used and not bare and not any(_find(left, w) or _find(right, w) for w in phrases(word)):
            used = True
            piece = _joined(_joined(left, word), right)
            continue
        if right[:2].lower() in ("'s", "’s") and not right[2:3].isalnum():
            right = right[2:].lstrip()
        if not left and right.startswith((r"\(", "(")) and right.endswith(")"):
            right = ""  # the qualifier of the tag that is gone: miku \(vocaloid\)
        if not right or not right[0].isalnum() or right.split()[0].lower() in LINKS:
            while left.split() and left.split()[-1].lower() in LINKS:
                left = left[: len(left) - len(left.split()[-1])].rstrip()
        piece = _joined(left, right)
    return piece, used


def _joined(left: str, right: str) -> str:
    close = not left or not right or left[-1] in OPENING or right[0] in CLOSING + ".:;!?'’" or right.startswith(r"\)")
    return left + ("" if close else " ") + right


def _brackets(rest: str) -> tuple[str, str]:
    """What is left of an emptied part and belongs to its neighbours: "(" of "(zxq", ":1.2)" of "zxq:1.2)"."""
    opens = "".join(char for char in rest if char in OPENING)
    closes = sum(char in CLOSING for char in rest)
    if len(opens) >= closes:
        return opens[: len(opens) - closes], ""
    return "", rest.strip()


# -- Filters ----------------------------------------------------------------------------------------------------------

Category = Literal["artist", "meta", "character", "copyright"]


def plain(tag: str) -> str:
    r"""A tag as lists spell it: lower case, spaces for underscores, no backslashes, no weight. Emoticons stay."""
    text = tag.strip().lower().replace("\\", "")
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1].strip()
        head, colon, weight = text.rpartition(":")
        text = head if colon and weight.replace(".", "", 1).strip().isdigit() else text
    if len(text) <= 4 and " " not in text and sum(char.isalpha() for char in text) <= 2:
        return text
    return " ".join(text.replace("_", " ").split())


def _listed(block: str) -> frozenset[str]:
    """The tags of a block of text: one line holds several, parted by bars."""
    return frozenset(tag.strip() for line in block.splitlines() for tag in line.split("|") if tag.strip())


def _is_artist(tag: str) -> bool:
    return tag.startswith(
        ("by ", "artist:", "artist ", "art by ", "drawn by ", "painted by ", "in the style of ")
    ) or tag.endswith("(artist)")


META = _listed(
    """absurdres|highres|incredibly absurdres|lowres|commentary|commentary request|english commentary|translated
    translation request|partially translated|check translation|official art|scan|scan artifacts|jpeg artifacts
    bad id|bad pixiv id|bad twitter id|md5 mismatch|revision|duplicate|photoshop (medium)|watermark|web address
    signature|artist name|twitter username|patreon username|patreon logo|logo|dated|copyright name
    character name|english text|japanese text|third-party edit|textless version|paid reward
    paid reward available|commission|skeb commission|sample watermark|animated|video|sound|source request
    artist request|character request|copyright request|resized|upscaled|game cg|screencap|anime screencap
    anime screenshot|key visual|promotional art|magazine scan|masterpiece|best quality|amazing quality
    great quality|high quality|good quality|normal quality|medium quality|average quality|low quality
    worst quality|bad quality|very aesthetic|aesthetic|displeasing|very displeasing|newest|recent|mid|early
    oldest|old|late|safe|sensitive|nsfw|explicit|general|questionable|very awa|8k|4k|hd|uhd"""
)


def _is_meta(tag: str) -> bool:
    year = tag.removeprefix("year ")
    return (
        tag in META
        or tag.startswith(("rating:", "rating ", "meta:", "source ", "score "))
        or (year.isdigit() and len(year) == 4 and year[:2] in ("19", "20"))
    )


QUALIFIERS = _listed(
    """object|animal|food|medium|style|cosplay|weapon|clothes|flower|plant|gesture|symbol|instrument|vehicle
    machine|fruit|bird|fish|place|building|sport|game|element|company|writing|meme|text|pose|anatomy|body
    playing card|tarot|architecture|computing|physics|tool|insect|color|shape|mythology|artist"""
)
"""What stands in brackets behind general tags: "orange (fruit)", "star (symbol)"."""


def _is_character(tag: str) -> bool:
    if tag.startswith("character:"):
        return True
    name, bracket, qualifier = tag.removesuffix(")").rpartition(" (")
    return tag.endswith(")") and bool(bracket and name) and qualifier not in QUALIFIERS and any(map(str.isalpha, name))


APPEARANCE_ENDS = _listed(
    """hair|eyes|eye|skin|bangs|ears|tail|tails|horns|horn|wings|braid|braids|ponytail|twintails|eyebrows|eyelashes
    pupils|sclera|breasts|ahoge|sidelocks|beard|mustache|fang|fangs|freckles|mole|scar|haircut|bun|buns|forehead
    lips|nose|complexion|fur"""
)
"""Last words of tags about looks."""
APPEARANCE = _listed(
    """ahoge|heterochromia|bob cut|hime cut|pixie cut|afro|dreadlocks|bald|two side up|one side up|half updo
    drill hair|twin drills|hair between eyes|hair over one eye|hair over eyes|hair intakes|hair flaps
    dark-skinned female|dark-skinned male|tan|tanned|freckles|mole under eye|mole under mouth|scar on face
    scar across eye|muscular|muscular female|muscular male|curvy|petite|plump|tall|short|old|child|mature female
    mature male|elf|pointy ears|animal ears|slit pupils|vampire|demon girl|cat girl|fox girl|wolf girl|dog girl
    horse girl|facial hair|goatee|stubble|flat chest|thick thighs|wide hips|abs|facial mark|tattoo"""
)
NOT_APPEARANCE = _listed(
    """closed eyes|half-closed eyes|half closed eyes|one eye closed|rolling eyes|covering own eyes|covered eyes
    hand in own hair|hands in own hair|hand in another's hair|playing with own hair|adjusting hair|tucking hair
    touching own hair|wet hair|floating hair|tying hair|holding hair|hair in own mouth|brushing hair|empty eyes
    wide-eyed|rubbing eyes|squinting eyes|narrowed eyes|crying with eyes open|hand over eye|covering one eye
    covering ears|hand on own ear|parted lips|licking lips|pursed lips|finger to lips|fake animal ears|fake tail
    red nose|hand on own forehead|blood on face|closed eye"""
)
"""Gestures and passing states, not what somebody looks like."""


def _is_appearance(tag: str) -> bool:
    if tag in NOT_APPEARANCE:
        return False
    return tag in APPEARANCE or (" " in tag and tag.split()[-1] in APPEARANCE_ENDS) or tag in APPEARANCE_ENDS


def _is_copyright(tag: str) -> bool:
    return tag.startswith(("copyright:", "series:")) or tag.endswith((" (series)", " (copyright)"))


@dataclass(frozen=True)
class TagFilter:
    """One class of tags that prior prompts may leave out: known by pattern, and fully by a tag list's category."""

    about: str
    by_pattern: Callable[[str], bool]
    """Judges a tag in the spelling of `plain`."""
    category: Category | None = None
    """The category of a tag CSV that knows them all; None: no list has such a category, the pattern is all there is."""

    def matches(self, tag: str, known: Mapping[str, str] | TagCsv | None = None) -> bool:
        """Whether the tag belongs to the class. What a list says about a tag counts more than the pattern."""
        name = plain(tag)
        if known is not None and self.category is not None and (category := known.get(name)) is not None:
            return category == self.category
        return self.by_pattern(name)

    def complete(self, known: TagCsv | None) -> bool:
        """Whether this list knows the class. A tagger's list often has no artists, copyrights or meta tags."""
        return known is not None and self.category is not None and self.category in known.categories.values()


FILTERS: dict[str, TagFilter] = {
    "artist": TagFilter("Artists: `by x`, `artist:x`.", _is_artist, "artist"),
    "meta": TagFilter("About the file, not the picture: quality, resolution, rating, year, text.", _is_meta, "meta"),
    "character_name": TagFilter(r"Names of characters: `name \(series\)`.", _is_character, "character"),
    "character_appearance": TagFilter("What somebody looks like: hair, eyes, skin, ears, build.", _is_appearance),
    "copyright": TagFilter("Names of series and franchises.", _is_copyright, "copyright"),
}
"""Filter name in TOML -> filter. `1girl`-like and place tags belong to none of them."""
