"""Folders of pictures as sd-scripts knows them, and what they become: concepts, reg folders, and the truth about both.

train/10_sks dog/a.png, a.txt        repeats 10, class tokens "sks dog"
reg/1_dog/x.png, x.txt
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tenuto.data.captions import caption_path, read_caption, split_tags
from tenuto.data.tags import has_trigger, plain
from tenuto.formats.imported import Draft, Uncaptioned, pictures_in
from tenuto.formats.prompts import RARE
from tenuto.prior.prompts import SUBJECTS
from tenuto.words import TenutoError

PREFIXED = re.compile(r"(\d{1,9})(?:_(.*))?", re.DOTALL)
READ = 200
"""Captions that are read to find the trigger."""
REG_NAMES = ("reg", "class", "regularization", "regularisation")
CLASS_WORDS = frozenset(
    [
        "person",
        "man",
        "woman",
        "girl",
        "boy",
        "guy",
        "lady",
        "people",
        "character",
        "style",
        "dog",
        "cat",
        "animal",
        "pet",
        "bird",
        "horse",
        "face",
        "costume",
        "outfit",
        "dress",
        "clothes",
        "clothing",
        "uniform",
        "hat",
        "car",
        "vehicle",
        "toy",
        "doll",
        "building",
        "room",
        "place",
        "pose",
        "weapon",
        "sword",
        "food",
        "background",
    ]
)
"""Words that class tokens commonly end in."""
CUT = (
    "sd-scripts used {used} of {pool} reg pictures, the first by name, all through the training ({rows} instance "
    "pictures x repeats); tenuto draws from all {pool}, each once before any twice"
)
ALL_USED = (
    "as many reg as instance rows were seen per epoch, whatever the repeats; "
    "tenuto says the same as prior.ratio = 1, and any other number works too"
)


@dataclass(frozen=True)
class Subset:
    """One folder of pictures."""

    folder: Path
    """Where it lies on this machine, if it does."""
    written: str
    """How the project file calls it."""
    repeats: int = 1
    tokens: str | None = None
    """Class tokens: the caption of pictures that have no caption file. None: there was no such thing."""
    is_reg: bool = False
    dataset: int = 0
    """Reg pictures balance the instance pictures of their own dataset only."""
    extension: str = ".txt"
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Options of this folder alone."""

    def pictures(self) -> list[Path]:
        """By name, as they were read there."""
        return pictures_in(self.folder)

    @property
    def label(self) -> str:
        """The folder's own name, also of a Windows path on another system."""
        return re.split(r"[/\\]", self.written.rstrip("/\\"))[-1]

    def name(self) -> str:
        """What a concept made of it is called."""
        told = self.tokens or _without_repeats(self.label) or self.label or "concept"
        return re.sub(r"[/\\\s]+", " ", told).strip() or "concept"


def extension_of(*values: Any) -> str:
    """The first of the values that is an extension such as ".txt"; the old trainers' default is ".caption"."""
    found = (value for value in values if isinstance(value, str) and re.fullmatch(r"(\.[\w-]+)+", value))
    return next(found, ".caption")


def _without_repeats(name: str) -> str:
    match = PREFIXED.fullmatch(name)
    return (match[2] or "") if match else name


def subfolders(parent: Path) -> list[tuple[Path, int, str]]:
    """(folder, repeats, class tokens) of every `N_text` folder, sorted by name (sd-scripts: as the disk has them)."""
    try:
        folders = sorted(path for path in parent.iterdir() if path.is_dir())
    except OSError:
        return []
    named = ((path, PREFIXED.fullmatch(path.name)) for path in folders)
    return [(path, int(match[1]), match[2] or "") for path, match in named if match]


def layout(draft: Draft, option: str, parent: Path, written: str, is_reg: bool, extension: str) -> list[Subset]:
    """The subsets of a train_data_dir or reg_data_dir. Raises TenutoError for a wrong folder level."""
    found = subfolders(parent)
    if not found and parent.is_dir() and not is_reg:
        raise TenutoError(f"{parent}: no folder in it is called like '10_sks dog'; {other_level(parent)}")
    for path, repeats, _ in found:
        if repeats < 1:
            draft.leave(option, path.name, "0 repeats: left out there without a word, and here")
    if not found:
        draft.leave(
            option, written, "the folder is not on this machine, or no 'N_text' folder is in it: taken as it is"
        )
        return [Subset(parent, written, is_reg=is_reg, extension=extension)]
    return [
        Subset(path, f"{written.rstrip('/')}/{path.name}".removeprefix("./"), repeats, tokens, is_reg, 0, extension)
        for path, repeats, tokens in found
        if repeats > 0
    ]


def other_level(parent: Path) -> str:
    """The right folder, if it is one level up or down."""
    inner = next((path for path in sorted(parent.iterdir()) if path.is_dir() and subfolders(path)), None)
    if inner is not None:
        return f"did you mean {inner}?"
    if PREFIXED.fullmatch(parent.name):
        return f"did you mean the folder above, {parent.parent}?"
    return "give the folder above those that hold the pictures"


def rows_of(subsets: Iterable[Subset]) -> int | None:
    """Instance rows per epoch; None where a folder is empty or not here."""
    counts = [(len(subset.pictures()), subset.repeats) for subset in subsets if not subset.is_reg]
    return sum(count * repeats for count, repeats in counts) if counts and all(count for count, _ in counts) else None


# -- What they become -------------------------------------------------------------------------------------------------


def put_subsets(draft: Draft, subsets: Sequence[Subset]) -> None:
    """Concepts and reg folders, and what there is to be said about them."""
    instance = [subset for subset in subsets if not subset.is_reg]
    reg = [subset for subset in subsets if subset.is_reg]
    if both := {subset.folder for subset in instance} & {subset.folder for subset in reg}:
        raise TenutoError(
            f"{min(both)}: named as training and as reg folder (sd-scripts drops the second); take one out"
        )
    groups: dict[str, list[Subset]] = {}
    for subset in _once(draft, instance):
        groups.setdefault(subset.name(), []).append(subset)
    draft.table["concepts"] = []
    classes = [subset.tokens or "" for subset in reg]
    for name, members in groups.items():
        _put_concept(draft, name, members, classes)
    if not groups:
        put_placeholder(draft)
    if reg:
        _put_reg(draft, _once(draft, reg), instance)
    else:
        draft.leave(
            "reg_data_dir",
            "",
            "no reg pictures there; tenuto makes a prior set of your captions on your "
            "checkpoint, which is what it is for: [prior] ratio = 0 turns it off",
        )


def put_placeholder(draft: Draft) -> None:
    """A concept to be filled in."""
    draft.table["concepts"].append({"name": "concept", "images": "pictures"})
    draft.leave(
        "train_data_dir", "", "no folder of pictures is named: write yours into concepts.images, and the trigger"
    )


def _once(draft: Draft, subsets: Sequence[Subset]) -> list[Subset]:
    """A folder named twice counts once, as there."""
    kept: list[Subset] = []
    for subset in subsets:
        if any(subset.folder == other.folder for other in kept):
            draft.leave(
                "image_dir",
                subset.written,
                "named twice (several resolutions, or by mistake): "
                "tenuto reads it once; raise `repeats` if it shall count more",
            )
        else:
            kept.append(subset)
    return kept


def _put_concept(draft: Draft, name: str, members: Sequence[Subset], classes: Collection[str]) -> None:
    first, *more = members
    number = len(draft.table["concepts"])
    draft.table["concepts"].append({})
    draft.put("class_tokens" if first.tokens else "folder name", f"concepts.{number}.name", name)
    draft.put("image_dir", f"concepts.{number}.images", first.written)
    if first.repeats != 1:
        draft.put("num_repeats", f"concepts.{number}.repeats", first.repeats)
    captions = [caption for subset in members for caption in texts(subset)]
    put_trigger(draft, number, first.tokens or _without_repeats(first.label), captions, classes)
    for subset in more:
        entry: dict[str, Any] = {"path": subset.written, "use": "instance", "concept": name, "repeats": subset.repeats}
        folders = draft.table.setdefault("prior", {}).setdefault("folders", [])
        folders.append(entry | ({"caption": subset.tokens} if subset.tokens else {}))
        draft.put("image_dir", f"prior.folders.{len(folders) - 1}.path", subset.written)
    _say_uncaptioned(draft, first)
    for subset in members:
        _say_captions_elsewhere(draft, subset)
        if not subset.settings.get("is_reg") and _looks_like_reg(subset.label):
            draft.leave(
                "image_dir",
                subset.written,
                "looks like a reg folder, but is_reg is not set: it was trained "
                "on like your own pictures, and is here; move it to [[prior.folders]] if it is one",
            )


def put_trigger(draft: Draft, number: int, tokens: str, captions: Sequence[str], classes: Collection[str]) -> None:
    """The trigger and class word, guessed: no file of the field says which word is which."""
    trigger, class_word = guess_trigger(tokens, captions, classes)
    if not trigger:
        draft.leave(
            "class_tokens",
            tokens,
            "no word of it stands in the captions, so the trigger is not known: "
            "write concepts.trigger, or prior prompts will hold it",
        )
        return
    draft.put("class_tokens", f"concepts.{number}.trigger", trigger)
    if class_word:
        draft.put("class_tokens", f"concepts.{number}.class_word", class_word)
    draft.leave(
        "class_tokens",
        tokens,
        f"nothing there says which word is the trigger: {trigger!r} is a guess"
        + (f", {class_word!r} the class word" if class_word else "")
        + "; mend concepts.trigger if it is wrong",
    )


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


def texts(subset: Subset) -> list[str]:
    """Captions beside the pictures, as many as are needed to judge."""
    found = []
    for path in subset.pictures()[:READ]:
        try:
            caption = read_caption(path, subset.extension)
        except (TenutoError, ValueError):
            continue
        if caption is not None and caption.text:
            found.append(caption.text)
    return found


def _has_caption(path: Path, extension: str) -> bool:
    try:
        return caption_path(path, extension).is_file()
    except (OSError, ValueError):
        return False


def uncaptioned(subset: Subset) -> int:
    return sum(not _has_caption(path, subset.extension) for path in subset.pictures())


def _say_uncaptioned(draft: Draft, subset: Subset) -> None:
    count = uncaptioned(subset)
    if not count:
        return
    text = subset.tokens or ""
    draft.leave(
        "class_tokens",
        text,
        f"{count} pictures in {subset.written} have no caption file and were trained on "
        f"{text!r} alone; tenuto wants a caption beside each: `tenuto import --write-captions` writes that one, "
        "and what the picture shows would be better",
    )
    if text:
        draft.uncaptioned.append(Uncaptioned(subset.folder, text))


def _say_captions_elsewhere(draft: Draft, subset: Subset) -> None:
    """The default there is ".caption", and most people write ".txt"."""
    if subset.extension != ".txt" and any(_has_caption(path, ".txt") for path in subset.pictures()[:READ]):
        draft.leave(
            "caption_extension",
            subset.extension,
            f"{subset.written} holds .txt files, which were never read "
            'there; data.caption_extension = ".txt" reads them',
        )


def _looks_like_reg(name: str) -> bool:
    return plain(_without_repeats(name)).split(" ")[0] in REG_NAMES


# -- Reg --------------------------------------------------------------------------------------------------------------


def _put_reg(draft: Draft, reg: Sequence[Subset], instance: Sequence[Subset]) -> None:
    prior = draft.table.setdefault("prior", {})
    folders = prior.setdefault("folders", [])
    for subset in reg:
        lacking, there = uncaptioned(subset), subset.pictures()
        entry: dict[str, Any] = {"path": subset.written}
        if owner := _owner(draft, subset):
            entry["concept"] = owner
        if subset.tokens and (lacking or not there):
            entry["caption"] = subset.tokens
        folders.append(entry)
        draft.put("reg image_dir", f"prior.folders.{len(folders) - 1}.path", subset.written)
        _say_about_reg(draft, subset, lacking, len(there))
    draft.put("reg_data_dir", "prior.prompts", "none")
    draft.put("reg_data_dir", "prior.ratio", 1.0)
    draft.leave(
        "reg_data_dir",
        ", ".join(subset.written for subset in reg),
        "pictures of unknown origin: tenuto takes them in as they are and makes none "
        'of its own (prior.prompts = "none"); without that line and the folders it makes a set of your captions '
        "on your own checkpoint, which holds more",
    )
    for dataset in sorted({subset.dataset for subset in reg}):
        _say_cut(draft, [s for s in reg if s.dataset == dataset], [s for s in instance if s.dataset == dataset])


def _owner(draft: Draft, subset: Subset) -> str:
    """The concept whose class word the reg folder is called by; empty: everybody's."""
    concepts = draft.table["concepts"]
    mine = [own["name"] for own in concepts if own.get("class_word") and own["class_word"] == subset.tokens]
    return mine[0] if len(concepts) > 1 and len(mine) == 1 else ""


def _say_about_reg(draft: Draft, subset: Subset, lacking: int, count: int) -> None:
    if subset.repeats != 1:
        draft.leave(
            "num_repeats",
            subset.repeats,
            f"of the reg folder {subset.written}: it only shaped the first pass "
            "over the reg pictures there; tenuto draws every picture once before any twice",
        )
    if lacking and subset.tokens:
        draft.leave(
            "class_tokens",
            subset.tokens,
            f"{lacking} reg pictures were trained on {subset.tokens!r} alone, and "
            "are here (prior.folders.caption); captions of what they show hold more",
        )
    elif lacking:
        draft.leave(
            "class_tokens",
            "",
            f"{lacking} reg pictures in {subset.written} have neither caption nor class "
            "tokens and were trained on empty text; set prior.folders.caption",
        )
    if not count:
        draft.leave("reg image_dir", subset.written, "no picture is in it on this machine: nothing could be counted")
    triggers = [own["trigger"] for own in draft.table["concepts"] if own.get("trigger")]
    if leaks := sum(any(has_trigger(text, trigger) for trigger in triggers) for text in texts(subset)):
        draft.leave(
            "reg captions",
            leaks,
            f"captions in {subset.written} hold the trigger, which un-teaches the "
            "concept: `tenuto audit` names them, and training waits until it is out",
        )


def _say_cut(draft: Draft, reg: Sequence[Subset], instance: Sequence[Subset]) -> None:
    """What became of the reg pictures there: cut to the number of instance rows, in the order of their names."""
    order = [subset.repeats for subset in reg for _ in subset.pictures()]
    if not instance:
        draft.leave("is_reg", True, "a dataset of reg pictures alone: sd-scripts used none of them; tenuto uses all")
        return
    rows = rows_of(instance)
    if not order or rows is None:
        draft.leave(
            "reg pictures",
            "",
            "sd-scripts used at most as many as there are instance pictures x repeats, the "
            "first by name, and dropped the rest; tenuto draws from all, each once before any twice",
        )
        return
    used, filled = 0, 0
    for repeats in order:
        if filled >= rows:
            break
        used, filled = used + 1, filled + repeats
    what = CUT.format(used=used, pool=len(order), rows=rows) if used < len(order) else ALL_USED
    draft.leave("reg pictures", len(order), what)
