"""The user's own reg pictures in a prior store: encoded by the base, marked as foreign (law 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from tenuto.events import Listener, note, progress, silent, warn
from tenuto.families.base import Base
from tenuto.files import hash_text
from tenuto.prior.build import BuildStopped, others_at_work
from tenuto.prior.claims import make_together
from tenuto.prior.store import DamagedShard, PriorImage, PriorStore
from tenuto.words import Size


@dataclass(frozen=True)
class ForeignPicture:
    """A picture of the user's own reg folder."""

    path: Path
    content: str
    """SHA-256 of the file."""
    caption: str
    concept: str
    bucket: Size

    @property
    def id(self) -> str:
        return hash_text("foreign", self.content, self.caption, self.concept, str(self.bucket))[:20]

    @property
    def keys(self) -> tuple[str, ...]:
        """Its shard holds it alone."""
        return (self.id,)


def take_in(
    pictures: Sequence[ForeignPicture],
    base: Base,
    store: PriorStore,
    read: Callable[[ForeignPicture], Tensor],
    *,
    listener: Listener = silent,
    stop: Callable[[], bool] = lambda: False,
) -> list[PriorImage]:
    """Let foreign pictures join the store; processes that take in the same ones share the work.

    read: the picture's pixels [3 H W] in -1..1 at its bucket's size; asked only for pictures that are new.
    """
    named = {picture.id: picture for picture in pictures}
    new = [picture for picture in named.values() if not _take(store, picture, listener)]

    def there(picture: ForeignPicture) -> bool:
        return _take(store, picture, silent)

    def make(picture: ForeignPicture) -> None:
        if stop():
            raise BuildStopped(
                f"stopped: {_known(store, new)} of {len(new)} new reg pictures are kept; "
                "the same command goes on from there"
            )
        latents = base.encode_image(read(picture)[None])[0]
        store.add(picture.id, [_record(picture)], {picture.id: latents})
        progress(listener, "reg pictures", _known(store, new), len(new))

    waiting = lambda: note(listener, others_at_work(store))  # noqa: E731
    make_together(new, there, make, store.claims, waiting=waiting, stop=stop)
    return store.records(named)


def _known(store: PriorStore, new: Sequence[ForeignPicture]) -> int:
    return sum(picture.id in store for picture in new)


def _take(store: PriorStore, picture: ForeignPicture, listener: Listener) -> bool:
    try:
        return store.take(picture.id, [picture.id])
    except DamagedShard as error:
        warn(listener, f"{error}; the picture is encoded again")
        return False


def _record(picture: ForeignPicture) -> PriorImage:
    return PriorImage(
        id=picture.id,
        concept=picture.concept,
        bucket=picture.bucket,
        prompt=picture.caption,
        negative="",
        seed=0,
        sampler="",
        steps=0,
        guidance=0.0,
        kind="foreign",
        source=str(picture.path),
    )
