"""The whole network: normalisation, missing pixels, any size."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from geotune import Frozen
from geotune.backbones.base import Backbone
from geotune.config.decoder_options import LinearOptions
from geotune.decoders.linear import Linear
from geotune.model import Model
from geotune.types import BandStatistics, FeatureMaps, Normalization

MakeBackbone = Callable[..., Backbone]

NORMALIZATION = Normalization(("a", "b"), (100.0, -5.0), (50.0, 2.0))


class Probe(nn.Module):
    """A decoder that hands on the finest map, half as fine as the image where asked."""

    def __init__(self, coarse: bool = False) -> None:
        super().__init__()
        self.coarse = coarse

    def forward(self, features: FeatureMaps) -> Tensor:
        top = features.maps[0]
        return nn.functional.avg_pool2d(top, 2) if self.coarse else top


class Mirror(nn.Module):
    """An encoder that pads to a multiple of 8 and hands the image on."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor, **metadata: Tensor | None) -> FeatureMaps:
        self.seen.append(images)
        below, right = -images.shape[-2] % 8, -images.shape[-1] % 8
        padded = nn.functional.pad(images, (0, right, 0, below), mode="replicate")
        return FeatureMaps((padded,), (padded.shape[-2], padded.shape[-1]))


@pytest.fixture
def backbone(make_backbone: MakeBackbone) -> Backbone:
    return make_backbone("resnet", bands=("a", "b"))


def mirror_model(backbone: Backbone, coarse: bool = False) -> Model:
    return Model(NORMALIZATION, Mirror(backbone), Probe(coarse))  # type: ignore[arg-type]


def test_raw_values_are_normalised_band_by_band(backbone: Backbone) -> None:
    raw = torch.rand(2, 2, 8, 16) * 1000
    expected = torch.stack([(raw[:, 0] - 100) / 50, (raw[:, 1] + 5) / 2], dim=1)
    torch.testing.assert_close(mirror_model(backbone)(raw), expected)


def test_missing_pixels_look_like_the_usual_mean(backbone: Backbone) -> None:
    raw = torch.rand(1, 2, 8, 8)
    raw[0, 0, 2, 3] = torch.nan
    raw[0, 1, 5] = torch.nan
    assert mirror_model(backbone)(raw)[0, 0, 2, 3] == 0
    backbone.normalization = Normalization(("a", "b"), (0.0, 10.0), (10.0, 10.0))
    backbone.pretraining = BandStatistics(("a", "b"), (5.0, 30.0), (1.0, 1.0), pixels=0)
    out = mirror_model(backbone)(raw)
    assert out.isfinite().all()
    assert out[0, 0, 2, 3] == 0.5
    assert (out[0, 1, 5] == 2).all()
    assert (out != 0.5).sum() > 100


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (13, 22)])
def test_logits_lie_on_the_images_own_pixels(
    backbone: Backbone, size: tuple[int, int], coarse: bool
) -> None:
    """A ramp stays where it is: padding is cut off after the logits are brought to its size."""
    rows = torch.arange(float(size[0]))[:, None].expand(size)
    out = mirror_model(backbone, coarse)(torch.stack([100 + 50 * rows, rows])[None])
    assert out.shape == (1, 2, *size)
    inner = slice(1, -8) if size[0] % 8 else slice(1, -1)
    torch.testing.assert_close(out[0, 0][inner], rows[inner])


def test_a_real_model_maps_images_of_any_size(backbone: Backbone) -> None:
    encoder = Frozen(stem_width=2).attach(backbone)
    model = Model(NORMALIZATION, encoder, Linear(encoder.taps, 3, LinearOptions())).eval()
    with torch.no_grad():
        assert model(torch.rand(2, 2, 37, 50)).shape == (2, 3, 37, 50)


def test_normalisation_is_no_part_of_the_state(backbone: Backbone) -> None:
    """It travels in the adapter's card, where a person can read it."""
    state = mirror_model(backbone).state_dict()
    assert not {"offset", "scale", "fill"} & state.keys()
