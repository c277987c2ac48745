"""Galileo: parity with rslearn, and bands by name."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import geotune
from geotune.backbones.bands import canonical_band
from geotune.backbones.base import Backbone
from geotune.backbones.rslearn.galileo import MODELS
from helpers.errors import raises

pytest.importorskip("rslearn")

MakeBackbone = Callable[..., Backbone]

# Sentinel-2 in rslearn's order
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
def test_the_last_map_equals_rslearns(
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


def rslearn_image(images: Tensor, days: list[tuple[int, int]] | None = None) -> Any:
    """Raw values `(C, T, H, W)` with dates, in rslearn's format."""
    from rslearn.train.model_context import RasterImage

    if days is None:
        return RasterImage(images)
    dates = [datetime(year, 1, 1) + timedelta(days=day - 1) for year, day in days]
    return RasterImage(images, timestamps=[(date, date) for date in dates])


def test_dates_radar_and_location_match_rslearn(galileo: Path, make_backbone: MakeBackbone) -> None:
    from rslearn.models.galileo.galileo import GalileoModel
    from rslearn.train.model_context import ModelContext

    generator = torch.Generator().manual_seed(1)
    optical = torch.rand(2, 10, 3, 12, 12, generator=generator) * 4000
    radar = torch.rand(2, 2, 3, 12, 12, generator=generator) * -20
    # the ends of February and the leap day, and December's last day in both kinds of year
    days = [[(2023, 59), (2024, 60), (2024, 61)], [(2023, 60), (2023, 365), (2024, 366)]]
    locations = torch.tensor([[10.0, 50.0], [-70.0, -33.0]])
    theirs: Any = GalileoModel(
        "nano", patch_size=4, pretrained_path=str(galileo), autocast_dtype=None
    ).eval()
    ours = make_backbone(
        "galileo",
        bands=[*S2, "VV", "VH"],
        weights=galileo,
        timesteps=3,
        metadata=["time", "location"],
    ).eval()
    inputs = [
        {
            "s2": rslearn_image(optical[i], days[i]),
            "s1": rslearn_image(radar[i], days[i]),
            "latlon": rslearn_image(locations[i].flip(0).reshape(2, 1, 1, 1)),
        }
        for i in range(2)
    ]
    with torch.no_grad():
        expected = theirs(ModelContext(inputs=inputs, metadatas=[])).feature_maps[0]
        images = torch.cat([optical, radar], dim=1).flatten(2, 3)
        images = normalised(ours, images).unflatten(2, (3, 12))
        time = torch.tensor(days, dtype=torch.float32)
        result = ours(images, time=time, location=locations).maps[-1]
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
        other = ours(images, time=time + torch.tensor([0.0, 40.0]), location=locations).maps[-1]
        assert not torch.allclose(other, expected, atol=1e-3)


def test_the_default_date_is_june(galileo: Path, make_backbone: MakeBackbone) -> None:
    options: dict[str, Any] = {"bands": S2, "weights": galileo, "timesteps": 2}
    plain = make_backbone("galileo", **options).eval()
    dated = make_backbone("galileo", metadata=["time"], **options).eval()
    assert plain.fingerprint == dated.fingerprint
    images = torch.randn(1, 10, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    june, may = (torch.tensor([[[2023.0, day]] * 2]) for day in (170.0, 140.0))
    with torch.no_grad():
        expected = plain(images).maps
        torch.testing.assert_close(dated(images, time=june).maps, expected, rtol=0, atol=0)
        assert not torch.equal(dated(images, time=may).maps[-1], expected[-1])


def test_the_ground_sampling_distance_matches_rslearn(
    galileo: Path, make_backbone: MakeBackbone
) -> None:
    from rslearn.models.galileo.galileo import GalileoModel

    raw = reflectance()
    theirs: Any = GalileoModel(
        "nano", patch_size=4, pretrained_path=str(galileo), autocast_dtype=None
    ).eval()
    backbone = make_backbone("galileo", bands=S2, weights=galileo, gsd=20.0).eval()
    with torch.no_grad():
        inputs = theirs.construct_galileo_input(
            s2=raw.permute(0, 2, 3, 1)[:, :, :, None], normalize=True
        )
        output = theirs.model(**inputs._asdict(), patch_size=4, input_resolution_m=20)[0]
        expected = output[:, :, :, :, theirs.s_t_channels_s2, :].mean(3).mean(3)
        ours = backbone(normalised(backbone, raw)).maps[-1]
    torch.testing.assert_close(ours, expected.permute(0, 3, 1, 2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("combine", ["mean", "max", "last", "concat"])
def test_dates_are_combined_by_the_chosen_rule(make_backbone: MakeBackbone, combine: str) -> None:
    backbone = make_backbone("galileo", timesteps=3, combine=combine).eval()
    with torch.no_grad():
        features = backbone(torch.randn(2, 4, 3, 9, 14))
    assert features.image_size == (12, 16)
    for tap, feature in zip(backbone.taps, features.maps, strict=True):
        assert tap.channels == (384 if combine == "concat" else 128)
        assert feature.shape == (2, tap.channels, 3, 4)


@pytest.mark.parametrize("order", [[2, 0, 1, 3], [3, 2, 1, 0]])
def test_bands_can_have_any_order(make_backbone: MakeBackbone, order: list[int]) -> None:
    bands = ["B02", "B04", "B08", "VV"]
    images = torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = make_backbone("galileo", bands=bands, timesteps=2).eval()
    other = make_backbone("galileo", bands=[bands[i] for i in order], timesteps=2).eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(images).maps, other(images[:, order]).maps, rtol=0, atol=0)


@pytest.mark.parametrize("metadata", [[], ["time", "location"]])
def test_every_parameter_gets_a_gradient(make_backbone: MakeBackbone, metadata: list[str]) -> None:
    backbone = make_backbone("galileo", timesteps=2, metadata=metadata)
    names = {name for name, p in backbone.named_parameters() if p.requires_grad}
    assert any("static_embed" in name for name in names) == ("location" in metadata)
    encoder = geotune.attach(backbone, geotune.Full(stem_width=0))
    assert {f"backbone.{name}" for name in names} == set(encoder.trainable_names())
    inputs = backbone.example(8, 8)
    encoder(inputs.pop("images"), **inputs).maps[-1].square().mean().backward()
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)


def test_model_info_matches_rslearn() -> None:
    from rslearn.models.galileo.single_file_galileo import NORMALIZING_DICT, SPACE_TIME_BANDS

    info, published = MODELS["galileo_nano"], NORMALIZING_DICT[str(len(SPACE_TIME_BANDS))]
    assert [canonical_band(band) for band in SPACE_TIME_BANDS] == [*info.bands, "NDVI"]
    assert isinstance(published, dict)
    assert published["mean"][:-1] == list(info.mean)
    assert published["std"][:-1] == list(info.std)


def test_positions_of_a_rectangle_are_part_of_those_of_a_square(
    make_backbone: MakeBackbone,
) -> None:
    """Positions are absolute: row i and column j have the same encoding in any image."""
    backbone: Any = make_backbone("galileo")
    device = torch.device("cpu")
    wide, square = (
        backbone.position_encodings(2, 5, device),
        backbone.position_encodings(5, 5, device),
    )
    assert wide.shape == (2, 5, 128 // 4)
    assert torch.equal(wide, square[:2])
    assert not torch.equal(wide[0], wide[1])
    assert not torch.equal(wide[:, 0], wide[:, 1])


def test_band_names_can_be_aliases(make_backbone: MakeBackbone) -> None:
    one = make_backbone("galileo", bands=["B02", "B8A", "B11"]).eval()
    two = make_backbone("galileo", bands=["blue", "B8a", "b11"]).eval()
    image = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(one(image).maps[-1], two(image).maps[-1])


def test_unused_groups_are_removed_and_missing_bands_noted(
    make_backbone: MakeBackbone,
) -> None:
    backbone: Any = make_backbone("galileo", bands=["B02", "B08", "B11", "B12"])
    assert set(backbone.model.space_time_embed) == {"S2_RGB", "S2_NIR_10m", "S2_SWIR"}
    (note,) = backbone.notes
    assert "S2_RGB" in note
    assert "B3, B4 missing" in note
    assert "adapted to B2" in note


def test_a_missing_band_is_the_mean_of_its_group(make_backbone: MakeBackbone) -> None:
    few = make_backbone("galileo", bands=["B03", "B04"]).eval()
    full = make_backbone("galileo", bands=["B03", "B04", "B02"]).eval()
    image = torch.randn(1, 2, 8, 8)
    with torch.no_grad():
        replaced = torch.cat([image, image.mean(1, keepdim=True)], dim=1)
        torch.testing.assert_close(few(image).maps, full(replaced).maps)


def test_the_normalisation_is_that_of_pretraining(make_backbone: MakeBackbone) -> None:
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
    means, stds = backbone.mean_std
    assert means == pytest.approx((0.5, 0.5))
    assert stds == pytest.approx((0.25, 0.25))


def test_published_weights_are_found_in_folder_subfolder_or_file(
    galileo: Path, make_backbone: MakeBackbone
) -> None:
    whole = make_backbone("galileo", weights=galileo)
    inner = make_backbone("galileo", weights=galileo / "models" / "nano")
    file = make_backbone("galileo", weights=galileo / "models" / "nano" / "encoder.pt")
    assert whole.fingerprint == inner.fingerprint == file.fingerprint
    assert whole.fingerprint != make_backbone("galileo").fingerprint
    assert not whole.random_weights
    assert whole.licence == "unknown: given as a file"
    assert whole.source == str(galileo)


@pytest.mark.parametrize(
    ("options", "code", "key", "mentions"),
    [
        ({"bands": ["B02", "B10", "pink"]}, "band-unknown", "bands", ["B10, pink"]),
        ({"bands": ["B02", "b2"]}, "band-duplicate", "bands", ["B02, b2"]),
        ({"bands": 3}, "band-unknown", "bands", ["band1, band2, band3"]),
        ({"patch_size": 9}, "backbone-option", "patch_size", ["9", "1 to 8"]),
        ({"timesteps": 25}, "backbone-option", "timesteps", ["25", "24"]),
        ({"new_bands": "mean"}, "backbone-option", "new_bands", ["mean"]),
        ({"wavelengths": {"B02": 0.49}}, "backbone-option", "wavelengths", ["B02"]),
        ({"weights": "nowhere"}, "file-missing", "weights", ["nowhere", "models/nano/encoder.pt"]),
    ],
)
def test_unsupported_options_are_rejected(
    make_backbone: MakeBackbone,
    options: dict[str, object],
    code: str,
    key: str,
    mentions: list[str],
) -> None:
    with raises(code, key=f"backbone.{key}", mentions=mentions):
        make_backbone("galileo", **options)


def test_a_failed_download_is_an_error(
    make_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> str:
        raise OSError("no internet")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fails)
    mentions = ["models/nano", "no internet", "weights=FILE", "pretrained=false"]
    with raises("weights-unavailable", mentions=mentions):
        make_backbone("galileo", pretrained=True)


def test_downloaded_weights_equal_those_of_the_folder(
    galileo: Path, make_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda repository, file: str(galileo / file)
    )
    fetched = make_backbone("galileo", pretrained=True)
    assert fetched.source == "hub: nasaharvest/galileo/models/nano/encoder.pt"
    assert fetched.fingerprint == make_backbone("galileo", weights=galileo).fingerprint


@pytest.mark.parametrize("damage", ["cut", "pickle", "config", "tensors"])
def test_damaged_weights_are_reported(
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
    with raises("weights-mismatch", key="backbone.weights", file=folder):
        make_backbone("galileo", weights=folder)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    """Their folder says which size they are; the name of the recipe must not say another."""
    from rslearn.models.galileo.single_file_galileo import Encoder

    options = {"embedding_size": 192, "depth": 1, "num_heads": 3, "mlp_ratio": 4}
    model = Encoder(**options)
    (tmp_path / "config.json").write_text(json.dumps({"model": {"encoder": options}}))
    torch.save(model.state_dict(), tmp_path / "encoder.pt")
    with raises("weights-mismatch", key="backbone.weights", mentions=["192", "128"]):
        geotune.backbone("rslearn/galileo_nano", bands=["B02"], weights=tmp_path)
