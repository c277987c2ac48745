"""TerraMind: parity with TerraTorch, one modality and several, bands by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from geotune.backbones.bands import canonical_band
from geotune.backbones.base import Backbone
from geotune.backbones.terratorch import terramind
from helpers.errors import raises

pytest.importorskip("terratorch")
torch.set_float32_matmul_precision("highest")  # importing TerraTorch lowers it

MakeBackbone = Callable[..., Backbone]

TINY = "terratorch/terramind_v1_tiny"
OPTICAL = terramind.MODELS["terramind_v1_tiny"].bands
BOTH = {"S2L2A": ("B04", "B03", "B02"), "S1GRD": ("VV", "VH")}


def images(height: int = 32, width: int = 32, bands: int = 12) -> Tensor:
    return torch.randn(2, bands, height, width, generator=torch.Generator().manual_seed(0))


def theirs(**options: Any) -> Any:
    """TerraTorch's model."""
    from terratorch.registry import BACKBONE_REGISTRY

    return BACKBONE_REGISTRY.build("terramind_v1_tiny", pretrained=False, **options).eval()


def as_map(tokens: Tensor, rows: int, columns: int) -> Tensor:
    return tokens.transpose(1, 2).reshape(len(tokens), -1, rows, columns)


@pytest.mark.parametrize(("height", "width"), [(32, 48), (224, 224)])
def test_every_map_equals_terratorchs(make_backbone: MakeBackbone, height: int, width: int) -> None:
    ours = make_backbone(TINY, bands=OPTICAL).eval()
    model = theirs(modalities=["S2L2A"])
    model.load_state_dict(ours.model.state_dict())
    with torch.no_grad():
        expected = model(images(height, width))
        result = ours(images(height, width)).maps
    for ours_, tokens in zip(result, expected, strict=True):
        shaped = as_map(tokens, height // 16, width // 16)
        torch.testing.assert_close(ours_, shaped, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the published format: embeddings of all modalities, and a decoder."""
    torch.manual_seed(3)
    model = theirs(modalities=["S2L2A", "S2L1C", "RGB", "S1GRD", "S1RTC", "DEM"])
    state = {**model.state_dict(), "decoder.0.norm1.weight": torch.ones(192)}
    path = tmp_path_factory.mktemp("terramind") / "TerraMind_v1_tiny.pt"
    torch.save(state, path)
    return path


def test_modalities_and_bands_match_terratorch(
    make_backbone: MakeBackbone, published: Path
) -> None:
    ours = make_backbone(TINY, bands=BOTH, weights=published).eval()
    model = theirs(
        modalities=["S2L2A", "S1GRD"],
        ckpt_path=str(published),
        bands={"S2L2A": ["RED", "GREEN", "BLUE"], "S1GRD": ["VV", "VH"]},
    )
    inputs = {"S2L2A": images(bands=3), "S1GRD": images(bands=2) * 2}
    with torch.no_grad():
        expected = as_map(model(dict(inputs))[-1], 2, 2)
        by_name = ours(inputs).maps[-1]
        as_one = ours(torch.cat([*inputs.values()], dim=1)).maps[-1]
    torch.testing.assert_close(by_name, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(by_name, as_one)
    assert ours.modalities == BOTH
    assert ours.bands == ("B04", "B03", "B02", "VV", "VH")
    assert ours.source == str(published)


def test_bands_and_modalities_can_have_any_order(
    make_backbone: MakeBackbone, published: Path
) -> None:
    here = make_backbone(TINY, bands=BOTH, weights=published).eval()
    turned = {"s1": ("VH", "VV"), "S2L2A": ("blue", "red", "green")}
    there = make_backbone(TINY, bands=turned, weights=published).eval()
    with torch.no_grad():
        ours = here(images(bands=5)).maps
        other = there(images(bands=5)[:, [4, 3, 2, 0, 1]]).maps
    torch.testing.assert_close(other, ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("bands", "modality"),
    [
        ({"S2L1C": ("B10", "B02")}, "S2L1C"),
        ({"RGB": ("red", "green", "blue")}, "RGB"),
        ({"S2RGB": ("B04",)}, "RGB"),
        ({"S1RTC": ("VV",)}, "S1RTC"),
        ({"DEM": ("DEM",)}, "DEM"),
        (("B02", "B8A"), "S2L2A"),
    ],
)
def test_each_modality_has_its_normalisation(
    make_backbone: MakeBackbone, bands: Any, modality: str
) -> None:
    from terratorch.models.backbones.terramind.model import terramind_register as register

    backbone = make_backbone(TINY, bands=bands)
    known = backbone.normalization
    assert known is not None
    key = terramind.KEYS[modality]
    means, stds = register.v1_pretraining_mean[key], register.v1_pretraining_std[key]
    assert list(terramind.MEANS[modality]) == means
    assert list(terramind.STDS[modality]) == stds
    assert len(terramind.MODALITIES[modality]) == len(means)
    own = [canonical_band(band) for band in terramind.MODALITIES[modality]]
    first = own.index(canonical_band(backbone.bands[0]))
    assert (known.offset[0], known.scale[0]) == (means[first], stds[first])


def test_an_unknown_band_is_initialised_from_the_mean(
    make_backbone: MakeBackbone, published: Path
) -> None:
    backbone = make_backbone(TINY, bands=[*OPTICAL, "thermal"], weights=published, new_bands="mean")
    weight = backbone.model.state_dict()["encoder_embeddings.untok_sen2l2a@224.proj.weight"]
    columns = weight.unflatten(1, (256, 13))
    torch.testing.assert_close(columns[..., 12], columns[..., :12].mean(-1))
    assert backbone.normalization is None
    assert "thermal" in backbone.notes[0]


def test_version_0_1_supports_only_sentinel_2(make_backbone: MakeBackbone) -> None:
    from terratorch.models.backbones.terramind.model import terramind_register as register

    info = terramind.MODELS["terramind_v01_base"]
    key = terramind.KEYS["S2L2A"]
    assert list(info.mean) == register.v01_pretraining_mean[key]
    assert list(info.std) == register.v01_pretraining_std[key]
    with raises("band-unknown", key="backbone.bands", mentions=["S1GRD"]):
        make_backbone("terratorch/terramind_v01_base", bands=BOTH)


def test_maps_match_the_taps_for_any_image_size(make_backbone: MakeBackbone) -> None:
    backbone = make_backbone(TINY, bands=BOTH).eval()
    with torch.no_grad():
        features = backbone(images(37, 50, bands=5))
    assert features.image_size == (48, 64)
    assert features.tokens is None
    assert len(features.maps) == len(backbone.taps) == len(backbone.blocks) == 12
    for tap, feature in zip(backbone.taps, features.maps, strict=True):
        assert feature.shape == (2, tap.channels, 48 / tap.stride, 64 / tap.stride)


def test_every_method_trains_only_its_parameters(
    make_backbone: MakeBackbone, try_every_method: Callable[..., set[str]]
) -> None:
    assert try_every_method(make_backbone(TINY, bands=BOTH)) == {"lst-pruned"}


@pytest.mark.parametrize(
    ("name", "options", "code", "key", "mentions"),
    [
        (TINY, {"bands": {"LULC": ["LULC"]}}, "band-unknown", "bands", ["LULC", "tokenizer"]),
        (TINY, {"bands": {"S3": ["B02"]}}, "band-unknown", "bands", ["S3", "S2L2A, S2L1C, RGB"]),
        (TINY, {"bands": {"S1": ["VV"], "S1GRD": ["VH"]}}, "band-duplicate", "bands", ["S1GRD"]),
        (TINY, {"bands": {"S2L2A": ["B10"]}}, "band-unknown", "bands", ["B10"]),
        (TINY, {"bands": ["VV"]}, "band-unknown", "bands", ["VV"]),
        (TINY, {"timesteps": 2}, "backbone-option", "timesteps", ["2"]),
        (TINY, {"weights": "nowhere.pt"}, "file-missing", "weights", ["nowhere.pt"]),
        ("terratorch/terramind_v1_tiny_tim", {}, "backbone-unusable", "name", ["_tim"]),
        ("terratorch/terramind_v1_tokenizer_dem", {}, "backbone-unusable", "name", ["tokenizer"]),
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
        make_backbone(name, **{"bands": ["B02"], **options})


def test_weights_without_a_modality_are_rejected(
    make_backbone: MakeBackbone, tmp_path: Path
) -> None:
    torch.save(theirs(modalities=["S2L2A"]).state_dict(), tmp_path / "optical.pt")
    with raises("weights-mismatch", mentions=["optical.pt", "untok_sen1grd"]):
        make_backbone(TINY, bands=BOTH, weights=tmp_path / "optical.pt")
