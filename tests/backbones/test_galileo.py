"""Galileo: parity with rslearn's own, and bands by name."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from geotune.backbones.base import Backbone
from geotune.types import GeotuneError

pytest.importorskip("rslearn")

MakeBackbone = Callable[..., Backbone]

# Sentinel-2 in the order in which rslearn wants it
S2 = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")


@pytest.fixture
def galileo(shared_data: Path) -> Path:
    return shared_data / "galileo"


def reflectance(size: int = 16, batch: int = 2) -> Tensor:
    """Raw Sentinel-2 values `(B, 10, H, W)`."""
    return torch.rand(batch, 10, size, size, generator=torch.Generator().manual_seed(0)) * 4000


def normalised(backbone: Backbone, raw: Tensor) -> Tensor:
    known = backbone.normalization
    assert known is not None
    offset, scale = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (known.offset, known.scale))
    return (raw - offset) / scale


@pytest.mark.parametrize("patch_size", [4, 8])
def test_the_last_map_is_that_of_rslearn(
    galileo: Path, make_backbone: MakeBackbone, patch_size: int
) -> None:
    from rslearn.models.galileo.galileo import GalileoModel

    raw = reflectance()
    theirs: Any = GalileoModel(
        "nano", patch_size=patch_size, pretrained_path=str(galileo), autocast_dtype=None
    ).eval()
    backbone = make_backbone("galileo", bands=S2, weights=galileo, patch_size=patch_size).eval()
    with torch.no_grad():
        inputs = theirs.construct_galileo_input(
            s2=raw.permute(0, 2, 3, 1)[:, :, :, None], normalize=True
        )
        output = theirs.model(**inputs._asdict(), patch_size=patch_size)[0]
        expected = output[:, :, :, :, theirs.s_t_channels_s2, :].mean(3).mean(3)
        ours = backbone(normalised(backbone, raw)).maps[-1]
    torch.testing.assert_close(ours, expected.permute(0, 3, 1, 2), rtol=1e-5, atol=1e-5)


def test_a_wide_image_is_a_part_of_a_square_one_in_position(make_backbone: MakeBackbone) -> None:
    """Positions are absolute: row i and column j are encoded alike in an image of any shape."""
    backbone: Any = make_backbone("galileo")
    device = torch.device("cpu")
    wide = backbone._encodings(2, 5, device)
    square = backbone._encodings(5, 5, device)
    for ours, theirs in zip(wide, square, strict=True):
        assert ours.shape == (2, 5, 128)
        assert torch.equal(ours, theirs[:2])
        assert not torch.equal(ours[0], ours[1])
        assert not torch.equal(ours[:, 0], ours[:, 1])


def test_names_of_bands_are_read_in_any_spelling(make_backbone: MakeBackbone) -> None:
    one = make_backbone("galileo", bands=["B02", "B8A", "B11"]).eval()
    two = make_backbone("galileo", bands=["b2", "B8a", "B11"]).eval()
    image = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(one(image).maps[-1], two(image).maps[-1])


def test_only_the_groups_in_use_are_kept_and_missing_bands_are_said(
    make_backbone: MakeBackbone,
) -> None:
    backbone: Any = make_backbone("galileo", bands=["B02", "B08", "B11", "B12"])
    assert set(backbone.model.space_time_embed) == {"S2_RGB", "S2_NIR_10m", "S2_SWIR"}
    (note,) = backbone.notes
    assert "S2_RGB lacks B3, B4" in note
    assert "fitted to B2 alone" in note


def test_a_missing_band_of_a_group_is_fed_by_those_present(make_backbone: MakeBackbone) -> None:
    few = make_backbone("galileo", bands=["B03", "B04"]).eval()
    full = make_backbone("galileo", bands=["B03", "B04", "B02"]).eval()
    image = torch.randn(1, 2, 8, 8)
    with torch.no_grad():
        stand_in = torch.cat([image, image.mean(1, keepdim=True)], dim=1)
        torch.testing.assert_close(few(image).maps, full(stand_in).maps)


def test_the_normalisation_is_that_of_the_pretraining(make_backbone: MakeBackbone) -> None:
    backbone = make_backbone("galileo", bands=["B08", "B02"])
    known, seen = backbone.normalization, backbone.pretraining
    assert known is not None
    assert seen is not None
    assert known.bands == seen.bands == ("B08", "B02")
    assert seen.mean == pytest.approx((2410.34, 1395.34), rel=1e-5)
    for offset, scale, mean, std in zip(
        known.offset, known.scale, seen.mean, seen.std, strict=True
    ):
        assert (mean - 2 * std - offset) / scale == pytest.approx(0)
        assert (mean + 2 * std - offset) / scale == pytest.approx(1)
    means, stds = backbone.usual_moments
    assert means == pytest.approx((0.5, 0.5))
    assert stds == pytest.approx((0.25, 0.25))


def test_real_weights_are_named_and_not_random(galileo: Path, make_backbone: MakeBackbone) -> None:
    whole = make_backbone("galileo", weights=galileo)
    inner = make_backbone("galileo", weights=galileo / "models" / "nano")
    assert whole.fingerprint == inner.fingerprint != make_backbone("galileo").fingerprint
    assert not whole.random_weights
    assert "MIT" in whole.licence
    assert whole.source == str(galileo)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": ["B02", "B10", "red"]}, "does not know B10, red"),
        ({"bands": ["B02", "b2"]}, "names a band twice"),
        ({"bands": 3}, "does not know band1, band2, band3"),
        ({"patch_size": 9}, "patch_size 9: Galileo takes patches of 1 to 8 pixels"),
        ({"pretrained": True}, "backbone.weights=FOLDER.*backbone.pretrained=false"),
        ({"weights": "nowhere"}, "nowhere: found no models/nano/encoder.pt"),
    ],
)
def test_what_galileo_cannot_do_is_said(
    make_backbone: MakeBackbone, options: dict[str, object], message: str
) -> None:
    with pytest.raises(GeotuneError, match=message):
        make_backbone("galileo", **options)


def test_an_unknown_model_gives_the_known_ones(make_backbone: MakeBackbone) -> None:
    for name in ("rslearn/galileo_huge", "rslearn/nano"):
        with pytest.raises(GeotuneError, match="known: rslearn/galileo_nano"):
            make_backbone(name)


@pytest.mark.parametrize("damage", ["cut", "pickle", "config", "tensors"])
def test_damaged_weights_are_named(
    galileo: Path, make_backbone: MakeBackbone, tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "galileo"
    folder.mkdir()
    for name in ("encoder.pt", "config.json"):
        shutil.copyfile(galileo / "models" / "nano" / name, folder / name)
    weights, config = folder / "encoder.pt", folder / "config.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:100_000])
    elif damage == "pickle":
        weights.write_bytes(pickle.dumps(tmp_path.touch, protocol=2))
    elif damage == "config":
        config.write_text("{")
    else:
        values = json.loads(config.read_text())
        values["model"]["encoder"]["embedding_size"] = 64
        config.write_text(json.dumps(values))
    with pytest.raises(GeotuneError, match=r"galileo: cannot be loaded as Galileo nano"):
        make_backbone("galileo", weights=folder)
