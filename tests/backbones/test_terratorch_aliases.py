"""TerraTorch's names of torchgeo's models: each refers to the same weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import geotune
from geotune.backbones.base import Backbone
from geotune.backbones.terratorch.aliases import MODELS, NAMES
from helpers.errors import raises
from helpers.method_cases import NEED_AN_MLP, PLAIN_ONLY

pytest.importorskip("terratorch")
torch.set_float32_matmul_precision("highest")  # importing TerraTorch lowers it

MakeBackbone = Callable[..., Backbone]

SMALL = "terratorch/ssl4eos12_resnet18_sentinel2_all_moco"
DECUR = "terratorch/ssl4eos12_resnet50_sentinel2_all_decur"
VIT = "terratorch/ssl4eos12_vit_small_patch16_224_sentinel2_all_dino"
S2 = MODELS["ssl4eos12_resnet18_sentinel2_all_moco"].bands
NETWORKS = {
    "ResNet18": "resnet18",
    "ResNet50": "resnet50",
    "ResNet152": "resnet152",
    "ViTSmall16": "vit_small_patch16_224",
    "Swin_V2_T": "swin_v2_t",
    "Swin_V2_B": "swin_v2_b",
}


def images(height: int = 32, width: int = 64, bands: int = 13) -> Tensor:
    return torch.randn(2, bands, height, width, generator=torch.Generator().manual_seed(0))


def test_every_name_has_the_weights_that_terratorch_loads() -> None:
    from terratorch.models.backbones import (
        dofa_vit,
        torchgeo_resnet,
        torchgeo_swin_satlas,
        torchgeo_vit,
    )
    from terratorch.registry import TERRATORCH_BACKBONE_REGISTRY as ALL

    modules = {
        module.__name__
        for module in (dofa_vit, torchgeo_resnet, torchgeo_swin_satlas, torchgeo_vit)
    }
    assert set(NAMES) == {name for name in ALL if ALL[name].__module__ in modules}
    for name, own in NAMES.items():
        weights = inspect.signature(ALL[name]).parameters["weights"].default
        if name.startswith("dofa_"):
            assert own == name
            continue
        network = NETWORKS[type(weights).__name__.removesuffix("_Weights")]
        assert own == f"{network}_{weights.name.lower()}"
        ours, theirs = (u.split("/", 3)[3] for u in (MODELS[name].weights, weights.url))
        assert ours == theirs  # the hub has two host names


@pytest.mark.parametrize("name", [SMALL, DECUR, VIT])
def test_the_last_map_equals_terratorchs(make_backbone: MakeBackbone, name: str) -> None:
    from terratorch.registry import BACKBONE_REGISTRY

    ours = make_backbone(name, bands=S2).eval()
    assert ours.name == name
    options = {"dynamic_img_size": True} if name == VIT else {}
    theirs: Any = BACKBONE_REGISTRY.build(
        name.removeprefix("terratorch/"), model_bands=list(S2), pretrained=False, **options
    ).eval()
    inner = theirs.vit_model if name == VIT else theirs.resnet_model
    assert not inner.load_state_dict(ours.model.state_dict(), strict=False).unexpected_keys
    with torch.no_grad():
        expected = theirs(images())[-1]
        if name == VIT:  # TerraTorch's output precedes the final normalisation
            tokens = inner.norm(expected.flatten(2).transpose(1, 2))
            expected = tokens.transpose(1, 2).reshape(expected.shape)
        result = ours(images()).maps[-1]
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_weights_are_loaded_by_band_name(make_backbone: MakeBackbone, tmp_path: Path) -> None:
    torch.save(make_backbone(SMALL, bands=S2).model.state_dict(), tmp_path / "moco.pth")
    plain = make_backbone(SMALL, bands=S2, weights=tmp_path / "moco.pth").eval()
    few = make_backbone(SMALL, bands=["B11", "red"], weights=tmp_path / "moco.pth").eval()
    absent = torch.zeros(1, 13, 1, 1)
    absent[:, [11, 3]] = 1
    with torch.no_grad():
        expected = plain(images() * absent).maps
        result = few(images()[:, [11, 3]]).maps
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    assert plain.source == str(tmp_path / "moco.pth")


def test_every_method_trains_only_its_parameters(
    make_backbone: MakeBackbone, try_every_method: Callable[..., set[str]]
) -> None:
    assert try_every_method(make_backbone(SMALL, bands=S2)) == PLAIN_ONLY | NEED_AN_MLP


@pytest.mark.parametrize(
    ("options", "code", "key", "mentions"),
    [
        ({"bands": ["VV"]}, "band-unknown", "bands", ["VV"]),
        ({"timesteps": 2}, "backbone-option", "timesteps", ["2"]),
        ({"pretrained": True}, "weights-unavailable", "weights", ["moco"]),
    ],
)
def test_errors_have_terratorchs_name(
    make_backbone: MakeBackbone,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: dict[str, Any],
    code: str,
    key: str,
    mentions: list[str],
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))

    with raises(code, key=f"backbone.{key}", mentions=[SMALL, *mentions]):
        make_backbone(SMALL, **{"bands": S2, **options})


def test_names_with_the_librarys_name_in_front_are_the_same_models() -> None:
    pytest.importorskip("terratorch")
    bands = ["B02", "B03", "B04", "B8A", "B11", "B12"]
    one, other = (
        geotune.backbone(f"terratorch/{name}", bands=bands, pretrained=False)
        for name in ("prithvi_eo_tiny", "terratorch_prithvi_eo_tiny")
    )
    assert type(one) is type(other) and one.name == other.name and one.taps == other.taps
