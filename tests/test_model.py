"""The complete network: normalisation, missing pixels, images of any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

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


class IdentityDecoder(nn.Module):
    """A decoder that returns the finest map, at half the resolution if `coarse`."""

    def __init__(self, coarse: bool = False) -> None:
        super().__init__()
        self.coarse = coarse

    def forward(self, features: FeatureMaps) -> Tensor:
        finest = features.maps[0]
        return nn.functional.avg_pool2d(finest, 2) if self.coarse else finest


class IdentityEncoder(nn.Module):
    """An encoder that returns the image, padded to a multiple of 8."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor, **metadata: Tensor | None) -> FeatureMaps:
        below, right = -images.shape[-2] % 8, -images.shape[-1] % 8
        padded = nn.functional.pad(images, (0, right, 0, below), mode="replicate")
        return FeatureMaps((padded,), (padded.shape[-2], padded.shape[-1]))


@pytest.fixture
def backbone(make_backbone: MakeBackbone) -> Backbone:
    return make_backbone("resnet", bands=("a", "b"))


def identity_model(backbone: Backbone, coarse: bool = False) -> Model:
    return Model(NORMALIZATION, IdentityEncoder(backbone), IdentityDecoder(coarse))  # type: ignore[arg-type]


def test_raw_values_are_normalised_band_by_band(backbone: Backbone) -> None:
    raw = torch.rand(2, 2, 8, 16) * 1000
    expected = torch.stack([(raw[:, 0] - 100) / 50, (raw[:, 1] + 5) / 2], dim=1)
    torch.testing.assert_close(identity_model(backbone)(raw), expected)


def test_missing_pixels_are_set_to_the_mean_of_the_pretraining(backbone: Backbone) -> None:
    raw = torch.rand(1, 2, 8, 8)
    raw[0, 0, 2, 3] = torch.nan
    raw[0, 1, 5] = torch.nan
    assert identity_model(backbone)(raw)[0, 0, 2, 3] == 0
    backbone.normalization = Normalization(("a", "b"), (0.0, 10.0), (10.0, 10.0))
    backbone.pretraining = BandStatistics(("a", "b"), (5.0, 30.0), (1.0, 1.0), pixels=0)
    out = identity_model(backbone)(raw)
    assert out.isfinite().all()
    assert out[0, 0, 2, 3] == 0.5
    assert (out[0, 1, 5] == 2).all()
    assert (out != 0.5).sum() > 100


def test_missing_pixels_are_set_to_a_given_raw_value(backbone: Backbone) -> None:
    raw = torch.full((1, 2, 8, 8), torch.nan)
    normalization = replace(NORMALIZATION, fill=(0.0, 0.0))
    model = Model(normalization, IdentityEncoder(backbone), IdentityDecoder())  # type: ignore[arg-type]
    out = model(raw)
    assert (out[:, 0] == -2).all() and (out[:, 1] == 2.5).all()


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (13, 22)])
def test_logits_are_aligned_with_the_pixels_of_the_image(
    backbone: Backbone, size: tuple[int, int], coarse: bool
) -> None:
    """A ramp is unchanged: logits are resized to the padded image before the padding is cut off."""
    rows = torch.arange(float(size[0]))[:, None].expand(size)
    out = identity_model(backbone, coarse)(torch.stack([100 + 50 * rows, rows])[None])
    assert out.shape == (1, 2, *size)
    inner = slice(1, -8) if size[0] % 8 else slice(1, -1)
    torch.testing.assert_close(out[0, 0][inner], rows[inner])


def test_a_model_with_a_backbone_takes_images_of_any_size(backbone: Backbone) -> None:
    encoder = Frozen(stem_width=4).attach(backbone)
    model = Model(NORMALIZATION, encoder, Linear(encoder.taps, 3, LinearOptions())).eval()
    with torch.no_grad():
        assert model(torch.rand(2, 2, 37, 50)).shape == (2, 3, 37, 50)


def test_normalisation_is_not_in_the_state_dict(backbone: Backbone) -> None:
    """It is stored readably in `adapter.json`."""
    state = identity_model(backbone).state_dict()
    assert not {"offset", "scale", "fill"} & state.keys()
