"""Backbones by name."""

from __future__ import annotations

import pytest

import geotune
from geotune.errors import GeotuneError


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet18", ""),
        ("tim/resnet18", "did you mean timm/resnet18?"),
        ("rs_learn/galileo_nano", "did you mean rslearn/galileo_nano?"),
        ("", ""),
    ],
)
def test_an_unknown_provider_gives_the_known_ones(name: str, hint: str) -> None:
    with pytest.raises(GeotuneError, match="a provider of timm, terratorch") as caught:
        geotune.backbone(name, bands=3)
    assert hint in str(caught.value)


def test_a_number_of_bands_gives_them_names() -> None:
    backbone = geotune.backbone("timm/test_resnet", bands=2, pretrained=False)
    assert backbone.bands == ("band1", "band2")


@pytest.mark.parametrize("bands", [0, []])
def test_no_band_is_an_error(bands: int | list[str]) -> None:
    with pytest.raises(GeotuneError, match=r"backbone\.bands is empty"):
        geotune.backbone("timm/test_resnet", bands=bands, pretrained=False)


def test_a_band_named_twice_is_an_error() -> None:
    with pytest.raises(GeotuneError, match=r"backbone\.bands names B04 twice"):
        geotune.backbone("timm/test_resnet", bands=["B04", "B03", "B04"], pretrained=False)
