"""Building blocks of side networks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.backbones.blocks import to_tiles
from geotune.methods.core.reader import level_indices
from geotune.methods.core.side_network import (
    LayerNorm2d,
    downsample,
    match_tap_shape,
    select_blocks,
    strided_conv,
)
from geotune.types import Tap

MakeBackbone = Callable[..., Backbone]


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("side", [1, 3])
def test_strided_conv_reads_every_pixel(factor: int, side: int) -> None:
    x = torch.randn(1, 1, factor * side, factor * side, requires_grad=True)
    out = strided_conv(1, 2, factor)(x)
    assert out.shape == (1, 2, side, side)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert gradient.all()


def test_downsample_changes_the_stream_between_stages_only() -> None:
    fine, same, coarse = Tap("a", 8, 4.0), Tap("b", 8, 4.0), Tap("c", 16, 8.0)
    assert isinstance(downsample(fine, same, 4, 4), nn.Identity)
    stream = torch.randn(2, 4, 6, 10)
    assert downsample(same, coarse, 4, 6)(stream).shape == (2, 6, 3, 5)
    assert not downsample(same, coarse, 4, 6, bias=False)(torch.zeros_like(stream)).any()


def test_select_blocks_counts_back_from_the_end_of_each_stage(make_backbone: MakeBackbone) -> None:
    vit = make_backbone("vit")  # 6 blocks
    assert select_blocks(vit, level_indices(vit), None) == tuple(range(6))
    assert select_blocks(vit, [5], 2) == (1, 3, 5)
    assert select_blocks(vit, [0, 5], 2) == (0, 1, 3, 5)
    convnext = make_backbone("convnext")  # stages of 1, 2, 4 and 2 blocks
    assert select_blocks(convnext, level_indices(convnext), 3) == (0, 2, 3, 6, 8)


def test_match_tap_shape_joins_tiles_and_repeats_dates() -> None:
    image = torch.randn(2, 3, 4, 6)
    assert torch.equal(match_tap_shape(to_tiles(image, (2, 2)), image), image)
    dates = torch.stack([image, 2 * image], 2).flatten(1, 2)  # the order of `combine: concat`
    twice: Tensor = match_tap_shape(image, dates)
    assert torch.equal(twice.reshape(2, 3, 2, 4, 6), torch.stack([image, image], 2))


def test_layer_norm_2d_normalises_over_channels() -> None:
    x = 3 * torch.randn(2, 8, 3, 4) + 1
    actual = LayerNorm2d(8)(x)
    mean, variance = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
    torch.testing.assert_close(actual, (x - mean) / (variance + 1e-5).sqrt())
