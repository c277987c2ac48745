"""timm's encoders: names, and weights from files and the hub."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import geotune
from geotune.backbones.base import Backbone
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]

BANDS = ("B02", "B04", "B08", "B03", "B11")
FIRST = {"vit": "patch_embed.proj.weight", "swin": "patch_embed.proj.weight"} | {
    "convnext": "stem.0.weight",
    "resnet": "conv1.0.weight",
}


@pytest.fixture(params=FIRST)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rgb_file(make_backbone: MakeBackbone, family: str, tmp_path: Path) -> Path:
    """RGB weights of the family's model, which differ from its random weights."""
    state = make_backbone(family, bands=3).model.state_dict()
    generator = torch.Generator().manual_seed(5)
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor += 0.01 * torch.rand(tensor.shape, generator=generator)
    path = tmp_path / "rgb.safetensors"
    save_file(state, path)
    return path


def images(bands: int = 4, size: int = 64) -> Tensor:
    return torch.randn(2, bands, size, size, generator=torch.Generator().manual_seed(0))


def test_the_last_tap_equals_timms_output(family: str, make_backbone: MakeBackbone) -> None:
    backbone = make_backbone(family).eval()
    model: Any = backbone.model
    with torch.no_grad():
        features = backbone(images())
        output = model.forward_features(images())
    if family == "vit":
        prefix = model.num_prefix_tokens
        assert features.tokens is not None
        assert torch.equal(features.tokens, output[:, :prefix])
        output = output[:, prefix:].transpose(1, 2).unflatten(2, (4, 4))
    if family == "swin":
        output = output.permute(0, 3, 1, 2)
    assert torch.equal(features.maps[-1], output)


def test_maps_have_the_orientation_of_the_image(family: str, make_backbone: MakeBackbone) -> None:
    """A change in one corner of a wide image changes the same corner of the map most."""
    backbone = make_backbone(family).eval()
    image = torch.zeros(1, 4, 64, 128)
    spot = image.clone()
    spot[..., 32:, 96:] = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        before, after = backbone(image).maps[0], backbone(spot).maps[0]
    change = (after - before).abs().sum(1)[0]
    rows, columns = change.shape
    inside = change[rows // 2 :, 3 * columns // 4 :].mean()
    outside = change[: rows // 4, : columns // 2].mean()
    assert inside > 10 * outside


def test_models_with_unknown_blocks_are_tapped_at_their_stages(make_backbone: MakeBackbone) -> None:
    backbone = make_backbone("timm/test_efficientnet").eval()
    assert backbone.blocks == []
    assert [tap.stride for tap in backbone.taps] == [2, 4, 8, 16, 32]
    model: Any = backbone.model
    with torch.no_grad():
        features = backbone(images())
        expected = model.forward_intermediates(images(), intermediates_only=True)
    for ours, theirs, tap in zip(features.maps, expected, backbone.taps, strict=True):
        assert torch.equal(ours, theirs)
        assert ours.shape[1] == tap.channels


# ---------------------------------------------------------------- weights from a file
def test_weights_of_a_file_are_loaded_and_adapted_to_the_bands(
    family: str, make_backbone: MakeBackbone, rgb_file: Path
) -> None:
    stored = load_file(rgb_file)
    backbone = make_backbone(family, bands=BANDS, weights=rgb_file)
    loaded = backbone.model.state_dict()
    first = stored.pop(FIRST[family])
    red, green, blue = first.unbind(1)
    mean = (red + green + blue) / 3
    expected = torch.stack([blue, red, mean, green, mean], dim=1) * 3 / 5
    torch.testing.assert_close(loaded[FIRST[family]], expected)
    for name, tensor in stored.items():
        if name in loaded:
            assert torch.equal(loaded[name], tensor), name
    assert not backbone.random_weights
    assert backbone.source == str(rgb_file)
    assert backbone.licence == "unknown: given as a file"
    (note,) = backbone.notes
    assert "5 bands" in note
    assert "B08, B11" in note


def test_grey_images_have_the_same_features_with_any_bands(
    family: str, make_backbone: MakeBackbone, rgb_file: Path
) -> None:
    grey = images(bands=1)
    rgb = make_backbone(family, bands=("red", "green", "blue"), weights=rgb_file).eval()
    wide = make_backbone(family, bands=BANDS, weights=rgb_file).eval()
    with torch.no_grad():
        ours = wide(grey.expand(-1, 5, -1, -1)).maps
        theirs = rgb(grey.expand(-1, 3, -1, -1)).maps
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    assert rgb.notes == ()


def test_weights_with_the_right_number_of_bands_are_unchanged(
    family: str, make_backbone: MakeBackbone, tmp_path: Path
) -> None:
    state = make_backbone(family, bands=5).model.state_dict()
    state[FIRST[family]] += 1
    save_file(state, tmp_path / "five.safetensors")
    backbone = make_backbone(family, bands=BANDS, weights=tmp_path / "five.safetensors")
    assert torch.equal(backbone.model.state_dict()[FIRST[family]], state[FIRST[family]])
    assert backbone.notes == ()
    with raises("weights-mismatch", mentions=["five.safetensors", "5 bands", "2 (B02, B03)"]):
        make_backbone(family, bands=("B02", "B03"), weights=tmp_path / "five.safetensors")


def test_weights_of_named_bands_are_matched_by_name(
    family: str, make_backbone: MakeBackbone, tmp_path: Path
) -> None:
    state = make_backbone(family, bands=5).model.state_dict()
    path = tmp_path / "five.safetensors"
    save_file(state, path)
    own = ("blue", "green", "red", "nir", "swir1")
    backbone = make_backbone(family, bands=("B11", "B03"), weights=path, weights_bands=own)
    expected = state[FIRST[family]][:, [4, 1]]
    assert torch.equal(backbone.model.state_dict()[FIRST[family]], expected)
    assert "blue, red, nir" in backbone.notes[0]
    added = make_backbone(
        family, bands=("B11", "VV"), weights=path, weights_bands=own, new_bands="mean"
    )
    loaded = added.model.state_dict()[FIRST[family]]
    torch.testing.assert_close(loaded[:, 1], state[FIRST[family]].mean(dim=1))
    with raises("band-unknown", key="backbone.bands", mentions=["VV", "swir1"]):
        make_backbone(family, bands=("B11", "VV"), weights=path, weights_bands=own)
    with raises("weights-mismatch", key="backbone.weights_bands", mentions=["blue, green", "5"]):
        make_backbone(family, bands=("B03",), weights=path, weights_bands=own[:2])


def test_weights_of_another_model_are_rejected(make_backbone: MakeBackbone, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file(make_backbone("resnet", bands=3).model.state_dict(), path)
    with raises("weights-mismatch", mentions=[path, "timm/test_vit", "cls_token"]):
        make_backbone("vit", weights=path)


def test_weights_of_another_width_are_rejected(make_backbone: MakeBackbone, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    state = make_backbone("vit", bands=3).model.state_dict()
    state["norm.weight"] = torch.ones(32)
    save_file(state, path)
    with raises("weights-mismatch", mentions=["norm.weight", "(32,)", "(64,)"]):
        make_backbone("vit", weights=path)


# ---------------------------------------------------------------- weights from the hub
@pytest.fixture
def no_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    create = timm.create_model

    def create_model(name: str, pretrained: bool = False, **options: Any) -> Any:
        return refuse() if pretrained else create(name, pretrained=False, **options)

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(timm, "create_model", create_model)


@pytest.mark.usefixtures("no_internet")
def test_a_failed_download_is_an_error(make_backbone: MakeBackbone) -> None:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    advice = ["backbone.weights=FILE", "backbone.pretrained=false"]
    mentions = ["timm/test_vit", "Network is unreachable", *advice]
    with raises("weights-unavailable", key="backbone.weights", mentions=mentions):
        make_backbone("vit", pretrained=True)
    assert before == constants.HF_HUB_OFFLINE


def test_weights_of_the_hub_are_loaded_and_adapted(
    make_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = make_backbone("vit", bands=3).model
    with torch.no_grad():
        for parameter in hub.parameters():
            parameter += 0.5
    create = timm.create_model
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: socket.socket())
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda name, pretrained=False, **options: hub if pretrained else create(name, **options),
    )
    backbone = make_backbone("vit", bands=BANDS, pretrained=True)
    assert not backbone.random_weights
    assert backbone.source == "hub: timm/test_vit.r160_in1k"
    assert backbone.licence == "apache-2.0"
    assert torch.equal(backbone.model.state_dict()["norm.weight"], hub.norm.weight)
    assert "5 bands" in backbone.notes[0]


def test_a_model_without_published_weights_is_an_error(make_backbone: MakeBackbone) -> None:
    with raises("weights-unavailable", mentions=["timm/resnetblur18", "pretrained=false"]):
        make_backbone("timm/resnetblur18", pretrained=True)


# ---------------------------------------------------------------- names
@pytest.mark.parametrize(
    ("name", "similar"),
    [("resnet_18", "timm/resnet18"), ("vit_smal_patch16_224.augreg", "timm/vit_small_patch16_224")],
)
def test_an_unknown_name_is_rejected_with_similar_ones(
    name: str, similar: str, make_backbone: MakeBackbone
) -> None:
    with raises("backbone-unknown", key="backbone.name", mentions=[f"timm/{name}", similar]):
        make_backbone(f"timm/{name}")


def test_a_patch_size_is_rejected(make_backbone: MakeBackbone) -> None:
    with raises("backbone-option", key="backbone.patch_size", mentions=["8", "timm/test_vit"]):
        make_backbone("vit", patch_size=8)


@pytest.mark.parametrize(
    "name",
    [
        *("gcvit_xxtiny", "tiny_vit_5m_224", "swinv2_cr_tiny_ns_224", "fastvit_t8"),
        *("mvitv2_tiny", "cs3darknet_s", "cspresnet50"),
    ],
)
def test_blocks_whose_layout_is_not_that_of_the_output(name: str) -> None:
    """Rows of `(B, h, w, C)` are no channels, another last layer or a branch is not the last block.

    Blocks that give tuples are tapped at their stages.
    """
    backbone = geotune.backbone(f"timm/{name}", bands=3, pretrained=False)
    info: Any = backbone.model.feature_info
    expected = {each["reduction"]: each["num_chs"] for each in info}
    assert backbone.taps
    size = (224, 224) if backbone.tiled else (64, 96)
    found = {}
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, *size)).maps
    for tap, feature in zip(backbone.taps, maps, strict=True):
        assert feature.shape[1:] == (tap.channels, *(side // tap.stride for side in size))
        found[tap.stride] = tap.channels  # the last of each stride
    assert found == expected
    assert len(backbone.blocks) in (0, len(backbone.taps))


def test_a_model_that_scales_images_to_one_size_runs_on_tiles() -> None:
    """Otherwise maps of any image would have the size of those of a tile."""
    backbone = geotune.backbone("timm/crossvit_9_240", bands=3, pretrained=False)
    assert backbone.tiled and backbone.size_divisor == 240
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 240, 480)).maps
    for tap, feature in zip(backbone.taps, maps, strict=True):
        assert feature.shape[2] * 2 == feature.shape[3]
        assert feature.shape[2] == pytest.approx(240 / tap.stride)


@pytest.mark.parametrize(
    ("name", "stride"), [("vitamin_small_224", 16), ("vit_small_r26_s32_224", 32)]
)
def test_hybrid_vit_counts_the_stride_of_its_convolutions(name: str, stride: int) -> None:
    backbone = geotune.backbone(f"timm/{name}", bands=3, pretrained=False)
    assert backbone.size_divisor == stride
    assert {tap.stride for tap in backbone.taps} == {float(stride)}
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 2 * stride, 3 * stride)).maps
    assert maps[-1].shape[-2:] == (2, 3)
