"""D8's concepts: pictures, tokens, prompts and class images of each."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

from tenuto.formats.concepts import CAPTION_IS_HERE, put_caption
from tenuto.formats.imported import NEUTRAL, Draft, Uncaptioned, pictures_in
from tenuto.formats.rules import Goes, apply, carry
from tenuto.formats.source import find, written
from tenuto.formats.subsets import Subset, texts, uncaptioned
from tenuto.formats.triggers import FILEWORDS, guess_trigger, trigger_of
from tenuto.formats.values import at_least_zero, natural, positive, read_or_none, words

PREVIEW = (
    "n_save_sample",
    "sample_seed",
    "save_guidance_scale",
    "save_infer_steps",
    "save_sample_prompt",
    "save_sample_negative_prompt",
    "save_sample_template",
    "is_valid",
)
SAMPLER: dict[str, Goes] = {
    "class_guidance_scale": Goes("prior.sampler.guidance", at_least_zero),
    "class_infer_steps": Goes("prior.sampler.steps", positive),
    "class_negative_prompt": Goes("prior.sampler.negative", words, unset=(None, "")),
}


def _text(table: Mapping[str, Any], name: str) -> str:
    value = table.get(name)
    return value.strip() if isinstance(value, str) else ""


def put_concept(draft: Draft, entry: Any, number_: int, folder: Path, target: Path) -> None:
    if not isinstance(entry, dict) or not _text(entry, "instance_data_dir"):
        draft.leave(
            f"concept {number_ + 1}",
            entry,
            "names no instance_data_dir: D8 dropped it without a word; so it is left out, and said",
        )
        return
    place = _text(entry, "instance_data_dir")
    subset = Subset(find(place, folder), written(place, folder, target))
    at = len(draft.table["concepts"])
    taken = {own["name"] for own in draft.table["concepts"]}
    name = _text(entry, "class_token") or _text(entry, "instance_token") or subset.name()
    name = name.replace("/", " ").replace("\\", " ")
    name = name if name not in taken else f"{name} {at + 1}"
    draft.table["concepts"].append({"name": name})
    draft.put("instance_data_dir", f"concepts.{at}.images", subset.written)
    _put_tokens(draft, entry, at, subset)
    _put_instance_prompt(draft, entry, at, subset)
    _put_pool(draft, entry, at, subset)
    _say_class_folder(draft, entry, folder)
    for key in PREVIEW:
        if key in entry:
            draft.leave(key, entry[key], "previews: tenuto's are training.sample_prompts, and the report")
    known = {
        *PREVIEW,
        *SAMPLER,
        "instance_data_dir",
        "class_data_dir",
        "instance_prompt",
        "class_prompt",
        "instance_token",
        "class_token",
        "num_class_images_per",
        "num_class_images",
    }
    apply(draft, {str(key): value for key, value in entry.items() if key not in known}, {})


def _put_tokens(draft: Draft, entry: Mapping[str, Any], at: int, subset: Subset) -> None:
    token, class_token = _text(entry, "instance_token"), _text(entry, "class_token")
    if token:
        draft.put("instance_token", f"concepts.{at}.trigger", token)
        if class_token:
            draft.put("class_token", f"concepts.{at}.class_word", class_token)
        else:
            draft.leave(
                "class_token",
                "",
                "empty: D8 then left the trigger in every class prompt, which un-teaches the "
                "concept; tenuto always takes it out",
            )
        return
    draft.leave_all({name: "" for name in ("instance_token", "class_token") if entry.get(name) == ""}, NEUTRAL)
    trigger, class_word = trigger_of(_text(entry, "instance_prompt"), _text(entry, "class_prompt"))
    if not trigger:
        trigger, class_word = guess_trigger("", texts(subset))
    if not trigger:
        draft.leave(
            "instance_token",
            "",
            "empty, and the prompts do not tell: write concepts.trigger, or prior prompts will hold it",
        )
        return
    draft.put("instance_prompt", f"concepts.{at}.trigger", trigger)
    if class_word or class_token:
        draft.put("class_prompt", f"concepts.{at}.class_word", class_token or class_word)
    draft.leave(
        "instance_prompt",
        _text(entry, "instance_prompt"),
        f"{trigger!r} is taken for the trigger: the class prompt lacks it; mend concepts.trigger if it is another",
    )


def _put_instance_prompt(draft: Draft, entry: Mapping[str, Any], at: int, subset: Subset) -> None:
    prompt = _text(entry, "instance_prompt")
    lacking = uncaptioned(subset)
    if prompt and prompt != FILEWORDS:
        draft.leave("instance_prompt", prompt, "tenuto reads the caption beside each picture as it is and adds nothing")
    if not lacking:
        return
    if FILEWORDS in prompt:
        draft.leave(
            "instance_prompt",
            prompt,
            f"{lacking} pictures have no .txt: D8 took the name of the file; tenuto "
            "wants a caption beside each picture",
        )
    elif prompt:
        put_caption(draft, "instance_prompt", at, Uncaptioned(subset.folder, prompt))
        draft.leave("instance_prompt", prompt, f"was the caption of {lacking} pictures without one; {CAPTION_IS_HERE}")


def _put_pool(draft: Draft, entry: Mapping[str, Any], at: int, subset: Subset) -> None:
    """The pool: class images per instance image."""
    count = len(pictures_in(subset.folder))
    total = read_or_none(entry.get("num_class_images"), natural)
    per_image = read_or_none(entry.get("num_class_images_per"), natural)
    if not per_image and total:
        draft.leave(
            "num_class_images",
            total,
            "a total, which D8 does not read any more; here a pool per picture"
            + ("" if count else ": set concepts.prior.per_image"),
        )
        per_image = ceil(total / count) if count else None
    if not per_image:
        draft.put("num_class_images_per", f"concepts.{at}.prior.prompts", "none")
        return
    draft.put("num_class_images_per", f"concepts.{at}.prior.per_image", per_image)
    draft.put("class_prompt", f"concepts.{at}.prior.prompts", "match")
    prompt = _text(entry, "class_prompt")
    if FILEWORDS not in prompt:
        draft.leave(
            "class_prompt",
            prompt,
            "one prompt for all class images; tenuto asks for each picture's own caption "
            'without the trigger (prior.prompts = "own" takes a file of yours)',
        )
    elif prompt != FILEWORDS:
        draft.leave("class_prompt", prompt, "tenuto asks for the caption without the trigger, and puts nothing else in")
    for name, rule in SAMPLER.items():
        _put_sampler(draft, name, entry.get(name), rule)


def _put_sampler(draft: Draft, name: str, value: Any, rule: Goes) -> None:
    """One sampler for all prior images: the first concept's."""
    known = draft.table.get("prior", {}).get("sampler", {})
    field = rule.ours.rsplit(".", 1)[1]
    if field in known and value not in (None, "", known[field]):
        draft.leave(name, value, f"of this concept alone; tenuto samples all prior images alike, here {known[field]}")
    elif field not in known and value is not None:
        carry(draft, name, value, rule)


def _say_class_folder(draft: Draft, entry: Mapping[str, Any], folder: Path) -> None:
    place = _text(entry, "class_data_dir")
    if place:
        count = len(pictures_in(find(place, folder)))
        draft.leave(
            "class_data_dir",
            place,
            f"{count} pictures; which checkpoint made them is not recorded, it may have "
            "been the half-trained one: tenuto makes its own on your base. To take them in all the same, add "
            "[[prior.folders]] with path, and concept",
        )
