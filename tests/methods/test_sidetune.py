"""Side-tuning against its formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from geotune.backbones.base import Backbone
from geotune.errors import GeotuneError
from geotune.methods.core.encoder import Encoder
from geotune.methods.selective import Frozen
from geotune.methods.sidetune import SideNetwork, SideTune

MakeBackbone = Callable[..., Backbone]


def network(encoder: Encoder) -> SideNetwork:
    assert isinstance(encoder.reader, SideNetwork)
    return encoder.reader


@pytest.mark.parametrize("family", ["vit", "swin"])
def test_levels_are_blended_with_an_alpha_of_their_own(
    make_backbone: MakeBackbone, family: str
) -> None:
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


def test_one_trunk_serves_all_levels_of_a_plain_vit(make_backbone: MakeBackbone) -> None:
    side = network(SideTune(width=4, stem_width=0).attach(make_backbone("vit")))
    convolutions = [m for m in side.trunk.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(c.out_channels, c.stride[0]) for c in convolutions] == [
        (4, 2),
        (8, 2),
        (16, 2),
        (32, 2),
    ]
    assert len(side.heads) == 4


def test_its_trunk_is_at_most_eight_times_as_wide_as_its_start(
    make_backbone: MakeBackbone,
) -> None:
    side = network(SideTune(width=4, stem_width=0).attach(make_backbone("resnet")))
    convolutions = [m for m in side.trunk.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [4, 8, 16, 32, 32]


def test_all_dates_of_an_image_are_seen(make_backbone: MakeBackbone) -> None:
    encoder = SideTune(width=4, stem_width=0).attach(make_backbone("galileo", timesteps=2)).eval()
    images = torch.randn(1, 4, 2, 16, 24, requires_grad=True)
    total = torch.stack([m.square().sum() for m in encoder(images).maps]).sum()
    (gradient,) = torch.autograd.grad(total, images)
    assert gradient.abs().amax((0, 3, 4)).all()  # of every band and date


def test_a_width_that_cannot_be_is_refused() -> None:
    with pytest.raises(GeotuneError, match=r"method\.width 0"):
        SideTune(width=0)
