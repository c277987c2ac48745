"""What is particular to timm's encoders: names, weights from files and from the hub."""

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

from geotune.backbones.base import Backbone
from geotune.errors import GeotuneError

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
    """Weights of the family's model for red, green, blue, not those of a random build."""
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


def test_the_last_tap_is_what_timm_puts_out(family: str, make_backbone: MakeBackbone) -> None:
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


def test_maps_lie_as_the_image_does(family: str, make_backbone: MakeBackbone) -> None:
    """What changes in one corner of a wide image changes most in the map's same corner."""
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


def test_a_family_without_known_blocks_is_tapped_at_its_stages(make_backbone: MakeBackbone) -> None:
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
def test_weights_of_a_file_are_loaded_and_fitted_to_the_bands(
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
    (note,) = backbone.notes
    assert "fitted to 5 bands" in note
    assert "B08, B11 start from the mean of red, green and blue" in note


def test_grey_images_get_the_features_that_rgb_gets(
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


def test_weights_of_these_very_bands_stay_as_they_are(
    family: str, make_backbone: MakeBackbone, tmp_path: Path
) -> None:
    state = make_backbone(family, bands=5).model.state_dict()
    state[FIRST[family]] += 1
    save_file(state, tmp_path / "five.safetensors")
    backbone = make_backbone(family, bands=BANDS, weights=tmp_path / "five.safetensors")
    assert torch.equal(backbone.model.state_dict()[FIRST[family]], state[FIRST[family]])
    assert backbone.notes == ()
    with pytest.raises(GeotuneError, match=r"takes 5 bands, expected 3 .* or 2 \(B02, B03\)"):
        make_backbone(family, bands=("B02", "B03"), weights=tmp_path / "five.safetensors")


def test_weights_of_another_model_are_refused(make_backbone: MakeBackbone, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file(make_backbone("resnet", bands=3).model.state_dict(), path)
    with pytest.raises(GeotuneError) as caught:
        make_backbone("vit", weights=path)
    message = str(caught.value)
    assert str(path) in message
    assert "no weights of timm/test_vit" in message
    assert "keys are missing: cls_token" in message


def test_weights_of_another_width_are_refused(make_backbone: MakeBackbone, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    state = make_backbone("vit", bands=3).model.state_dict()
    state["norm.weight"] = torch.ones(32)
    save_file(state, path)
    with pytest.raises(GeotuneError, match=r"norm\.weight is \(32,\), expected \(64,\)"):
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
def test_without_internet_there_are_no_silent_random_weights(make_backbone: MakeBackbone) -> None:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    with pytest.raises(GeotuneError) as caught:
        make_backbone("vit", pretrained=True)
    message = str(caught.value)
    assert "timm/test_vit" in message
    assert "Network is unreachable" in message
    assert "backbone.weights=FILE" in message
    assert "backbone.pretrained=false" in message
    assert before == constants.HF_HUB_OFFLINE


def test_weights_of_the_hub_are_loaded_and_fitted(
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
    assert "fitted to 5 bands" in backbone.notes[0]


def test_a_model_without_published_weights_says_so(make_backbone: MakeBackbone) -> None:
    with pytest.raises(GeotuneError, match=r"publishes no pretrained weights.*pretrained=false"):
        make_backbone("timm/resnetblur18", pretrained=True)


# ---------------------------------------------------------------- names
@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet_18", "timm/resnet18"), ("vit_smal_patch16_224.augreg", "timm/vit_small_patch16_224")],
)
def test_an_unknown_name_gives_the_near_ones(
    name: str, near: str, make_backbone: MakeBackbone
) -> None:
    with pytest.raises(GeotuneError, match="timm has no such model") as caught:
        make_backbone(f"timm/{name}")
    assert near in str(caught.value)


def test_a_fixed_patch_cannot_be_chosen(make_backbone: MakeBackbone) -> None:
    with pytest.raises(GeotuneError, match="patch_size 8: timm/test_vit has a fixed patch"):
        make_backbone("vit", patch_size=8)
