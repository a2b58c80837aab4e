"""The prior set of a project: built, shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

from tenuto.data.images import fit, read_image
from tenuto.evaluation.pictures import save_picture
from tenuto.events import Event, Listener, both, progress, silent
from tenuto.families.base import Base
from tenuto.files import write_text
from tenuto.prior.build import build
from tenuto.prior.foreign import ForeignPicture, take_in
from tenuto.prior.states import BasePath
from tenuto.prior.store import PriorImage, PriorStore
from tenuto.work.controller import STATES_KEPT
from tenuto.work.prepare import Prepared
from tenuto.work.tasks import NEVER, Stop

SHOWN = 24
"""Prior images that are decoded to be looked at: while the set is made, and in the report."""


def open_store(prepared: Prepared) -> PriorStore:
    """Where this base's prior images are. Raises WrongBase."""
    place = prepared.project.prior.store
    return PriorStore.open(prepared.base.hash, Path(place) if place else None)


def build_prior(
    prepared: Prepared,
    listener: Listener = silent,
    stop: Stop = NEVER,
    gallery: Path | None = None,
) -> tuple[PriorStore, list[PriorImage]]:
    """The whole prior set: what is lacking is made; the user's own pictures join.

    gallery: a folder into which the first images are decoded as they come.
    """
    store = open_store(prepared)
    states, at_once = prepared.project.states(), prepared.project.prior.at_once
    if gallery is not None:
        listener = both(listener, _decoding(prepared, store, gallery))
    images = build(prepared.plan, prepared.base, store, states=states, at_once=at_once, listener=listener, stop=stop)
    if gallery is not None:
        for image in images[:SHOWN]:
            preview(prepared.base, store, image, gallery)
    background = prepared.project.data.background
    pictures = [
        ForeignPicture(item.path, item.content, item.caption, item.concept, item.bucket) for item in prepared.foreign
    ]
    foreign = take_in(
        pictures,
        prepared.base,
        store,
        lambda own: fit(read_image(own.path, background), own.bucket),
        listener=listener,
        stop=stop,
    )
    return store, [*images, *foreign]


def _decoding(prepared: Prepared, store: PriorStore, folder: Path) -> Listener:
    """Decodes what a build says that it made, up to SHOWN pictures."""
    left = SHOWN

    def listen(event: Event) -> None:
        nonlocal left
        names = list(event.data.get("made", ()))[:left]
        left -= len(names)
        for name in names:
            preview(prepared.base, store, store.record(name), folder)

    return listen


def build_controller(
    prepared: Prepared, store: PriorStore, listener: Listener = silent, stop: Stop = NEVER
) -> list[BasePath]:
    """The paths that the drift controller reads; they lie in the same store. None where there is no controller."""
    plan = prepared.controller
    at_once = prepared.project.prior.at_once
    images = build(plan, prepared.base, store, states=STATES_KEPT, at_once=at_once, listener=listener, stop=stop)
    return [
        replace(store.path(image.id, STATES_KEPT), weight=weight)
        for image, weight in zip(images, plan.weights, strict=True)
    ]


def preview(base: Base, store: PriorStore, image: PriorImage, folder: Path) -> Path:
    """A prior image as a PNG to look at; decoded only once."""
    path = folder / f"{image.id}.png"
    if not path.exists():
        save_picture(path, base.decode(store.latents(image.id)[None])[0].cpu())
    return path


def write_gallery(
    prepared: Prepared, store: PriorStore, images: Sequence[PriorImage], target: Path, listener: Listener = silent
) -> None:
    """A page of all prior images with their prompts; the pictures go into a folder beside it."""
    folder = target.with_suffix("")
    rows = []
    for number, image in enumerate(images, start=1):
        picture = preview(prepared.base, store, image, folder).relative_to(target.parent)
        rows.append(f'<figure><img src="{picture.as_posix()}"><figcaption>{escape(image.prompt)}</figcaption></figure>')
        progress(listener, "decoding previews", number, len(images))
    style = "figure{display:inline-block;width:14em;margin:.5em;font:12px sans-serif}img{width:100%}"
    write_text(
        target, f"<!doctype html><meta charset=utf-8><title>prior set</title><style>{style}</style>" + "".join(rows)
    )
