"""Building backbones by name."""

from __future__ import annotations

import pytest

import geotune
from helpers.errors import raises


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet18", ""),
        ("tim/resnet18", "timm/resnet18?"),
        ("rs_learn/galileo_nano", "rslearn/galileo_nano?"),
        ("", ""),
    ],
)
def test_an_unknown_provider_is_rejected_with_a_suggestion(name: str, hint: str) -> None:
    with raises("backbone-unknown", key="backbone.name", mentions=["timm, terratorch", hint]):
        geotune.backbone(name, bands=3)


def test_a_number_of_bands_gives_default_names() -> None:
    backbone = geotune.backbone("timm/test_resnet", bands=2, pretrained=False)
    assert backbone.bands == ("band1", "band2")


@pytest.mark.parametrize(("bands", "code"), [(0, "recipe-invalid"), ([], "band-duplicate")])
def test_an_empty_list_of_bands_is_rejected(bands: int | list[str], code: str) -> None:
    with raises(code, key="backbone.bands"):
        geotune.backbone("timm/test_resnet", bands=bands, pretrained=False)


def test_a_duplicate_band_is_rejected() -> None:
    with raises("band-duplicate", key="backbone.bands", mentions=["B04"]):
        geotune.backbone("timm/test_resnet", bands=["B04", "B03", "B04"], pretrained=False)
