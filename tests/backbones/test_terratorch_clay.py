"""Clay v1 and v1.5: parity with TerraTorch, any bands, time and location."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from geotune.backbones.base import Backbone
from geotune.backbones.terratorch import clay
from helpers.errors import raises

pytest.importorskip("terratorch")
torch.set_float32_matmul_precision("highest")  # importing TerraTorch lowers it

MakeBackbone = Callable[..., Backbone]

SMALL = {"dim": 64, "depth": 2, "heads": 2, "dim_head": 32, "mlp_ratio": 2}
NAMES = ("terratorch/clay_v1_base", "terratorch/clay_v15_tiny")
BANDS = ("B02", "B03", "B04", "B08")
DAYS = (datetime(2020, 12, 31), datetime(2021, 6, 1))  # the first is in week 53
TIME = torch.tensor([[[float(d.year), float(d.timetuple().tm_yday)]] for d in DAYS])
LOCATION = torch.tensor([[10.5, 50.0], [-70.0, -33.0]])  # longitude, latitude


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("clay_v1_base", "clay_v15_tiny"):
        monkeypatch.setitem(clay.SHAPES, name, SMALL)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def images(height: int = 32, width: int = 32, bands: int = 4) -> Tensor:
    return torch.randn(2, bands, height, width, generator=torch.Generator().manual_seed(0))


def theirs(ours: Backbone, side: int, **datacube: Any) -> Tensor:
    """TerraTorch's output of a square image, after the final norm, as a map."""
    from terratorch.models.backbones.clay_v1.modules import EmbeddingEncoder
    from terratorch.models.backbones.clay_v15.model import Encoder

    model: Any
    if "v15" in ours.name:
        model = Encoder(mask_ratio=0.0, patch_size=8, shuffle=False, **SMALL)
    else:
        model = EmbeddingEncoder(img_size=side, patch_size=8, **SMALL)
    model.load_state_dict(ours.model.state_dict())
    with torch.no_grad():
        output = model.eval()(datacube)
    tokens = output[0] if isinstance(output, tuple) else output[-1]
    rows = side // 8
    shaped: Tensor = tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, rows, rows)
    return shaped


def test_the_last_map_equals_terratorchs(make_backbone: MakeBackbone, name: str) -> None:
    from terratorch.models.backbones.clay_v1.modules import Datacuber

    ours = make_backbone(name, bands=BANDS, gsd=1.0).eval()
    datacube = Datacuber(bands=["blue", "green", "red", "nir"])(images())
    datacube["gsd"] = torch.tensor(datacube["gsd"])
    with torch.no_grad():
        result = ours(images()).maps[-1]
    torch.testing.assert_close(result, theirs(ours, 32, **datacube), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("metadata", [["time", "location"], ["time"], ["location"]], ids="-".join)
def test_time_location_gsd_and_wavelengths_match_terratorch(
    make_backbone: MakeBackbone, name: str, metadata: list[str]
) -> None:
    ours = make_backbone(
        name, bands=["B02", "own"], gsd=30.0, wavelengths={"own": 0.6}, metadata=metadata
    ).eval()
    weeks = [2 * math.pi * day.isocalendar().week / 52 for day in DAYS]
    known = {
        "time": torch.tensor([[math.sin(w), math.cos(w), 0.0, 0.0] for w in weeks]),
        "location": torch.tensor(
            [
                [f(math.radians(degrees)) for degrees in (lat, lon) for f in (math.sin, math.cos)]
                for lon, lat in LOCATION.tolist()
            ]
        ),
    }
    given = {key: known[key] if key in metadata else torch.zeros(2, 4) for key in known}
    with torch.no_grad():
        result = ours(images(bands=2), time=TIME, location=LOCATION).maps[-1]
    expected = theirs(
        ours,
        32,
        pixels=images(bands=2),
        time=given["time"],
        latlon=given["location"],
        gsd=torch.tensor(30.0),
        waves=torch.tensor([0.493, 0.6]),
    )
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_positions_of_a_rectangle_are_part_of_those_of_a_square(
    make_backbone: MakeBackbone,
) -> None:
    backbone: Any = make_backbone(NAMES[0], bands=BANDS)
    wide = backbone.encodings(1, 2, 5, None, None).reshape(2, 5, -1)
    square = backbone.encodings(1, 5, 5, None, None).reshape(5, 5, -1)
    assert torch.equal(wide, square[:2])
    assert not torch.equal(wide[0], wide[1])
    assert not torch.equal(wide[:, 0], wide[:, 1])


def test_maps_match_the_taps_for_any_image_size(make_backbone: MakeBackbone, name: str) -> None:
    backbone = make_backbone(name, bands=BANDS).eval()
    with torch.no_grad():
        features = backbone(images(37, 50))
    assert features.image_size == (40, 56)
    assert features.tokens is not None
    assert features.tokens.shape == (2, 1, 64)
    assert len(features.maps) == len(backbone.taps) == len(backbone.blocks) == 2
    modules = dict(backbone.model.named_modules())
    assert [modules[tap.name] for tap in backbone.taps] == backbone.blocks
    for tap, feature in zip(backbone.taps, features.maps, strict=True):
        assert feature.shape == (2, tap.channels, 40 / tap.stride, 56 / tap.stride)


def test_bands_are_matched_by_wavelength(make_backbone: MakeBackbone, name: str) -> None:
    here = make_backbone(name, bands=BANDS).eval()
    there = make_backbone(name, bands=["nir", "B02", "red", "green"]).eval()
    with torch.no_grad():
        ours, theirs_ = here(images()).maps, there(images()[:, [3, 0, 2, 1]]).maps
    torch.testing.assert_close(theirs_, ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prefix", ["model.encoder.", "clay_encoder.", ""])
def test_published_weights_are_loaded(
    make_backbone: MakeBackbone, tmp_path: Path, name: str, prefix: str
) -> None:
    first = make_backbone(name, bands=BANDS)
    for parameter in first.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    state = {f"{prefix}{key}": value for key, value in first.model.state_dict().items()}
    if prefix == "model.encoder.":
        state["model.decoder.mask_patch"] = torch.zeros(8)
    torch.save({"state_dict": state, "hyper_parameters": {"lr": 1e-4}}, tmp_path / "clay.ckpt")
    again = make_backbone(name, bands=BANDS, weights=tmp_path / "clay.ckpt")
    for key, value in again.model.state_dict().items():
        assert torch.equal(value, first.model.state_dict()[key]), key
    assert again.source == str(tmp_path / "clay.ckpt")
    assert again.licence == "unknown: given as a file"


def test_sentinel_2_bands_have_a_normalisation(make_backbone: MakeBackbone) -> None:
    known = make_backbone(NAMES[0], bands=["red", "B02"]).normalization
    assert known is not None
    assert known.bands == ("red", "B02")
    assert known.offset == (1552.0, 1105.0)
    assert known.scale == (1888.0, 1809.0)
    assert make_backbone(NAMES[0], bands=["B02", "VV"]).normalization is None


def test_an_assumed_ground_sampling_distance_is_noted(make_backbone: MakeBackbone) -> None:
    assert "10 m" in make_backbone(NAMES[0], bands=BANDS).notes[0]
    assert make_backbone(NAMES[0], bands=BANDS, gsd=10.0).notes == ()


def test_every_method_trains_only_its_parameters(
    make_backbone: MakeBackbone, try_every_method: Callable[..., set[str]], name: str
) -> None:
    assert try_every_method(make_backbone(name, bands=BANDS)) == {"lst-pruned"}


@pytest.mark.parametrize(
    ("options", "code", "key", "mentions"),
    [
        ({"bands": ["B02", "own"]}, "band-unknown", "wavelengths", ["own"]),
        ({"bands": 3}, "band-unknown", "wavelengths", ["band1, band2, band3"]),
        ({"wavelengths": {"B02": 490.0}}, "backbone-option", "wavelengths", ["B02 490"]),
        ({"timesteps": 2}, "backbone-option", "timesteps", ["2"]),
        ({"new_bands": "mean"}, "backbone-option", "new_bands", ["mean"]),
        ({"patch_size": 16}, "backbone-option", "patch_size", ["16"]),
        (
            {"pretrained": True, "weights": "nowhere.ckpt"},
            "file-missing",
            "weights",
            ["nowhere.ckpt"],
        ),
    ],
)
def test_unsupported_options_are_rejected(
    make_backbone: MakeBackbone,
    options: dict[str, Any],
    code: str,
    key: str,
    mentions: list[str],
) -> None:
    with raises(code, key=f"backbone.{key}", mentions=mentions):
        make_backbone(NAMES[0], **{"bands": BANDS, **options})


def test_unpublished_weights_are_an_error(make_backbone: MakeBackbone) -> None:
    with raises("weights-unavailable", key="backbone.weights", mentions=[NAMES[1]]):
        make_backbone(NAMES[1], bands=BANDS, pretrained=True)
