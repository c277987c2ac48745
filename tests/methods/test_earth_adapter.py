"""Earth-Adapter against its formula."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.methods.earth_adapter import EarthAdapter, FrequencyExperts, split_frequencies
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]


def low_frequencies(image: Tensor, limit: int) -> Tensor:
    """The sum of the image's waves of at most `limit` periods in each direction."""
    height, width = image.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    low = torch.zeros(height, width)
    for k in range(-limit, limit + 1):
        for m in range(-limit, limit + 1):
            phase = 2 * math.pi * (k * y / height + m * x / width)
            real, imaginary = (image * phase.cos()).mean(), (image * phase.sin()).mean()
            low += real * phase.cos() + imaginary * phase.sin()
    return low


@pytest.mark.parametrize(("shape", "limit"), [((8, 9), 2), ((7, 12), 2), ((2, 3), 0)])
def test_frequencies_match_a_sum_of_waves(shape: tuple[int, int], limit: int) -> None:
    """Low: at most cutoff * min(h, w) / 2 periods, here 0.6 of the shorter side's half."""
    maps = torch.randn(2, 3, *shape)
    low, high = split_frequencies(maps, 0.6)
    torch.testing.assert_close(low[1, 2], low_frequencies(maps[1, 2], limit), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(low + high, maps)


@pytest.mark.parametrize("cutoff", [0.6, None])
def test_change_matches_the_formula(make_backbone: MakeBackbone, cutoff: float | None) -> None:
    """s (w_1 M_1(x) + w_2 M_2(low) + w_3 M_3(high)) with w = softmax(R x), or s M_1(x)."""
    part = FrequencyExperts(make_backbone("vit"), 0, 5, 4, 0.1, cutoff)
    for parameter in part.parameters():
        nn.init.normal_(parameter)
    p = dict(part.named_parameters())
    maps = torch.randn(1, 5, 8, 9)
    low = torch.stack([low_frequencies(channel, 2) for channel in maps[0]])
    inputs = (maps[0], low, maps[0] - low)

    def expert(k: int, u: Tensor) -> Tensor:
        hidden = (p[f"experts.{k}.0.weight"] @ u + p[f"experts.{k}.0.bias"]).clamp(min=0)
        return p[f"experts.{k}.2.weight"] @ hidden + p[f"experts.{k}.2.bias"]

    with torch.no_grad():
        actual = part.change(maps)[0]
        for i in range(8):
            for j in range(9):
                if cutoff is None:
                    total = expert(0, maps[0, :, i, j])
                else:
                    logits = (p["router.weight"] @ maps[0, :, i, j] + p["router.bias"]).exp()
                    w = logits / logits.sum()
                    total = sum(w[k] * expert(k, u[:, i, j]) for k, u in enumerate(inputs))
                expected = p["scale"] * total
                torch.testing.assert_close(actual[:, i, j], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("blocks", "routers"), [(0, []), (2, [4, 5]), (9, [0, 1, 2, 3, 4, 5])])
def test_the_last_blocks_split_frequencies(
    make_backbone: MakeBackbone, blocks: int, routers: list[int]
) -> None:
    method = EarthAdapter(frequency_blocks=blocks, stem_width=0)
    encoder = method.attach(make_backbone("vit"))
    parts = [block.part for block in encoder.backbone.blocks]
    assert [i for i, part in enumerate(parts) if part.router is not None] == routers


def test_bottlenecks_above_the_width_raise(make_backbone: MakeBackbone) -> None:
    with raises("method-option-invalid", key="method.bottleneck_dim", mentions=[64, 16]):
        EarthAdapter().attach(make_backbone("swin"))
