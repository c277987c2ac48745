"""Prithvi: parity with TerraTorch, dates, time and location, bands by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from geotune.backbones.base import Backbone
from helpers.errors import raises

pytest.importorskip("terratorch")
torch.set_float32_matmul_precision("highest")  # importing TerraTorch lowers it

MakeBackbone = Callable[..., Backbone]

TINY, TINY_TL = "terratorch/prithvi_eo_tiny", "terratorch/prithvi_eo_v2_tiny_tl"
BANDS = ("B02", "B03", "B04", "B8A", "B11", "B12")
TIME = torch.tensor([[[2018.0, 1.0], [2018.0, 200.0]], [[2021.0, 366.0], [2022.0, 17.0]]])
LOCATION = torch.tensor([[10.5, 50.0], [-70.0, -33.0]])  # longitude, latitude


def images(
    height: int = 32, width: int = 32, bands: int = 6, dates: int = 1, seed: int = 0
) -> Tensor:
    shape = (2, bands, dates, height, width) if dates > 1 else (2, bands, height, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def theirs(ours: Backbone) -> Any:
    """TerraTorch's model with the same weights."""
    from terratorch.registry import BACKBONE_REGISTRY

    name = ours.name.removeprefix("terratorch/")
    model: Any = BACKBONE_REGISTRY.build(name, pretrained=False, num_frames=ours.timesteps)
    result = model.load_state_dict(ours.model.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert all("embed_enc" in key for key in result.missing_keys)
    return model.eval()


@pytest.mark.parametrize("side", [32, 224, 48])
def test_every_map_equals_terratorchs(make_backbone: MakeBackbone, side: int) -> None:
    ours = make_backbone(TINY, bands=BANDS).eval()
    model = theirs(ours)
    with torch.no_grad():
        expected = model.prepare_features_for_image_model(model(images(side, side)))
        actual = ours(images(side, side)).maps
    torch.testing.assert_close(actual, tuple(expected), rtol=1e-5, atol=1e-5)


def test_a_rectangular_image_matches_terratorch(make_backbone: MakeBackbone) -> None:
    ours = make_backbone(TINY, bands=BANDS).eval()
    with torch.no_grad():
        tokens = theirs(ours)(images(32, 80))[-1]
        features = ours(images(32, 80))
    expected = tokens[:, 1:].transpose(1, 2).reshape(2, -1, 2, 5)
    torch.testing.assert_close(features.maps[-1], expected, rtol=1e-5, atol=1e-5)
    assert features.tokens is not None
    torch.testing.assert_close(features.tokens, tokens[:, :1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "metadata", [["time", "location"], ["time"], ["location"], []], ids="-".join
)
def test_time_and_location_match_terratorch(
    make_backbone: MakeBackbone, metadata: list[str]
) -> None:
    """TerraTorch counts the days of a year from 0 and takes the latitude first."""
    ours = make_backbone(TINY_TL, bands=BANDS, metadata=metadata, timesteps=2).eval()
    for name, parameter in ours.named_parameters():
        if name.endswith("scale"):
            torch.nn.init.constant_(parameter, 0.7)
    model = theirs(ours)
    coordinates: dict[str, Tensor] = {}
    if "time" in metadata:
        coordinates["temporal_coords"] = TIME - torch.tensor([0.0, 1.0])
    if "location" in metadata:
        coordinates["location_coords"] = LOCATION.flip(-1)
    with torch.no_grad():
        tokens = model(images(dates=2), **coordinates)[-1]
        actual = ours(images(dates=2), time=TIME, location=LOCATION).maps[-1]
    expected = tokens[:, 1:].reshape(2, 2, 4, -1).mean(1).transpose(1, 2).reshape(2, -1, 2, 2)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_concatenated_dates_match_terratorch(make_backbone: MakeBackbone) -> None:
    ours = make_backbone(TINY, bands=BANDS, timesteps=3, combine="concat").eval()
    model = theirs(ours)
    with torch.no_grad():
        actual = ours(images(dates=3)).maps[-1]
        expected = model.prepare_features_for_image_model(model(images(dates=3)))[-1]
    by_date = expected.reshape(2, 3, -1, 2, 2).transpose(1, 2)  # TerraTorch's are (t e)
    torch.testing.assert_close(actual, by_date.flatten(1, 2), rtol=1e-5, atol=1e-5)
    assert ours.taps[-1].channels == actual.shape[1] == 3 * 256


@pytest.mark.parametrize("rule", ["mean", "max", "last"])
def test_dates_are_combined_by_the_chosen_rule(make_backbone: MakeBackbone, rule: str) -> None:
    apart = make_backbone(TINY, bands=BANDS, timesteps=2, combine="concat").eval()
    one = make_backbone(TINY, bands=BANDS, timesteps=2, combine=rule).eval()
    with torch.no_grad():
        both = apart(images(dates=2)).maps[-1].reshape(2, 256, 2, 2, 2)
        actual = one(images(dates=2)).maps[-1]
    expected = {"mean": both.mean(2), "max": both.amax(2), "last": both[:, :, -1]}[rule]
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("published", [True, False], ids=["published", "encoder-only"])
def test_weights_are_loaded_by_band_name(
    make_backbone: MakeBackbone, tmp_path: Path, published: bool
) -> None:
    state = make_backbone(TINY, bands=BANDS).model.state_dict()
    if published:
        state = {f"encoder.{name}": tensor for name, tensor in state.items()}
        state["decoder.mask_token"] = torch.zeros(1, 1, 128)
        state["decoder.decoder_embed.weight"] = torch.zeros(128, 256)
    torch.save(state, tmp_path / "prithvi.pt")

    def make(*bands: str, **options: Any) -> Backbone:
        return make_backbone(TINY, bands=bands, weights=tmp_path / "prithvi.pt", **options).eval()

    plain, turned = make(*BANDS), make("SWIR2", "blue", "B11", "red", "B8A", "green")
    few, more = make("B04", "B02"), make(*BANDS, "VV", new_bands="mean")
    order = [5, 0, 4, 2, 3, 1]
    with torch.no_grad():
        expected = plain(images()).maps
        torch.testing.assert_close(turned(images()[:, order]).maps, expected, rtol=1e-4, atol=1e-5)
        absent = images() * torch.tensor([1, 0, 1, 0, 0, 0]).reshape(1, 6, 1, 1)
        torch.testing.assert_close(
            few(images()[:, [2, 0]]).maps, plain(absent).maps, rtol=1e-4, atol=1e-5
        )
    weight = more.model.state_dict()["patch_embed.proj.weight"]
    torch.testing.assert_close(weight[:, 6], weight[:, :6].mean(1))
    assert plain.source == str(tmp_path / "prithvi.pt")
    assert not plain.random_weights
    assert plain.notes == ()
    assert "B03, B8A, B11, B12" in few.notes[0]
    assert "VV" in more.notes[0]
    assert more.normalization is None
    assert few.normalization is not None
    assert few.normalization.offset == (1433.0, 1087.0)


def test_maps_match_the_taps_for_any_image_size(make_backbone: MakeBackbone) -> None:
    backbone = make_backbone(TINY, bands=BANDS).eval()
    with torch.no_grad():
        features = backbone(images(37, 50))
    assert features.image_size == (48, 64)
    assert len(features.maps) == len(backbone.taps) == len(backbone.blocks) == 4
    for tap, feature in zip(backbone.taps, features.maps, strict=True):
        assert feature.shape == (2, tap.channels, 48 / tap.stride, 64 / tap.stride)


def test_every_method_trains_only_its_parameters(
    make_backbone: MakeBackbone, try_every_method: Callable[..., set[str]]
) -> None:
    """LoRA included; in TerraTorch 1.2.11 `freeze_backbone: true` also freezes LoRA's matrices."""
    backbone = make_backbone(TINY_TL, bands=BANDS, metadata=["time", "location"])
    assert try_every_method(backbone) == set()


def test_encodings_of_unused_metadata_are_removed(
    make_backbone: MakeBackbone,
) -> None:
    parameters = [n for n, _ in make_backbone(TINY_TL, bands=BANDS).named_parameters()]
    assert parameters
    assert not any("embed_enc" in name for name in parameters)


@pytest.mark.parametrize(
    ("name", "options", "code", "key", "mentions"),
    [
        (TINY, {"bands": ["B02", "VV"]}, "band-unknown", "bands", ["VV", "new_bands=mean"]),
        (TINY, {"bands": ["VV"], "new_bands": "mean"}, "band-unknown", "bands", ["VV"]),
        (TINY, {"bands": ["B02", "blue"]}, "band-duplicate", "bands", ["B02, blue"]),
        (TINY, {"patch_size": 8}, "backbone-option", "patch_size", ["8"]),
        (TINY, {"gsd": 10.0}, "backbone-option", "gsd", ["10"]),
        (TINY, {"metadata": ["time"]}, "backbone-option", "metadata", ["time", TINY]),
        (TINY, {"pretrained": True}, "weights-unavailable", "weights", ["pretrained=false"]),
        (TINY, {"weights": "nowhere.pt"}, "file-missing", "weights", ["nowhere.pt"]),
        ("terratorch/prithvi_eo_v2_30", {}, "backbone-unknown", "name", ["prithvi_eo_v2_300"]),
    ],
)
def test_unsupported_options_are_rejected(
    make_backbone: MakeBackbone,
    name: str,
    options: dict[str, Any],
    code: str,
    key: str,
    mentions: list[str],
) -> None:
    with raises(code, key=f"backbone.{key}", mentions=mentions):
        make_backbone(name, **{"bands": BANDS, **options})


def test_weights_of_another_model_are_rejected(make_backbone: MakeBackbone, tmp_path: Path) -> None:
    state = make_backbone(TINY, bands=BANDS).model.state_dict()
    torch.save(state, tmp_path / "tiny.pt")
    with raises("weights-mismatch", mentions=["tiny.pt", TINY_TL]):
        make_backbone(TINY_TL, bands=BANDS, weights=tmp_path / "tiny.pt")


def test_weights_of_other_bands_are_rejected(make_backbone: MakeBackbone, tmp_path: Path) -> None:
    """TerraTorch would use the first bands of the file."""
    state = make_backbone(TINY, bands=BANDS[:4]).model.state_dict()
    torch.save(state, tmp_path / "four.pt")
    assert make_backbone(TINY, bands=BANDS[:4], weights=tmp_path / "four.pt").source
    with raises("weights-mismatch", mentions=["(256, 4, 1, 16, 16)", "(256, 3, 1, 16, 16)"]):
        make_backbone(TINY, bands=BANDS[:3], weights=tmp_path / "four.pt")
