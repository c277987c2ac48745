"""DeCUR and its kin: each name of TerraTorch's stands for the same weights of torchgeo's."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from geotune.backbones.base import Backbone
from geotune.backbones.terratorch.aliases import MODELS, NAMES
from geotune.errors import GeotuneError
from helpers.method_cases import NEED_AN_MLP, PLAIN_ONLY

pytest.importorskip("terratorch")
torch.set_float32_matmul_precision("highest")  # which TerraTorch lowers on import

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


def test_every_name_stands_for_the_weights_that_terratorch_loads() -> None:
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
        assert ours == theirs  # of one file on one hub, which has two hosts


@pytest.mark.parametrize("name", [SMALL, DECUR, VIT])
def test_the_last_map_is_that_of_terratorch(make_backbone: MakeBackbone, name: str) -> None:
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
        if name == VIT:  # TerraTorch's is taken before the final normalisation
            tokens = inner.norm(expected.flatten(2).transpose(1, 2))
            expected = tokens.transpose(1, 2).reshape(expected.shape)
        found = ours(images()).maps[-1]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_weights_are_loaded_by_band_name(make_backbone: MakeBackbone, tmp_path: Path) -> None:
    torch.save(make_backbone(SMALL, bands=S2).model.state_dict(), tmp_path / "moco.pth")
    plain = make_backbone(SMALL, bands=S2, weights=tmp_path / "moco.pth").eval()
    few = make_backbone(SMALL, bands=["B11", "red"], weights=tmp_path / "moco.pth").eval()
    absent = torch.zeros(1, 13, 1, 1)
    absent[:, [11, 3]] = 1
    with torch.no_grad():
        expected = plain(images() * absent).maps
        found = few(images()[:, [11, 3]]).maps
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert plain.source == str(tmp_path / "moco.pth")


def test_every_method_trains_what_it_says(
    make_backbone: MakeBackbone, try_every_method: Callable[..., set[str]]
) -> None:
    assert try_every_method(make_backbone(SMALL, bands=S2)) == PLAIN_ONLY | NEED_AN_MLP


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": ["VV"]}, f"{SMALL} does not know VV"),
        ({"timesteps": 2}, f"{SMALL} takes one date"),
        ({"weights": "nowhere.pth"}, "no such weights file"),
    ],
)
def test_a_fault_is_said_by_the_name_that_was_asked_for(
    make_backbone: MakeBackbone, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(GeotuneError, match=message):
        make_backbone(SMALL, **{"bands": S2, **options})
