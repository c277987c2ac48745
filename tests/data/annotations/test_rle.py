import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from geotune.boxes.polygons import minimum_rectangles
from geotune.data.annotations.rle import decode_counts, mask_corners


@given(seed=st.integers(0, 10**6), height=st.integers(1, 30), width=st.integers(1, 30))
@settings(max_examples=80, deadline=None)
def test_decoding_equals_pycocotools(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    mask = (rng.random((height, width)) < rng.random() ** 3).astype(np.uint8)
    encoded = coco_mask.encode(np.asfortranarray(mask))
    counts = decode_counts(encoded["counts"].decode())
    drawn = np.repeat(np.arange(len(counts)) % 2, counts).reshape(width, height).T
    assert (drawn == mask).all()
    corners = mask_corners(counts, (height, width))
    if not mask.any():
        assert not corners.any()
        return
    left, top, wide, high = coco_mask.toBbox(encoded)
    assert corners.min(axis=0).tolist() == [left, top]
    assert corners.max(axis=0).tolist() == [left + wide, top + high]
    rows, cols = np.nonzero(mask)
    pixels = shapely.multipolygons(shapely.box(cols, rows, cols + 1, rows + 1))
    expected, result = minimum_rectangles(np.array([pixels, shapely.multipoints(corners)]))
    assert result[2] * result[3] == pytest.approx(expected[2] * expected[3])


def test_large_masks_have_few_corners() -> None:
    assert len(mask_corners([0, 10**10], (10**5, 10**5))) == 12


@pytest.mark.parametrize("text", ["é", "P", "ooooooooooooP0"])
def test_invalid_compressed_counts_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid|exceeds|truncated"):
        decode_counts(text)


def test_counts_must_fill_the_mask() -> None:
    for counts in ([3, 4], [20, -11], []):
        with pytest.raises(ValueError, match="do not fill 3x3"):
            mask_corners(counts, (3, 3))
