"""The interface of backbones, tested with one model of each class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from geotune.backbones.base import Backbone, fingerprint
from geotune.backbones.blocks import pad_to_multiple
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]

BLOCKS = {
    "vit": 6,
    "registers": 8,
    "swin": 5,
    "swinv2": 5,
    "convnext": 9,
    "resnet": 4,
    "galileo": 4,
}
STRIDES = {
    "vit": [16] * 6,
    "registers": [16] * 8,
    "swin": [4, 8, 16, 16, 32],
    "swinv2": [4, 8, 16, 16, 32],
    "convnext": [4, 8, 8, 16, 16, 16, 16, 32, 32],
    "resnet": [4, 8, 16, 32],
    "galileo": [4] * 4,
}
SIZE_DIVISORS = {
    "vit": 16,
    "registers": 16,
    "swin": 32,
    "swinv2": 32,
    "convnext": 32,
    "resnet": 32,
    "galileo": 4,
}


def images(height: int = 37, width: int = 50, bands: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(2, bands, height, width, generator=torch.Generator().manual_seed(seed))


def same(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.fixture
def backbone(family: str, make_backbone: MakeBackbone) -> Backbone:
    return make_backbone(family).eval()


def test_every_block_is_a_tap(family: str, backbone: Backbone) -> None:
    assert len(backbone.taps) == len(backbone.blocks) == BLOCKS[family]
    assert [tap.stride for tap in backbone.taps] == STRIDES[family]
    modules = dict(backbone.model.named_modules())
    assert [modules[tap.name] for tap in backbone.taps] == backbone.blocks
    assert backbone.is_plain_vit == (len(set(STRIDES[family])) == 1)
    assert [backbone.taps[stage[-1]].stride for stage in backbone.stages] == sorted(
        set(STRIDES[family])
    )


@pytest.mark.parametrize(("height", "width"), [(37, 50), (33, 17), (64, 96)])
def test_maps_match_the_taps_for_any_image_size(
    family: str, backbone: Backbone, height: int, width: int
) -> None:
    with torch.no_grad():
        features = backbone(images(height, width))
    multiple = SIZE_DIVISORS[family]
    padded = (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
    assert features.image_size == padded
    for tap, feature in zip(backbone.taps, features.maps, strict=True):
        rows, columns = (side / tap.stride for side in padded)
        assert feature.shape == (2, tap.channels, rows, columns), tap
        assert feature.isfinite().all()


def test_padding_repeats_the_right_and_bottom_edge(backbone: Backbone) -> None:
    small = images()
    padded = pad_to_multiple(small, backbone.size_divisor)
    assert torch.equal(padded[..., :37, :50], small)
    assert torch.equal(padded[..., 37:, :50], small[..., 36:37, :].expand_as(padded[..., 37:, :50]))
    assert torch.equal(padded[..., 50:], padded[..., 49:50].expand_as(padded[..., 50:]))
    with torch.no_grad():
        same(backbone(small).maps, backbone(padded).maps)


def test_images_with_a_different_number_of_bands_are_rejected(
    family: str, backbone: Backbone
) -> None:
    mentions = ["(2, 5, 32, 32)", "(B, 4, H, W)", "B02, B03, B04, B08"]
    with raises("input-shape", mentions=mentions):
        backbone(images(32, 32, bands=5))
    with raises("input-shape", mentions=["(4, 32, 32)"]):
        backbone(images(32, 32)[0])


def test_an_image_smaller_than_a_patch_is_rejected(backbone: Backbone) -> None:
    patch = int(min(tap.stride for tap in backbone.taps))
    assert backbone(images(patch, 40)).maps
    with raises("input-shape", mentions=[f"{patch - 1} x 40"]):
        backbone(images(patch - 1, 40))


def test_features_depend_only_on_the_images(backbone: Backbone) -> None:
    with torch.no_grad():
        same(backbone(images()).maps, backbone(images()).maps)
        assert not torch.equal(backbone(images()).maps[-1], backbone(images(seed=1)).maps[-1])
        both, first = backbone(images()), backbone(images()[:1])
    torch.testing.assert_close(both.maps[-1][:1], first.maps[-1], rtol=1e-4, atol=1e-5)


def test_random_weights_are_reproducible(family: str, make_backbone: MakeBackbone) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = make_backbone(family)
    assert torch.equal(torch.get_rng_state(), before), "the caller's random state changed"
    torch.manual_seed(2)
    two = make_backbone(family)
    assert one.random_weights
    assert one.source == "random weights"
    assert one.fingerprint == two.fingerprint
    for (name, ours), theirs in zip(
        one.state_dict().items(), two.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name


def test_taps_are_returned_in_the_requested_order(backbone: Backbone) -> None:
    last = len(backbone.taps) - 1
    with torch.no_grad():
        every = backbone(images()).maps
        same(backbone(images(), taps=[last, 0, 1]).maps, (every[last], every[0], every[1]))
        same(backbone(images(), taps=[0]).maps, every[:1])


def test_on_tap_is_called_right_after_each_block(backbone: Backbone) -> None:
    events: list[str] = []
    hooks = [
        block.register_forward_pre_hook(lambda *_, i=i: events.append(f"block {i}"))
        for i, block in enumerate(backbone.blocks)
    ]

    def on_tap(index: int, feature: Tensor) -> Tensor:
        assert feature.shape[1] == backbone.taps[index].channels
        events.append(f"tap {index}")
        return feature.new_tensor([index])

    depth = len(backbone.taps)
    with torch.no_grad():
        kept = backbone(images(), on_tap=on_tap)
    for hook in hooks:
        hook.remove()
    assert events == [f"{what} {i}" for i in range(depth) for what in ("block", "tap")]
    assert [int(m) for m in kept.maps] == list(range(depth))


def test_fingerprint_changes_with_a_single_weight(backbone: Backbone) -> None:
    before = fingerprint(backbone.model)
    assert before == fingerprint(backbone.model)
    weight = next(p for p in backbone.blocks[-1].parameters() if p.ndim > 1)
    with torch.no_grad():
        weight.view(-1)[0] = torch.nextafter(weight.view(-1)[0], torch.tensor(torch.inf))
    assert fingerprint(backbone.model) != before


def test_fingerprint_covers_names_shapes_types_and_buffers() -> None:
    layer = nn.BatchNorm1d(2)
    prints = {fingerprint(layer), fingerprint(nn.Sequential(layer)), fingerprint(layer.double())}
    layer.running_mean += 1
    prints.add(fingerprint(layer))
    flat = nn.Module()
    flat.weight = nn.Parameter(torch.zeros(4))
    prints.add(fingerprint(flat))
    flat.weight = nn.Parameter(torch.zeros(2, 2))
    prints.add(fingerprint(flat))
    assert len(prints) == 6


def test_bands_are_matched_by_name(
    family: str, make_backbone: MakeBackbone, tmp_path: Path
) -> None:
    bands = ["B02", "B03", "B04", "B08"]
    order = [3, 1, 0, 2]
    options = {}
    if family != "galileo":  # random weights depend on the order of the bands
        save_file(make_backbone(family, bands=3).model.state_dict(), tmp_path / "rgb.safetensors")
        options = {"weights": tmp_path / "rgb.safetensors"}
    here = make_backbone(family, bands=bands, **options).eval()
    there = make_backbone(family, bands=[bands[i] for i in order], **options).eval()
    with torch.no_grad():
        ours = here(images()).maps
        theirs = there(images()[:, order]).maps
        other = there(images()).maps
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(ours[0], other[0], atol=1e-3), "the bands have no effect"
