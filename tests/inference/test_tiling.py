"""Windows cover every pixel, with no more windows than needed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geotune.inference.tiling import TilingPlan, strip_width, window_starts, window_stride
from helpers.errors import raises

sizes = st.integers(1, 70)
overlaps = st.floats(0, 0.95)


@settings(deadline=None)
@given(length=st.integers(1, 500), window=sizes, overlap=overlaps)
def test_axis_is_covered_by_the_fewest_windows(length: int, window: int, overlap: float) -> None:
    starts = window_starts(length, window, overlap)
    steps = [b - a for a, b in itertools.pairwise(starts)]
    assert starts[0] == 0
    assert all(0 < step <= window_stride(window, overlap) <= window for step in steps)
    assert starts[-1] == max(0, length - window)
    fewest = -(-max(0, length - window) // window_stride(window, overlap)) + 1
    assert len(starts) == fewest


@settings(deadline=None)
@given(window=st.integers(1, 300), overlap=overlaps)
def test_neighbours_overlap_by_the_minimum(window: int, overlap: float) -> None:
    step = window_stride(window, overlap)
    assert step == 1 or window - step >= overlap * window - 1e-6


@pytest.mark.parametrize(("window", "overlap", "step"), [(128, 0.5, 64), (10, 0.9, 1), (7, 0.0, 7)])
def test_stride_examples(window: int, overlap: float, step: int) -> None:
    assert window_stride(window, overlap) == step


@settings(deadline=None)
@given(height=sizes, width=sizes, window=sizes, overlap=overlaps, columns=sizes)
def test_strips_cover_columns_once_and_contain_all_their_windows(
    height: int, width: int, window: int, overlap: float, columns: int
) -> None:
    plan = TilingPlan((height, width), window, overlap, columns)
    strips = list(plan.strips())
    owned = np.zeros(width, dtype=int)
    for strip in strips:
        owned[strip.left : strip.right] += 1
        expected = [
            x
            for x in window_starts(width, window, overlap)
            if set(range(x, x + window)) & set(range(strip.left, strip.right))
        ]
        assert list(strip.lefts) == expected
        assert strip.first <= strip.left
        assert strip.first + strip.width >= strip.right
    assert (owned == 1).all()
    assert len(plan) == len(plan.tops) * sum(len(strip.lefts) for strip in strips)


@pytest.mark.parametrize(
    ("window", "overlap", "name"), [(0, 0.5, "window"), (8, 1.0, "overlap"), (8, -0.1, "overlap")]
)
def test_values_out_of_range_are_rejected(window: int, overlap: float, name: str) -> None:
    with raises("option-invalid", mentions=[name]):
        TilingPlan((10, 10), window, overlap, 512)


@settings(deadline=None)
@given(window=st.integers(1, 2048), bytes_per_pixel=st.integers(12, 2000))
def test_strips_stay_within_their_budget_or_four_windows(window: int, bytes_per_pixel: int) -> None:
    width = strip_width(window, bytes_per_pixel)
    assert width % 512 == 0
    assert width >= 4 * window
    assert width * window * bytes_per_pixel <= 128 * 2**20 or width < 4 * window + 512
