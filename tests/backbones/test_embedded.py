"""The backbone whose weights are part of the package."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

import geotune
from geotune.backbones.embedded.convnext_mini import BANDS, WEIGHTS, build_network
from helpers.errors import raises

NAME = "geotune/convnext_mini"


def test_weights_are_in_the_package_small_and_documented() -> None:
    assert WEIGHTS.stat().st_size < 8e6
    card = WEIGHTS.with_suffix(".md").read_text("utf-8")
    backbone = geotune.backbone(NAME, bands=BANDS)
    assert f"`{backbone.fingerprint}`" in card and "Apache-2.0" in card
    assert not backbone.random_weights and backbone.source == "geotune"
    with safe_open(WEIGHTS, "pt") as file:
        assert file.metadata()["bands"].split(",") == list(BANDS)


def test_missing_bands_are_as_good_as_bands_at_their_mean() -> None:
    torch.manual_seed(0)
    images = torch.randn(1, 2, 64, 64)
    complete = torch.zeros(1, len(BANDS), 64, 64)
    complete[:, [BANDS.index("B08"), BANDS.index("B03")]] = images
    with torch.no_grad():
        ours = geotune.backbone(NAME, bands=["nir", "green"]).eval()(images).maps
        theirs = geotune.backbone(NAME, bands=BANDS).eval()(complete).maps
    torch.testing.assert_close(ours, theirs)
    assert [m.shape[1] for m in ours] == [64] * 2 + [96] * 2 + [160] * 4 + [224] * 2


def test_features_of_pretraining_vary_more_than_those_of_random_weights() -> None:
    """Trained features tell textures of equal mean and deviation apart: what `pooled` needs."""
    torch.manual_seed(0)
    noise = torch.randn(16, 1, 64, 64)
    smooth = torch.nn.functional.avg_pool2d(noise, 9, 1, 4)
    smooth = smooth / smooth.std(dim=(2, 3), keepdim=True)
    separation = []
    for pretrained in (True, False):
        model = geotune.backbone(NAME, bands=["grey"], pretrained=pretrained).eval()
        with torch.no_grad():
            fine, coarse = (model(x).maps[-1].mean(dim=(2, 3)) for x in (noise, smooth))
        within = (fine.var(0) + coarse.var(0)).sqrt().mean()
        separation.append(float((fine.mean(0) - coarse.mean(0)).abs().mean() / within))
    assert separation[0] > separation[1]


def test_own_weights_new_bands_and_other_names(tmp_path: Path) -> None:
    state = build_network().state_dict()
    path = tmp_path / "own.safetensors"
    save_file(state, path)
    backbone = geotune.backbone(NAME, bands=["B02"], weights=path)
    assert torch.equal(backbone.model.stem[0].weight[:, 0], state["stem.0.weight"][:, 0])
    assert "VV" in geotune.backbone(NAME, bands=["B02", "VV"], new_bands="mean").notes[0]
    with raises("band-unknown", key="backbone.bands", mentions=["VV", "grey"]):
        geotune.backbone(NAME, bands=["VV"])
    with raises("backbone-unknown", key="backbone.name", mentions=[NAME]):
        geotune.backbone("geotune/convnext", bands=["B02"])
    with raises("backbone-option", key="backbone.patch_size"):
        geotune.backbone(NAME, bands=["B02"], patch_size=4)
