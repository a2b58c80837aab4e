"""What folders of pictures become: concepts and reg folders, and the truth about both."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from tenuto.data.tags import has_trigger, plain
from tenuto.formats.imported import Draft, Uncaptioned
from tenuto.formats.subsets import READ, REG_NAMES, Subset, has_caption, rows_of, texts, uncaptioned, without_repeats
from tenuto.formats.triggers import guess_trigger
from tenuto.words import TenutoError

CUT = (
    "sd-scripts used {used} of {pool} reg pictures, the first by name, all through the training ({rows} instance "
    "pictures x repeats); tenuto draws from all {pool}, each once before any twice"
)
CAPTION_IS_HERE = (
    "so they are here (concepts.caption). What each picture shows would be better: `tenuto import --write-captions` "
    "writes this text beside those that have none, to be filled in"
)
ALL_USED = (
    "as many reg as instance rows were seen per epoch, whatever the repeats; "
    "tenuto says the same as prior.ratio = 1, and any other number works too"
)


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
    if first.masks:
        draft.put("conditioning_data_dir", f"concepts.{number}.masks", first.masks)
    captions = [caption for subset in members for caption in texts(subset)]
    _put_trigger(draft, number, first.tokens or without_repeats(first.label), captions, classes)
    for subset in more:
        entry: dict[str, Any] = {"path": subset.written, "use": "instance", "concept": name, "repeats": subset.repeats}
        folders = draft.table.setdefault("prior", {}).setdefault("folders", [])
        folders.append(entry | ({"caption": subset.tokens} if subset.tokens else {}))
        draft.put("image_dir", f"prior.folders.{len(folders) - 1}.path", subset.written)
        if subset.masks:
            draft.leave("conditioning_data_dir", subset.masks, "masks of a concept's further folders are not carried")
    _put_caption(draft, number, first)
    for subset in members:
        _say_captions_elsewhere(draft, subset)
        if not subset.settings.get("is_reg") and _looks_like_reg(subset.label):
            draft.leave(
                "image_dir",
                subset.written,
                "looks like a reg folder, but is_reg is not set: it was trained "
                "on like your own pictures, and is here; move it to [[prior.folders]] if it is one",
            )


def _put_trigger(draft: Draft, number: int, tokens: str, captions: Sequence[str], classes: Collection[str]) -> None:
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


def _put_caption(draft: Draft, number: int, subset: Subset) -> None:
    """The caption of pictures that have no file of their own."""
    count, text = uncaptioned(subset), subset.tokens or ""
    if text and (count or not subset.pictures()):
        put_caption(draft, "class_tokens", number, Uncaptioned(subset.folder, text))
    if count:
        draft.leave(
            "class_tokens",
            text,
            f"{count} pictures in {subset.written} have no caption file and were trained on "
            f"{text!r} alone; {CAPTION_IS_HERE if text else 'write what each shows beside it'}",
        )


def put_caption(draft: Draft, theirs: str, number: int, own: Uncaptioned) -> None:
    """One caption for every picture of a concept that has no file beside it."""
    draft.put(theirs, f"concepts.{number}.caption", own.caption)
    draft.uncaptioned.append(own)


def _say_captions_elsewhere(draft: Draft, subset: Subset) -> None:
    """The default there is ".caption", and most people write ".txt"."""
    if subset.extension != ".txt" and any(has_caption(path, ".txt") for path in subset.pictures()[:READ]):
        draft.leave(
            "caption_extension",
            subset.extension,
            f"{subset.written} holds .txt files, which were never read "
            'there; data.caption_extension = ".txt" reads them',
        )


def _looks_like_reg(name: str) -> bool:
    return plain(without_repeats(name)).split(" ")[0] in REG_NAMES


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
