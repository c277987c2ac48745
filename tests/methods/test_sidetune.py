"""Side-tuning against its formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from geotune.backbones.base import Backbone
from geotune.methods.core.encoder import Encoder
from geotune.methods.selective import Frozen
from geotune.methods.sidetune import SideNetwork, SideTune
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]


def network(encoder: Encoder) -> SideNetwork:
    assert isinstance(encoder.reader, SideNetwork)
    return encoder.reader


@pytest.mark.parametrize("family", ["vit", "swin"])
def test_each_level_is_blended_with_its_own_alpha(make_backbone: MakeBackbone, family: str) -> None:
    """y = alpha x + (1 - alpha) s(image), alpha = sigmoid(a)."""
    torch.manual_seed(0)
    encoder = SideTune(width=4, stem_width=0).attach(make_backbone(family)).eval()
    frozen = Frozen(stem_width=0).attach(make_backbone(family)).eval()
    images = torch.randn(2, 4, 64, 96)
    side = network(encoder)
    with torch.no_grad():
        start = encoder(images).maps
        xs = frozen(images).maps
        ss, _ = side.start(images)
        for y, x, s in zip(start, xs, ss, strict=True):
            assert s.std() > 1e-3
            torch.testing.assert_close(y, (x + s) / 2)
        for level, blend in enumerate(side.blend):
            blend.fill_(level - 1.0)
        for level, (y, x, s) in enumerate(zip(encoder(images).maps, xs, ss, strict=True)):
            alpha = 1 / (1 + torch.tensor(1.0 - level).exp())
            torch.testing.assert_close(y, alpha * x + (1 - alpha) * s)


def test_levels_of_a_plain_vit_share_one_trunk(make_backbone: MakeBackbone) -> None:
    side = network(SideTune(width=4, stem_width=0).attach(make_backbone("vit")))
    convolutions = [m for m in side.trunk.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(c.out_channels, c.stride[0]) for c in convolutions] == [
        (4, 2),
        (8, 2),
        (16, 2),
        (32, 2),
    ]
    assert len(side.heads) == 4


def test_trunk_width_is_capped_at_eight_times_the_first(
    make_backbone: MakeBackbone,
) -> None:
    side = network(SideTune(width=4, stem_width=0).attach(make_backbone("resnet")))
    convolutions = [m for m in side.trunk.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [4, 8, 16, 32, 32]


def test_every_band_and_date_affects_the_maps(make_backbone: MakeBackbone) -> None:
    encoder = SideTune(width=4, stem_width=0).attach(make_backbone("galileo", timesteps=2)).eval()
    images = torch.randn(1, 4, 2, 16, 24, requires_grad=True)
    total = torch.stack([m.square().sum() for m in encoder(images).maps]).sum()
    (gradient,) = torch.autograd.grad(total, images)
    assert gradient.abs().amax((0, 3, 4)).all()


def test_width_zero_raises() -> None:
    with raises("recipe-invalid", key="method.width", mentions=[0]):
        SideTune(width=0)
