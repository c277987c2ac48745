"""Resizing maps to the strides of a pyramid."""

from __future__ import annotations

import pytest
import torch

from geotune.methods.core.stride_resize import StrideResize, pyramid_scales


@pytest.mark.parametrize(
    ("stride", "strides"),
    [(16, [4, 8, 16, 32]), (14, [3.5, 7, 14, 28]), (4, [1, 2, 4, 8]), (2, [1, 2, 4]), (1, [1, 2])],
)
def test_pyramid_scales_stop_at_one_pixel(stride: float, strides: list[float]) -> None:
    assert [stride / scale for scale in pyramid_scales(stride)] == strides


@pytest.mark.parametrize(
    ("scale", "size"), [(4, (20, 28)), (2, (10, 14)), (1, (5, 7)), (0.5, (3, 4))]
)
def test_maps_are_resized(scale: float, size: tuple[int, int]) -> None:
    feature = torch.randn(2, 6, 5, 7)
    rescale = StrideResize(6, scale)
    assert rescale(feature).shape == (2, 6, *size)
    if scale == 1:
        assert torch.equal(rescale(feature), feature)
        assert not list(rescale.parameters())
