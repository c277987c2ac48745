"""What networks beside a backbone share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone, to_tiles
from geotune.methods.core.reader import level_indices
from geotune.methods.core.side_network import (
    LayerNorm2d,
    as_feature,
    downsample,
    select_blocks,
    strided,
)
from geotune.types import Tap

MakeBackbone = Callable[..., Backbone]


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("side", [1, 3])
def test_a_strided_convolution_misses_no_pixel(factor: int, side: int) -> None:
    x = torch.randn(1, 1, factor * side, factor * side, requires_grad=True)
    out = strided(1, 2, factor)(x)
    assert out.shape == (1, 2, side, side)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert gradient.all()


def test_a_stream_changes_size_and_width_between_stages_only() -> None:
    fine, same, coarse = Tap("a", 8, 4.0), Tap("b", 8, 4.0), Tap("c", 16, 8.0)
    assert isinstance(downsample(fine, same, 4, 4), nn.Identity)
    stream = torch.randn(2, 4, 6, 10)
    assert downsample(same, coarse, 4, 6)(stream).shape == (2, 6, 3, 5)
    assert not downsample(same, coarse, 4, 6, bias=False)(torch.zeros_like(stream)).any()


def test_taps_are_counted_back_from_the_end_of_each_stage(make_backbone: MakeBackbone) -> None:
    vit = make_backbone("vit")  # 6 blocks
    assert select_blocks(vit, level_indices(vit), None) == tuple(range(6))
    assert select_blocks(vit, [5], 2) == (1, 3, 5)
    assert select_blocks(vit, [0, 5], 2) == (0, 1, 3, 5)
    convnext = make_backbone("convnext")  # stages of 1, 2, 4 and 2 blocks
    assert select_blocks(convnext, level_indices(convnext), 3) == (0, 2, 3, 6, 8)


def test_maps_of_tiles_and_dates_take_the_shape_of_their_tap() -> None:
    whole = torch.randn(2, 3, 4, 6)
    assert torch.equal(as_feature(to_tiles(whole, (2, 2)), whole), whole)
    dates = torch.stack([whole, 2 * whole], 2).flatten(1, 2)  # as `combine: concat` lays them
    twice: Tensor = as_feature(whole, dates)
    assert torch.equal(twice.reshape(2, 3, 2, 4, 6), torch.stack([whole, whole], 2))


def test_a_map_is_normalised_over_its_channels() -> None:
    x = 3 * torch.randn(2, 8, 3, 4) + 1
    found = LayerNorm2d(8)(x)
    mean, variance = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
    torch.testing.assert_close(found, (x - mean) / (variance + 1e-5).sqrt())
