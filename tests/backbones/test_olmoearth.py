"""OlmoEarth: parity with rslearn's wrapper, modalities, dates, and bands by name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import geotune
from geotune.backbones.base import Backbone
from geotune.backbones.rslearn import olmoearth
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]

MODALITIES = {m: tuple(bands) for m, bands in olmoearth.STATISTICS.items()}
OPTICAL = MODALITIES["sentinel2_l2a"]
VERSIONS = ("v1", "v1_1", "v1_2")
DAYS = [[(2023, 59), (2024, 60), (2024, 61)], [(2023, 60), (2023, 365), (2024, 366)]]


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    if "not_installed" not in request.node.name:
        pytest.importorskip("rslearn")
        pytest.importorskip("einops")
        pytest.importorskip(olmoearth.PACKAGE)


@pytest.fixture
def make(make_backbone: MakeBackbone) -> MakeBackbone:
    def build(version: str = "v1_2", bands: Any = OPTICAL, **options: Any) -> Backbone:
        options = {"patch_size": 4, **options}
        return make_backbone(f"rslearn/olmoearth_{version}_nano", bands=bands, **options).eval()

    return build


def published(version: str, folder: Path) -> Any:
    """The whole model, with random weights saved in the published format."""
    from olmoearth_pretrain_minimal import OlmoEarthPretrain_v1

    torch.manual_seed(3)
    model: Any = OlmoEarthPretrain_v1(
        "nano", version.replace("_", "."), supported_modality_names=[*MODALITIES, "worldcover"]
    ).model.eval()
    for name, parameter in model.named_parameters():
        if "channel_embeddings" in name:  # they start at zero
            parameter.data = torch.randn(parameter.shape) / 4
    torch.save(model.state_dict(), folder / "weights.pth")
    return model


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def rslearn_image(images: Tensor, days: list[tuple[int, int]]) -> Any:
    from rslearn.train.model_context import RasterImage

    dates = [datetime(year, 1, 1) + timedelta(days=day - 1) for year, day in days]
    return RasterImage(images, timestamps=[(date, date) for date in dates])


@pytest.mark.filterwarnings("ignore:For new projects")
@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_last_map_equals_rslearns(
    make: MakeBackbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    dated: bool,
) -> None:
    from rslearn.models.olmoearth_pretrain import model as wrapper
    from rslearn.train.model_context import ModelContext

    whole = published(version, tmp_path)
    monkeypatch.setattr(wrapper, "load_model_from_id", lambda *_, **__: whole)
    theirs: Any = wrapper.OlmoEarth(
        patch_size=4,
        model_id=wrapper.ModelID.OLMOEARTH_V1_NANO,
        autocast_dtype=None,
        use_legacy_timestamps=not dated,
        normalize=True,
    )
    # Landsat's B11 is a different band, and names must be unique
    bands = MODALITIES | {"sentinel2_l2a": tuple("swir1" if b == "B11" else b for b in OPTICAL)}
    ours = make(version, bands, weights=tmp_path, timesteps=3, metadata=["time"] if dated else [])
    known = ours.normalization
    assert known is not None
    offset, scale = (torch.tensor(v).reshape(1, -1, 1, 1, 1) for v in (known.offset, known.scale))
    images = noise(2, 25, 3, 12, 12) / 4 + 0.5
    raw = images * scale + offset
    parts = dict(zip(MODALITIES, raw.split([len(b) for b in MODALITIES.values()], 1), strict=True))
    inputs = [
        {m: rslearn_image(part[i].clone(), DAYS[i]) for m, part in parts.items()} for i in range(2)
    ]
    with torch.no_grad():
        expected = theirs(ModelContext(inputs=inputs, metadatas=[])).feature_maps[0]
        result = ours(images, time=torch.tensor(DAYS).float()).maps
    assert len(result) == 4
    torch.testing.assert_close(result[-1], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("version", VERSIONS)
def test_groups_without_bands_are_omitted_as_in_pretraining(
    make: MakeBackbone, tmp_path: Path, version: str
) -> None:
    """Compare with the encoder's output for Sentinel-1 and Sentinel-2 with missing groups."""
    from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.datatypes import (
        MaskedOlmoEarthSample,
        MaskValue,
    )

    encoder = published(version, tmp_path).encoder
    present = OPTICAL[:4] if version == "v1" else OPTICAL[:10]
    ours = make(version, [*present, "VV", "VH"], weights=tmp_path, gsd=20.0)
    images = noise(1, len(present) + 2, 8, 8)
    last = torch.nn.functional.pad(
        images[:, :-2].permute(0, 2, 3, 1), (0, len(OPTICAL) - len(present))
    )
    mask = torch.zeros(1, 8, 8, 1, 3 if version == "v1" else 1)
    mask[..., 1:] = MaskValue.MISSING.value
    sample = MaskedOlmoEarthSample(
        timestamps=torch.tensor([[[1, 0, 2024]]]),
        sentinel2_l2a=last.unsqueeze(3),
        sentinel2_l2a_mask=mask,
        sentinel1=images[:, -2:].permute(0, 2, 3, 1).unsqueeze(3),
        sentinel1_mask=torch.zeros(1, 8, 8, 1, 1),
    )
    with torch.no_grad():
        tokens = encoder(sample, patch_size=4, input_res=20)["tokens_and_masks"]
        expected = (tokens.sentinel2_l2a[..., 0, :] + tokens.sentinel1[..., 0, :]).mean(3) / 2
        result = ours(images).maps[-1]
    torch.testing.assert_close(result, expected.permute(0, 3, 1, 2), rtol=1e-5, atol=1e-5)
    assert ours.notes == (
        ()
        if version == "v1"
        else ("OlmoEarth's group sentinel2_l2a__0: missing bands are set to zero: B01, B09",)
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_positions_of_a_rectangle_are_part_of_those_of_a_square(
    make: MakeBackbone, version: str
) -> None:
    backbone: Any = make(version, patch_size=8)  # smaller patches are resampled across their edges
    inputs = []
    backbone.model.blocks[0].register_forward_pre_hook(
        lambda _, __, given: inputs.append((given["x"], given["rope_positions"])), with_kwargs=True
    )
    square = noise(1, 12, 24, 24)
    with torch.no_grad():
        backbone(square)
        backbone(square[..., :16, :])
    (tokens, positions), (wide, wide_positions) = inputs
    assert 3 * wide.shape[1] == 2 * tokens.shape[1]
    torch.testing.assert_close(wide, tokens[:, : wide.shape[1]])
    if version == "v1_2":
        assert torch.equal(wide_positions, positions[:, : wide.shape[1]])
        assert len(positions.unique(dim=1)[0]) == 9
    else:
        assert positions is None


@pytest.mark.parametrize("version", VERSIONS)
def test_maps_match_the_taps_for_any_image_size(make: MakeBackbone, version: str) -> None:
    backbone = make(version, timesteps=2, combine="concat")
    modules = dict(backbone.model.named_modules())
    assert [modules[tap.name] for tap in backbone.taps] == backbone.blocks
    with torch.no_grad():
        features = backbone(noise(1, 12, 2, 9, 14))
    assert features.image_size == (12, 16)
    assert [tap.stride for tap in backbone.taps] == [4] * 4
    for tap, feature in zip(backbone.taps, features.maps, strict=True):
        assert feature.shape == (1, tap.channels, 3, 4) == (1, 256, 3, 4)
        assert feature.isfinite().all()


@pytest.mark.parametrize("version", ["v1", "v1_2"])
def test_bands_can_have_any_order(make: MakeBackbone, version: str) -> None:
    bands, order = ["red", "VV", "B02", "B09", "B8A"], [4, 2, 0, 3, 1]
    images = noise(1, 5, 8, 8)
    one, two = make(version, bands), make(version, [bands[i] for i in order])
    assert one.fingerprint == two.fingerprint
    with torch.no_grad():
        torch.testing.assert_close(one(images).maps, two(images[:, order]).maps, rtol=0, atol=0)


def test_landsat_bands_have_landsats_names(make: MakeBackbone) -> None:
    backbone = make(bands={"landsat": ["B8", "B4", "B11"], "sentinel2_l2a": ["nir"]})
    assert backbone.pretraining is not None
    statistics = olmoearth.STATISTICS
    expected = [statistics["landsat"][b][0] for b in ("B8", "B4", "B11")]
    expected.append(statistics["sentinel2_l2a"]["B08"][0])
    assert backbone.pretraining.mean == tuple(expected)
    parts = {"sentinel2_l2a": noise(1, 1, 8, 8), "landsat": noise(1, 3, 8, 8) + 1}
    joined = torch.cat([parts["landsat"], parts["sentinel2_l2a"]], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(backbone(parts).maps, backbone(joined).maps)


@pytest.mark.parametrize("version", ["v1", "v1_2"])
def test_every_method_trains_only_its_parameters(
    make: MakeBackbone, try_every_method: Callable[..., set[str]], version: str
) -> None:
    backbone = copy.deepcopy(make(version, ["B02", "B05", "VV"], timesteps=2, metadata=["time"]))
    # rotary positions of v1_2 are undefined for prompts
    assert try_every_method(backbone) == ({"vpt", "vpt-shallow"} if version == "v1_2" else set())


def test_weights_are_read_from_folder_file_or_hub(
    make: MakeBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = published("v1_1", tmp_path)
    random = make("v1_1")
    assert random.fingerprint == make("v1_1").fingerprint
    folder = make("v1_1", weights=tmp_path)
    assert not folder.random_weights
    assert folder.licence == "unknown: given as a file"
    assert folder.fingerprint == make("v1_1", weights=tmp_path / "weights.pth").fingerprint
    assert folder.fingerprint != random.fingerprint
    torch.save(model.encoder.state_dict(), tmp_path / "encoder.pth")
    assert make("v1_1", weights=tmp_path / "encoder.pth").fingerprint == folder.fingerprint
    with raises("weights-mismatch", mentions=["rslearn/olmoearth_v1_2_nano"]):
        make("v1_2", weights=tmp_path)

    asked = []

    def download(repository: str, file: str) -> str:
        asked.append(repository)
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    fetched = make("v1_1", pretrained=True)
    assert asked == ["allenai/OlmoEarth-v1_1-Nano"]
    assert fetched.fingerprint == folder.fingerprint


def test_the_pooler_of_version_1_3_is_removed(
    make: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 1.3 is published as a base model only; here it is built as nano."""
    from olmoearth_pretrain_minimal.olmoearth_pretrain_v1 import olmoearth_pretrain_v1 as package

    monkeypatch.setattr(package, "V1_3_SUPPORTED_SIZES", ("nano",))
    monkeypatch.setitem(
        olmoearth.MODELS, "olmoearth_v1_3_nano", olmoearth.MODELS["olmoearth_v1_3_base"]
    )
    backbone = make("v1_3")
    names = {f"backbone.{name}" for name, p in backbone.named_parameters() if p.requires_grad}
    assert not any("pooler" in name for name in names)
    assert set(geotune.attach(backbone, geotune.Full(stem_width=0)).trainable_names()) == names


def test_model_info_matches_the_package() -> None:
    from olmoearth_pretrain_minimal import ModelID
    from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.data.normalize import load_computed_config
    from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.constants import Modality

    assert {info.weights for info in olmoearth.MODELS.values()} == {i.repo_id() for i in ModelID}
    statistics = load_computed_config()
    for modality, bands in olmoearth.STATISTICS.items():
        theirs = Modality.get(modality).band_order
        assert list(bands) == [b.upper() if modality == "sentinel1" else b for b in theirs]
        for band, (mean, std) in zip(theirs, bands.values(), strict=True):
            assert statistics[modality][band]["mean"] == mean
            assert statistics[modality][band]["std"] == std


@pytest.mark.parametrize(
    ("options", "code", "key", "mentions"),
    [
        ({"bands": ["B02", "B10"]}, "band-unknown", "bands", ["sentinel2_l2a B10"]),
        ({"bands": {"landsat": ["red"]}}, "band-unknown", "bands", ["landsat RED"]),
        ({"bands": {"sentinel1": ["B02"]}}, "band-unknown", "bands", ["sentinel1 B02"]),
        ({"bands": {"naip": ["R"]}}, "band-unknown", "bands", ["naip", "sentinel2_l2a, sentinel1"]),
        ({"timesteps": 13}, "backbone-option", "timesteps", ["13", "12"]),
        ({"patch_size": 9}, "backbone-option", "patch_size", ["9", "1 to 8"]),
        ({"metadata": ["location"]}, "backbone-option", "metadata", ["location", "only time"]),
        ({"new_bands": "mean"}, "backbone-option", "new_bands", ["mean"]),
    ],
)
def test_unsupported_options_are_rejected(
    make: MakeBackbone, options: dict[str, Any], code: str, key: str, mentions: list[str]
) -> None:
    with raises(code, key=f"backbone.{key}", mentions=mentions):
        make(**options)


def test_a_package_that_is_not_installed_is_reported(
    make: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rslearn")
    pytest.importorskip("einops")
    monkeypatch.setattr(olmoearth, "PACKAGE", "no_such_package")
    with raises("dependency-missing", mentions=["pip install olmoearth-pretrain-minimal"]):
        make()
