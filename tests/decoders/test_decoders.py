"""Contract tests of every decoder in the registry, over many tap lists."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from geotune.decoders.base import classifier_conv
from geotune.registry import DECODERS as ALL
from geotune.types import FeatureMaps, Tap
from helpers.components import DETECTORS, PROBES, make_decoder

CLASSES = 3
DECODERS = [kind for kind in ALL if kind not in (*DETECTORS, *PROBES)]


def taps_of(*strides: float, channels: int = 8, stem: Sequence[int] = ()) -> tuple[Tap, ...]:
    first = tuple(Tap(f"stem{s}", 4, s) for s in stem)
    return first + tuple(Tap(f"block{i}", channels + 4 * i, s) for i, s in enumerate(strides))


TAPS = {
    "resnet": taps_of(4, 8, 16, 32),
    "resnet-2": taps_of(2, 4, 8, 16, 32),
    "resnet-stem": taps_of(4, 8, 16, 32, stem=(1, 2, 4)),
    "vit": taps_of(16, 16, 16, 16),
    "vit-2": taps_of(16, 16),
    "vit-6": taps_of(16, 16, 16, 16, 16, 16),
    "vit-stem": taps_of(16, 16, 16, 16, stem=(1, 2, 4)),
    "galileo": taps_of(8, 8, 8, 8),
    "galileo-stem": taps_of(8, 8, 8, 8, stem=(1, 2, 4)),
    "patch-14": taps_of(14, 14, 14, 14),
    "patch-14-stem": taps_of(14, 14, 14, 14, stem=(1, 2, 4)),
    "patch-4": taps_of(4, 4, 4, 4),
    "patch-1": taps_of(1, 1),
    "single-32": taps_of(32),
    "single-16-stem": taps_of(16, stem=(1, 2, 4)),
    "stem-only": taps_of(stem=(1,)),
    "seven": taps_of(1, 2, 4, 8, 16, 32, 64, channels=4),
}
SIZES = [(64, 96), (75, 53)]
VALUES: dict[str, dict[str, object]] = {
    "linear": {},
    "fcn": {"channels": 8},
    "unet": {"channels": [12, 8, 6, 4, 4]},
    "upernet": {"channels": 8},
}


def features_of(
    taps: Sequence[Tap], size: tuple[int, int], batch: int = 2, seed: int = 0
) -> FeatureMaps:
    generator = torch.Generator().manual_seed(seed)
    maps = tuple(
        torch.randn(
            batch,
            tap.channels,
            *(math.ceil(side / tap.stride) for side in size),
            generator=generator,
        )
        for tap in taps
    )
    return FeatureMaps(maps, size)


def decoder_of(kind: str, taps: Sequence[Tap]) -> nn.Module:
    torch.manual_seed(0)
    decoder: nn.Module = make_decoder(kind, taps, CLASSES, **VALUES[kind])
    return decoder


# global_pool is tested in test_global_pool.py
every_decoder = pytest.mark.parametrize(
    "kind", [kind for kind in DECODERS if kind != "global_pool"]
)
every_taps = pytest.mark.parametrize("taps", TAPS.values(), ids=TAPS)


@every_decoder
@every_taps
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_logits_have_one_channel_per_class_and_the_finest_maps_size(
    kind: str, taps: tuple[Tap, ...], size: tuple[int, int]
) -> None:
    features = features_of(taps, size)
    logits = decoder_of(kind, taps)(features)
    batch, classes, height, width = logits.shape
    assert (batch, classes) == (2, CLASSES)
    finest = features.maps[min(range(len(taps)), key=lambda i: taps[i].stride)]
    assert height >= finest.shape[-2] and width >= finest.shape[-1]
    # Larger than the image only because map sizes are rounded up.
    assert height <= size[0] + 64 and width <= size[1] + 64
    assert logits.isfinite().all()


def test_initial_classifier_weights_use_features_for_every_class() -> None:
    # Features are non-negative, so each favours the class with its largest weight. With weights
    # near zero, the most common class would take over all features.
    weight = classifier_conv(64, CLASSES).weight.detach().flatten(1)
    assert weight.std() > 0.25 / 64**0.5
    features_per_class = weight.argmax(dim=0).bincount(minlength=CLASSES)
    assert (features_per_class > 0).all()


@every_decoder
@every_taps
def test_gradients_reach_every_parameter_and_every_map(kind: str, taps: tuple[Tap, ...]) -> None:
    # In eval mode, because batch statistics would cancel an affine shift before the batch norm.
    decoder = decoder_of(kind, taps).eval()
    features = features_of(taps, (64, 96))
    for x in features.maps:
        x.requires_grad_()
    logits = decoder(features)
    (logits * torch.randn_like(logits)).sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    for tap, x in zip(taps, features.maps, strict=True):
        assert x.grad is not None and x.grad.abs().sum() > 0, tap.name


@every_decoder
@every_taps
def test_every_map_changes_the_output(kind: str, taps: tuple[Tap, ...]) -> None:
    decoder = decoder_of(kind, taps).eval()
    features = features_of(taps, (64, 96))
    with torch.no_grad():
        before = decoder(features)
        for i, tap in enumerate(taps):
            maps = list(features.maps)
            maps[i] = maps[i] + torch.randn_like(maps[i])
            after = decoder(FeatureMaps(tuple(maps), features.image_size))
            assert not torch.allclose(before, after, atol=1e-7), tap.name


@every_decoder
@pytest.mark.parametrize("name", ["resnet", "vit-stem", "patch-14"])
def test_trains_with_a_batch_of_one(kind: str, name: str) -> None:
    decoder = decoder_of(kind, TAPS[name]).train()
    decoder(features_of(TAPS[name], (75, 53), batch=1)).sum().backward()


@every_decoder
def test_runs_under_bf16_autocast(kind: str) -> None:
    taps = TAPS["vit-stem"]
    decoder = decoder_of(kind, taps).eval()
    features = features_of(taps, (64, 64))
    exact = decoder(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = decoder(features)
    logits.float().sum().backward()
    assert torch.allclose(logits.float(), exact, atol=0.05 * float(exact.detach().abs().max()))


@every_decoder
def test_input_maps_are_not_modified(kind: str) -> None:
    features = features_of(TAPS["resnet-stem"], (64, 64))
    copies = [x.clone() for x in features.maps]
    decoder_of(kind, TAPS["resnet-stem"])(features)
    assert all(torch.equal(x, y) for x, y in zip(features.maps, copies, strict=True))


@every_decoder
def test_hidden_convolutions_before_a_norm_have_no_bias(kind: str) -> None:
    modules = list(decoder_of(kind, TAPS["vit-stem"]).modules())
    for before, after in pairwise(modules):
        if isinstance(after, nn.BatchNorm2d):
            assert isinstance(before, nn.Conv2d | nn.ConvTranspose2d) and before.bias is None


@every_decoder
def test_empty_tap_list_is_an_error(kind: str) -> None:
    with pytest.raises(ValueError, match="at least one tap"):
        make_decoder(kind, (), CLASSES)


# ---------------------------------------------------------------- single decoders
def test_linear_equals_one_convolution_on_the_concatenated_maps() -> None:
    taps = TAPS["resnet-stem"]
    decoder = decoder_of("linear", taps)
    features = features_of(taps, (64, 96))
    logits = decoder(features)
    size = features.maps[0].shape[-2:]
    concatenated = torch.cat(
        [
            nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
            for x in features.maps
        ],
        dim=1,
    )
    weights: list[Tensor] = [p.weight for p in decoder.projections]
    weight, bias = torch.cat(weights, dim=1), decoder.projections[0].bias
    expected = nn.functional.conv2d(concatenated, weight, bias)
    assert torch.allclose(logits, expected, atol=1e-5)


def test_linear_last_uses_the_last_block_only() -> None:
    taps = TAPS["vit-stem"]
    decoder = make_decoder("linear", taps, CLASSES, levels="last")
    features = features_of(taps, (64, 96))
    logits = decoder(features)
    assert logits.shape[-2:] == (4, 6)
    changed = (*(x + 1 for x in features.maps[:-1]), features.maps[-1])
    assert torch.equal(decoder(FeatureMaps(changed, features.image_size)), logits)
    assert sum(p.numel() for p in decoder.parameters()) == CLASSES * (taps[-1].channels + 1)


def test_linear_upsample_is_a_linear_layer_for_each_pixel_of_a_patch() -> None:
    taps, patch = TAPS["vit"], 16
    decoder = make_decoder("linear", taps, CLASSES, levels="last", upsample=patch)
    features = features_of(taps, (64, 96))
    logits = decoder(features)
    assert logits.shape[-2:] == (64, 96)
    [convolution] = decoder.projections
    assert convolution.weight.shape == (taps[-1].channels, CLASSES, patch, patch)
    row, col = 37, 70
    vector = features.maps[-1][:, :, row // patch, col // patch]
    layer = convolution.weight[:, :, row % patch, col % patch]
    assert torch.allclose(logits[..., row, col], vector @ layer + convolution.bias, atol=1e-5)


def test_linear_upsample_of_several_maps_has_the_size_of_the_finest() -> None:
    decoder = make_decoder("linear", TAPS["resnet"], CLASSES, upsample=2)
    assert decoder(features_of(TAPS["resnet"], (64, 96))).shape[-2:] == (32, 48)
    assert sum(p.bias is not None for p in decoder.projections) == 1


def test_linear_upsample_by_the_stride_gives_every_map_the_size_of_the_image() -> None:
    decoder = make_decoder("linear", TAPS["resnet"], CLASSES, upsample="stride")
    assert [p.stride for p in decoder.projections] == [(4, 4), (8, 8), (16, 16), (32, 32)]
    features = features_of(TAPS["resnet"], (64, 96))
    logits = decoder(features)
    assert logits.shape == (2, CLASSES, 64, 96)
    expected = sum(p(x) for p, x in zip(decoder.projections, features.maps, strict=True))
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("levels", ["last", "all"])
def test_fcn_upsample_doubles_the_size_before_each_convolution(levels: str) -> None:
    taps = TAPS["vit"]
    options = {"channels": 8, "depth": 4, "levels": levels, "upsample": True}
    decoder = make_decoder("fcn", taps, CLASSES, **options)
    assert decoder(features_of(taps, (64, 96))).shape[-2:] == (64, 96)
    inputs = [block[0].in_channels for block in decoder.hidden]
    # a single map goes straight into the first block
    assert inputs == [taps[-1].channels if levels == "last" else 8, 8, 8, 8]
    first = decoder.hidden[0](torch.randn(2, inputs[0], 4, 6))
    assert first.shape == (2, 8, 8, 12)


@pytest.mark.parametrize(
    ("name", "channels", "widths", "size"),
    [
        ("resnet", [12, 8, 6, 4, 2], [12, 8, 6, 4, 2], (64, 96)),
        ("resnet", [12, 8, 6], [12, 8, 6], (16, 24)),
        ("resnet", [12], [12, 12, 12], (16, 24)),
        ("resnet", [12, 8, 6, 4, 2, 2, 2, 2], [12, 8, 6, 4, 2], (64, 96)),
        ("resnet-stem", [12, 8, 6, 4, 2], [12, 8, 6, 4, 2], (64, 96)),
        ("galileo", [12, 8, 6, 4, 2], [12, 8, 6, 4], (64, 96)),
        ("seven", [12, 8], [12, 8, 8, 8, 8, 8], (64, 96)),
    ],
)
def test_unet_widths_start_at_the_coarsest_level(
    name: str, channels: list[int], widths: list[int], size: tuple[int, int]
) -> None:
    decoder = make_decoder("unet", TAPS[name], CLASSES, channels=channels)
    assert [block.conv2[0].out_channels for block in decoder.blocks] == widths
    assert decoder(features_of(TAPS[name], (64, 96))).shape[-2:] == size


def test_unet_output_is_not_larger_than_the_image() -> None:
    decoder = make_decoder("unet", TAPS["patch-14"], CLASSES, channels=[4])
    assert decoder(features_of(TAPS["patch-14"], (70, 98))).shape[-2:] == (20, 28)
    decoder = make_decoder("unet", TAPS["patch-14"], CLASSES, channels=[4] * 5)
    assert decoder(features_of(TAPS["patch-14"], (70, 98))).shape[-2:] == (70, 98)


def test_upernet_keeps_its_full_width_to_stride_4_and_coarser() -> None:
    decoder = make_decoder("upernet", TAPS["vit-stem"], CLASSES, channels=16)
    assert len(decoder.fuse.fpn_lateral_blocks) == 3
    assert [block.conv2[0].out_channels for block in decoder.refine] == [8, 4]
    assert len(make_decoder("upernet", TAPS["resnet"], CLASSES, channels=16).refine) == 0


def test_upernet_on_four_levels_equals_smps_decoder() -> None:
    from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder

    taps = TAPS["resnet"]
    decoder = make_decoder("upernet", taps, CLASSES, channels=8).eval()
    theirs = UPerNetDecoder([3, 4, *(tap.channels for tap in taps)], 5, 8).eval()
    ours = decoder.fuse.state_dict()
    # The one-pixel branch has a batch norm in smp and a bias here; both start as the identity.
    bias = ours.pop("psp.blocks.0.1.0.bias")
    missing = theirs.load_state_dict(ours, strict=False)
    assert all(key.startswith("psp.blocks.0.1.1") for key in missing.missing_keys)
    assert bias.abs().max() == 0
    features = features_of(taps, (64, 96))
    x = features.maps[0]
    expected = decoder.head(theirs([x, x, *features.maps]))
    assert torch.allclose(decoder(features), expected, atol=1e-5)
