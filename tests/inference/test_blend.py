"""Blending weights are positive and, normalised, sum to one at every pixel."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geotune.inference.blend import Blender, window_weights
from geotune.inference.tiling import window_starts


@settings(deadline=None)
@given(st.integers(1, 600))
def test_weights_are_positive_symmetric_and_highest_in_the_middle(window: int) -> None:
    weights = window_weights(window)
    assert (weights > 0).all()
    torch.testing.assert_close(weights, weights.flip(0).flip(1))
    torch.testing.assert_close(weights, weights.T)
    assert weights.max() == weights[window // 2, window // 2] or window % 2 == 0


@settings(deadline=None)
@given(
    length=st.integers(1, 90),
    width=st.integers(1, 60),
    window=st.integers(1, 30),
    overlap=st.floats(0, 0.9),
)
def test_weights_sum_to_one_at_every_pixel(
    length: int, width: int, window: int, overlap: float
) -> None:
    """Windows of ones blend to one."""
    lefts = window_starts(width, window, overlap)
    blender = Blender(2, lefts[-1] + window, window, torch.device("cpu"))
    tops = window_starts(length, window, overlap)
    rows = 0
    for top, following in zip(tops, (*tops[1:], length), strict=True):
        blender.add(torch.ones(len(lefts), 2, window, window), lefts)
        blend = blender.pop_rows(following - top)
        torch.testing.assert_close(blend, torch.ones_like(blend), rtol=1e-6, atol=0)
        rows += blend.shape[1]
    assert rows == length


def test_rows_without_windows_are_zero_and_sums_are_cleared() -> None:
    blender = Blender(1, 4, 4, torch.device("cpu"))
    blender.add(torch.ones(1, 1, 4, 4), [0])
    assert blender.pop_rows(3).eq(1).all()
    rest = blender.pop_rows(4)
    assert rest[0, 0].eq(1).all()
    assert rest[0, 1:].eq(0).all()
    assert blender.sums.eq(0).all()


def test_two_windows_blend_smoothly() -> None:
    blender = Blender(1, 24, 16, torch.device("cpu"))
    blender.add(torch.stack([torch.zeros(1, 16, 16), torch.ones(1, 16, 16)]), [0, 8])
    row = blender.pop_rows(16)[0, 8]
    steps = row.diff()
    assert (steps >= 0).all()
    assert row[0] == 0
    assert row[-1] == pytest.approx(1)
    assert steps.max() < 0.25
