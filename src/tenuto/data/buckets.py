"""Buckets: the picture sizes that training uses. A picture goes to the bucket nearest to its own shape.

Sides are multiples of what the checkpoint asks for (`Geometry.multiple`), areas stay at or under the one that
it was trained for, and no picture is ever stretched: it is scaled to cover its bucket, and the rest is cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, log

from pydantic import Field, PositiveInt

from tenuto.words import Settings, Size, TenutoError


class BucketSettings(Settings):
    """Which sizes pictures are resized and cropped to."""

    area: PositiveInt | None = None
    """Pixels of a bucket at most; unset: the area that the checkpoint was trained for."""
    upscale: bool = False
    """Enlarge pictures that are smaller than their bucket. Off: they get a smaller bucket of the same shape."""
    max_ratio: float = Field(default=2.0, ge=1.0)
    """Longest side over shortest side, at most; more extreme pictures are cropped to it."""
    min_side: PositiveInt | None = None
    """Shortest side of a bucket in pixels; unset: the checkpoint's multiple."""

    def sizes(self, native: Size, multiple: int) -> tuple[Size, ...]:
        """The buckets for a checkpoint of this geometry."""
        area = self.area or native.width * native.height
        return buckets_for(area, multiple, max_ratio=self.max_ratio, min_side=self.min_side)


def buckets_for(area: int, multiple: int, *, max_ratio: float = 2.0, min_side: int | None = None) -> tuple[Size, ...]:
    """Every shape up to `max_ratio`, each as large as `area` allows, sides multiples of `multiple`; narrow to wide."""
    least = max(multiple, min_side or multiple)
    found: set[Size] = set()
    for short in range(multiple, int(area**0.5) + 1, multiple):
        long = area // short // multiple * multiple
        if short >= least and short <= long <= short * max_ratio:
            found |= {Size(short, long), Size(long, short)}
    if not found:
        raise TenutoError(
            f"buckets: no size fits into {area} pixels with sides of at least {least} in steps of {multiple}; "
            "raise the bucket area or max_ratio, or lower min_side"
        )
    return tuple(sorted(found, key=lambda size: (size.width / size.height, size)))


def bucket_of(size: Size, buckets: Sequence[Size], upscale: bool = False, multiple: int | None = None) -> Size:
    """The bucket whose shape is nearest to the picture's (ratio of ratios; of equals the largest, then the squarest).

    Without `upscale`, a picture smaller than that bucket gets the bucket's shape at the largest size it can fill,
    on the grid of `multiple` (default: the common divisor of the buckets' sides).
    """
    shape = log(size.width / size.height)
    best = min(buckets, key=lambda b: (round(abs(log(b.width / b.height) - shape), 9), -b.width * b.height, max(b), b))
    if upscale or (best.width <= size.width and best.height <= size.height):
        return best
    grid = multiple or gcd(*(side for bucket in buckets for side in bucket))
    scale = min(size.width / best.width, size.height / best.height)
    smaller = Size(int(best.width * scale) // grid * grid, int(best.height * scale) // grid * grid)
    if min(smaller) < grid:
        raise TenutoError(
            f"a picture of {size} is smaller than the smallest bucket ({grid} pixels a side); "
            "use a larger picture or allow upscaling"
        )
    return smaller


def cropped_share(size: Size, bucket: Size) -> float:
    """The part of a picture (0 to 1) that its bucket cuts off."""
    scale = max(bucket.width / size.width, bucket.height / size.height)
    return 1 - (bucket.width * bucket.height) / (size.width * scale * size.height * scale)
