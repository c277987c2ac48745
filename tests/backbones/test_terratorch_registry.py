"""TerraTorch's other backbones, and names that are rejected with advice."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import geotune
from geotune.backbones.base import Backbone
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.terratorch import (
    aliases,
    clay,
    prithvi,
    terramind,
    terratorch_provider,
    terratorch_registry,
)
from helpers.errors import raises
from helpers.method_cases import NEED_BLOCKS

pytest.importorskip("terratorch")
torch.set_float32_matmul_precision("highest")  # importing TerraTorch lowers it

MakeBackbone = Callable[..., Backbone]

BANDS = ("B02", "B03", "B04", "B8A", "B11", "B12")
SMALL: dict[str, dict[str, Any]] = {
    "UNet": {"out_channels": 4},
    "prithvi_swin_B": {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 2)},
}
CHANNELS = {"UNet": [4, 8, 16, 32, 64], "prithvi_swin_B": [16, 32, 64, 128]}
STRIDES = {"UNet": [1, 2, 4, 8, 16], "prithvi_swin_B": [4, 8, 16, 32]}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, options in SMALL.items():
        monkeypatch.setitem(terratorch_registry.OPTIONS, name, options)


@pytest.fixture(params=SMALL)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def images(height: int = 64, width: int = 96) -> Tensor:
    return torch.randn(2, 6, height, width, generator=torch.Generator().manual_seed(0))


def test_the_maps_equal_terratorchs(make_backbone: MakeBackbone, name: str) -> None:
    from terratorch.registry import BACKBONE_REGISTRY

    ours = make_backbone(f"terratorch/{name}", bands=BANDS).eval()
    bands = {"in_channels": 6} if name == "UNet" else {}
    theirs: Any = BACKBONE_REGISTRY.build(name, **bands, **SMALL[name])
    theirs.load_state_dict(ours.model.state_dict(), strict=False)
    theirs.eval()
    with torch.no_grad():
        expected = theirs(images())
        if name == "UNet":
            expected = expected[::-1]  # TerraTorch's are coarse to fine
        else:
            expected = theirs.prepare_features_for_image_model(expected)
        result = ours(images()).maps
    torch.testing.assert_close(result, tuple(expected), rtol=1e-5, atol=1e-5)


def test_maps_match_the_taps_for_any_image_size(make_backbone: MakeBackbone, name: str) -> None:
    backbone = make_backbone(f"terratorch/{name}", bands=BANDS).eval()
    assert [tap.channels for tap in backbone.taps] == CHANNELS[name]
    assert [tap.stride for tap in backbone.taps] == STRIDES[name]
    with torch.no_grad():
        features = backbone(images(37, 50))
    assert features.image_size == (64, 64)
    for tap, feature in zip(backbone.taps, features.maps, strict=True):
        assert feature.shape == (2, tap.channels, 64 / tap.stride, 64 / tap.stride)


def test_every_method_trains_only_its_parameters(
    make_backbone: MakeBackbone, try_every_method: Callable[..., set[str]], name: str
) -> None:
    backbone = make_backbone(f"terratorch/{name}", bands=BANDS)
    convolutions = {"peft-oft", "peft-vera", "molora", "mpo"} if name == "UNet" else set()
    assert try_every_method(backbone, 96, 128) == NEED_BLOCKS | convolutions


def test_a_local_file_is_loaded(make_backbone: MakeBackbone, tmp_path: Path, name: str) -> None:
    first = make_backbone(f"terratorch/{name}", bands=BANDS)
    for parameter in first.parameters():
        nn.init.normal_(parameter, std=0.1)
    torch.save(first.model.state_dict(), tmp_path / "weights.pt")
    again = make_backbone(f"terratorch/{name}", bands=BANDS, weights=tmp_path / "weights.pt")
    assert again.fingerprint == terratorch_registry.fingerprint(first.model)
    assert not again.random_weights
    assert "in that order" in again.notes[0]


class _ChannelsLast(nn.Module):
    """A channels-last model with as many channels as its map of 64 pixels has rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(6, 8, 8, 8)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: Tensor = self.layer(x)
        return [maps.permute(0, 2, 3, 1)]


def test_channels_last_maps_are_recognised_for_square_images(
    make_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        terratorch_registry, "build_model", lambda spec, pretrained: _ChannelsLast()
    )
    backbone: Any = make_backbone("terratorch/UNet", bands=BANDS)
    assert [(tap.channels, tap.stride) for tap in backbone.taps] == [(8, 8)]
    with torch.no_grad():
        torch.testing.assert_close(
            backbone(images(64, 64)).maps[0], backbone.model.layer(images(64, 64))
        )


class _ReturnsTokens(nn.Module):
    """A model that returns tokens, like a ViT."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(6, 8, 16, 16)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.layer(x).flatten(2).transpose(1, 2)]


def test_a_model_without_maps_is_rejected(
    make_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        terratorch_registry, "build_model", lambda spec, pretrained: _ReturnsTokens()
    )
    with raises("backbone-unusable", key="backbone.name", mentions=["(1, 24, 8)"]):
        make_backbone("terratorch/UNet", bands=BANDS)


@pytest.mark.parametrize(
    ("name", "code", "mentions"),
    [
        ("resnet18", "backbone-unknown", ["timm/resnet18"]),
        ("timm_resnet18", "backbone-unknown", ["timm/resnet18"]),
        ("dinov3_vits16", "backbone-unusable", ["timm/vit_small_patch16_dinov3"]),
        ("convnextv2_tiny", "backbone-unusable", ["timm/convnextv2_tiny"]),
        ("IdentityBackbone", "backbone-unusable", ["IdentityBackbone"]),
        ("unet", "backbone-unknown", ["terratorch/UNet"]),
        ("nothing_like_it", "backbone-unknown", ["nothing_like_it"]),
    ],
)
def test_unsupported_names_are_rejected_with_advice(
    make_backbone: MakeBackbone, name: str, code: str, mentions: list[str]
) -> None:
    with raises(code, key="backbone.name", mentions=mentions):
        make_backbone(f"terratorch/{name}", bands=BANDS)


def test_unpublished_weights_are_an_error(make_backbone: MakeBackbone, name: str) -> None:
    with raises("weights-unavailable", key="backbone.weights", mentions=[name]):
        make_backbone(f"terratorch/{name}", bands=BANDS, pretrained=True)


def test_model_info_is_complete() -> None:
    families = (prithvi, clay, terramind, aliases, terratorch_registry)
    assert len(terratorch_provider.MODELS) == sum(len(family.MODELS) for family in families)
    for info in terratorch_provider.MODELS.values():
        assert info.paper
        assert info.licence
        assert len(info.mean) == len(info.std)


def test_a_failed_import_is_reported_and_keeps_the_matmul_precision(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Importing TerraTorch lowers the matmul precision of the whole process."""
    import sys

    (tmp_path / "terratorch.py").write_text(
        "import torch\ntorch.set_float32_matmul_precision('medium')\nimport no_such_part\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "terratorch")
    with raises("dependency-missing", mentions=["geotune[terratorch]"]):
        terratorch_provider.terratorch_backbone(
            BackboneSpec(name="terratorch/prithvi_eo_tiny", bands=BANDS)
        )
    assert torch.get_float32_matmul_precision() == "highest"


def test_code_in_the_current_folder_is_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TerraTorch imports the folder `custom_modules` of the current folder."""
    (tmp_path / "custom_modules").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "terratorch")
    with raises("backbone-code", file="custom_modules"):
        geotune.backbone("terratorch/UNet", bands=3, pretrained=False)
