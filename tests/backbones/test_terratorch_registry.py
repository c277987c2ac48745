"""TerraTorch's other backbones, and names that lead elsewhere."""

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
from geotune.backbones.terratorch import terratorch_provider, terratorch_registry
from geotune.errors import GeotuneError
from helpers.method_cases import NEED_BLOCKS

pytest.importorskip("terratorch")
torch.set_float32_matmul_precision("highest")  # which TerraTorch lowers on import

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


def test_the_maps_are_those_of_terratorch(make_backbone: MakeBackbone, name: str) -> None:
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
        found = ours(images()).maps
    torch.testing.assert_close(found, tuple(expected), rtol=1e-5, atol=1e-5)


def test_maps_of_any_size_are_as_the_taps_say(make_backbone: MakeBackbone, name: str) -> None:
    backbone = make_backbone(f"terratorch/{name}", bands=BANDS).eval()
    assert [tap.channels for tap in backbone.taps] == CHANNELS[name]
    assert [tap.stride for tap in backbone.taps] == STRIDES[name]
    with torch.no_grad():
        features = backbone(images(37, 50))
    assert features.image_size == (64, 64)
    for tap, feature in zip(backbone.taps, features.maps, strict=True):
        assert feature.shape == (2, tap.channels, 64 / tap.stride, 64 / tap.stride)


def test_every_method_trains_what_it_says(
    make_backbone: MakeBackbone, try_every_method: Callable[..., set[str]], name: str
) -> None:
    backbone = make_backbone(f"terratorch/{name}", bands=BANDS)
    convolutions = {"peft-oft", "peft-vera"} if name == "UNet" else set()
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
    """A model whose maps have their channels last, as many as a map of 64 pixels has rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(6, 8, 8, 8)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: Tensor = self.layer(x)
        return [maps.permute(0, 2, 3, 1)]


def test_channels_that_come_last_are_told_on_square_images_too(
    make_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terratorch_registry, "_build", lambda request, pretrained: _ChannelsLast())
    backbone: Any = make_backbone("terratorch/UNet", bands=BANDS)
    assert [(tap.channels, tap.stride) for tap in backbone.taps] == [(8, 8)]
    with torch.no_grad():
        torch.testing.assert_close(
            backbone(images(64, 64)).maps[0], backbone.model.layer(images(64, 64))
        )


class _Square(nn.Module):
    """A model that gives tokens, as a ViT does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(6, 8, 16, 16)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.layer(x).flatten(2).transpose(1, 2)]


def test_what_gives_no_maps_is_refused(
    make_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terratorch_registry, "_build", lambda request, pretrained: _Square())
    with pytest.raises(GeotuneError, match=r"cannot be used on images of any size .*gives \(1, 24"):
        make_backbone("terratorch/UNet", bands=BANDS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "is one of timm's; its name is timm/resnet18"),
        ("timm_resnet18", "is one of timm's; its name is timm/resnet18"),
        ("dinov3_vits16", "fetched as code from GitHub.*timm/vit_small_patch16_dinov3"),
        ("convnextv2_tiny", "normalises the wrong dimension; take timm/convnextv2_tiny"),
        ("IdentityBackbone", "has no weights"),
        ("unet", "unknown; near it: terratorch/UNet"),
        ("nothing_like_it", "unknown$"),
    ],
)
def test_names_that_lead_elsewhere(make_backbone: MakeBackbone, name: str, message: str) -> None:
    with pytest.raises(GeotuneError, match=message):
        make_backbone(f"terratorch/{name}", bands=BANDS)


def test_weights_that_nobody_publishes_are_not_looked_for(
    make_backbone: MakeBackbone, name: str
) -> None:
    with pytest.raises(GeotuneError, match="no pretrained weights are published"):
        make_backbone(f"terratorch/{name}", bands=BANDS, pretrained=True)


def test_every_family_says_what_it_knows() -> None:
    assert len(terratorch_provider.MODELS) == sum(
        len(models) for models, _ in terratorch_provider._FAMILIES
    )
    for info in terratorch_provider.MODELS.values():
        assert info.paper
        assert info.licence
        assert len(info.mean) == len(info.std)


def test_without_terratorch_its_extra_is_named_and_float32_stays_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file of TerraTorch lowers the precision of products for the whole process."""
    import sys

    (tmp_path / "terratorch.py").write_text(
        "import torch\ntorch.set_float32_matmul_precision('medium')\nimport no_such_part\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "terratorch")
    with pytest.raises(GeotuneError, match=r"pip install 'geotune\[terratorch\]'"):
        terratorch_provider.terratorch_backbone(
            BackboneSpec(name="terratorch/prithvi_eo_tiny", bands=BANDS)
        )
    assert torch.get_float32_matmul_precision() == "highest"


def test_code_in_the_current_folder_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TerraTorch imports a folder `custom_modules` of the current folder, whoever put it there."""
    (tmp_path / "custom_modules").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "terratorch")
    with pytest.raises(GeotuneError, match="custom_modules: TerraTorch runs the code"):
        geotune.backbone("terratorch/UNet", bands=3, pretrained=False)
