from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenuto.data.buckets import BucketSettings, bucket_of, buckets_for, cropped_share
from tenuto.words import Size, TenutoError

POCKET = (Size(96, 160), Size(128, 128), Size(160, 96))


def test_by_hand() -> None:
    assert buckets_for(128 * 128, 32) == POCKET
    assert BucketSettings().sizes(Size(128, 128), 32) == POCKET
    sizes = buckets_for(512 * 512, 64)
    assert sizes == (Size(384, 640), Size(448, 576), Size(512, 512), Size(576, 448), Size(640, 384))


@given(st.integers(64, 2**20), st.sampled_from([8, 16, 32, 64]), st.floats(1, 4))
def test_sizes_keep_their_promises(area: int, multiple: int, ratio: float) -> None:
    try:
        sizes = buckets_for(area, multiple, max_ratio=ratio)
    except TenutoError:
        return
    for width, height in sizes:
        assert width % multiple == height % multiple == 0
        assert width * height <= area
        assert max(width, height) <= ratio * min(width, height)
        assert Size(height, width) in sizes


def test_no_bucket_fits() -> None:
    with pytest.raises(TenutoError, match="no size fits"):
        buckets_for(100, 64)


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        (Size(128, 128), Size(128, 128)),
        (Size(4000, 4000), Size(128, 128)),
        (Size(600, 1000), Size(96, 160)),
        (Size(1000, 600), Size(160, 96)),
        (Size(9000, 300), Size(160, 96)),
        (Size(100, 100), Size(96, 96)),  # too small for 128x128: the same shape, smaller
        (Size(64, 64), Size(64, 64)),
        (Size(33, 33), Size(32, 32)),
    ],
)
def test_nearest_shape(size: Size, bucket: Size) -> None:
    assert bucket_of(size, POCKET, multiple=32) == bucket


def test_upscaling_only_when_asked() -> None:
    assert bucket_of(Size(20, 20), POCKET, upscale=True) == Size(128, 128)
    with pytest.raises(TenutoError, match="allow upscaling"):
        bucket_of(Size(20, 20), POCKET)


@given(st.integers(32, 5000), st.integers(32, 5000))
def test_never_enlarged(width: int, height: int) -> None:
    try:
        bucket = bucket_of(Size(width, height), POCKET, multiple=32)
    except TenutoError:
        return
    assert bucket.width <= width
    assert bucket.height <= height
    assert bucket.width % 32 == bucket.height % 32 == 0


def test_cropped_share() -> None:
    assert cropped_share(Size(200, 100), Size(100, 100)) == 0.5
    assert cropped_share(Size(300, 500), Size(96, 160)) == pytest.approx(0)
