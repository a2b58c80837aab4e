"""Bucket shapes beside sd-scripts': where they are the same, and that the differences are the ones we mean.

docs/formats.md explains them. The other rule is written down here anew, from what it does.
"""

from __future__ import annotations

import random
from math import log, sqrt

import pytest

from tenuto.data.buckets import bucket_of, buckets_for, cropped_share
from tenuto.words import Size

SETTINGS = [(512, 256, 1024, 64), (768, 256, 1024, 64), (1024, 512, 2048, 64), (1024, 256, 2048, 32)]
"""resolution, min_bucket_reso, max_bucket_reso, bucket_reso_steps"""


def their_shapes(resolution: int, least: int, most: int, step: int) -> list[Size]:
    """The square, and for every width in steps the greatest height within the area, both ways round."""
    side = resolution // step * step
    found = {Size(side, side)}
    for width in range(least, most + 1, step):
        height = min(most, resolution * resolution // width // step * step)
        if height >= least:
            found |= {Size(width, height), Size(height, width)}
    return sorted(found)


def their_choice(size: Size, shapes: list[Size]) -> Size:
    """The shape itself if there is one, else the nearest quotient width / height, the first of equals."""
    if size in shapes:
        return size
    return min(shapes, key=lambda shape: abs(shape.width / shape.height - size.width / size.height))


def their_choice_without_upscaling(size: Size, area: int, step: int) -> Size:
    """The picture's own size, shrunk to the area if it is larger, and cut down to steps."""
    ratio = size.width / size.height
    width, height = size
    if width * height > area:
        wide, high = sqrt(area * ratio), sqrt(area / ratio)

        def stepped(side: float) -> int:
            return int(side + 0.5) // step * step

        by_width, by_height = stepped(wide), stepped(high)
        error_w = abs(by_width / stepped(by_width / ratio) - ratio)
        error_h = abs(stepped(by_height * ratio) / by_height - ratio)
        width, height = (
            (by_width, int(by_width / ratio + 0.5)) if error_w < error_h else (int(by_height * ratio + 0.5), by_height)
        )
    return Size(width // step * step, height // step * step)


def thousand() -> list[Size]:
    """Random sizes no longer than 2.5 to 1."""
    rng, found = random.Random(0), []
    while len(found) < 1000:
        size = Size(rng.randint(300, 3000), rng.randint(300, 3000))
        if max(size) <= 2.5 * min(size):
            found.append(size)
    return found


def ours(resolution: int, least: int, most: int, step: int) -> tuple[Size, ...]:
    """As `tenuto import` carries these settings."""
    ratio = min(most / least, resolution * resolution / least**2)
    return buckets_for(resolution * resolution, step, max_ratio=ratio, min_side=least)


def distance(size: Size, shape: Size) -> float:
    return abs(log(size.width / size.height) - log(shape.width / shape.height))


@pytest.mark.parametrize("setting", SETTINGS)
def test_our_shapes_are_theirs_that_no_larger_one_contains(setting: tuple[int, int, int, int]) -> None:
    theirs = their_shapes(*setting)
    largest = {
        one for one in theirs
        if max(one) < setting[2]  # those at max_bucket_reso are cut short there, and longer here
        and not any(one != other and one.width <= other.width and one.height <= other.height for other in theirs)
    }  # fmt: skip
    assert largest == {shape for shape in ours(*setting) if max(shape) < setting[2]}


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_same_choice_but_for_the_measure_of_nearness(setting: tuple[int, int, int, int]) -> None:
    shapes = ours(*setting)
    differ = 0
    for size in thousand():
        mine, other = bucket_of(size, shapes, upscale=True), their_choice(size, list(shapes))
        if mine != other:
            differ += 1
            assert distance(size, mine) <= distance(size, other) + 1e-9, "ours is nearer by the ratio of ratios"
    assert differ <= 50


def test_ours_treats_lying_and_standing_pictures_alike() -> None:
    shapes = ours(512, 256, 1024, 64)
    theirs = their_shapes(512, 256, 1024, 64)

    def turned(size: Size) -> Size:
        return Size(size.height, size.width)

    assert all(bucket_of(turned(s), shapes, True) == turned(bucket_of(s, shapes, True)) for s in thousand())
    assert any(their_choice(turned(s), theirs) != turned(their_choice(s, theirs)) for s in thousand())


@pytest.mark.parametrize("setting", SETTINGS)
def test_how_far_all_of_it_goes(setting: tuple[int, int, int, int]) -> None:
    """With everything together: two of three pictures get the same bucket, and little more is cropped."""
    shapes, theirs = ours(*setting), their_shapes(*setting)
    pairs = [(size, bucket_of(size, shapes, upscale=True), their_choice(size, theirs)) for size in thousand()]
    assert sum(mine == other for _, mine, other in pairs) >= 600
    cropped = [(cropped_share(size, mine), cropped_share(size, other)) for size, mine, other in pairs]
    assert sum(a for a, _ in cropped) / 1000 <= sum(b for _, b in cropped) / 1000 + 0.02
    assert sum(m.width * m.height for _, m, _ in pairs) >= sum(o.width * o.height for _, _, o in pairs)


@pytest.mark.parametrize("setting", SETTINGS)
def test_without_upscaling(setting: tuple[int, int, int, int]) -> None:
    """There, every picture has a size of its own; here, the same few shapes, smaller only for small pictures."""
    resolution, _, _, step = setting
    shapes = ours(*setting)
    mine = [(size, bucket_of(size, shapes, multiple=step)) for size in thousand()]
    other = [their_choice_without_upscaling(size, resolution * resolution, step) for size in thousand()]
    assert all(shape.width <= size.width and shape.height <= size.height for size, shape in mine)
    full = {shape for size, shape in mine if size.width >= resolution * 2 and size.height >= resolution * 2}
    assert full <= set(shapes)
    assert len({shape for _, shape in mine}) < len(set(other))
