"""ViT-Adapter against its formulas: deformable attention, injection, pyramid."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models import VisionTransformer
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.backbones.blocks import from_tiles
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.timm import TimmBackbone
from geotune.methods.core.deformable_attention import DeformableAttention, reference_points
from geotune.methods.core.encoder import Encoder
from geotune.methods.selective import Frozen
from geotune.methods.vit_adapter import (
    InjectedBlock,
    VitAdapter,
    VitAdapterReader,
    default_num_heads,
)
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]

SMALL: dict[str, Any] = {"conv_inplane": 4, "stem_width": 0}


def vit(depth: int = 4, patch: int = 16, width: int = 16) -> Backbone:
    model = VisionTransformer(
        img_size=4 * patch,
        patch_size=patch,
        in_chans=3,
        num_classes=0,
        embed_dim=width,
        depth=depth,
        num_heads=2,
        dynamic_img_size=True,
    )
    request = BackboneSpec(name="timm/vit", bands=("red", "green", "blue"))
    return TimmBackbone(model, request, size_divisor=patch, licence="none", source=None)


def randomise(module: nn.Module) -> None:
    """Set every parameter to random values."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def adapted(backbone: Backbone, **options: Any) -> tuple[Encoder, Any]:
    """The encoder in evaluation mode, with random parameters in its reader."""
    torch.manual_seed(0)
    encoder = VitAdapter(**{**SMALL, **options}).attach(backbone).eval()
    randomise(encoder.reader)
    return encoder, encoder.reader


# ---------------------------------------------------------------- deformable attention
SIZES = [(3, 5), (2, 2)]


def bilinear(values: Tensor, x: float, y: float) -> Tensor:
    """A map `(h, w, d)` at x and y from 0 to 1 across it: bilinear, zero outside."""
    height, width, _ = values.shape
    column, row = x * width - 0.5, y * height - 0.5  # pixels' centres are at whole numbers
    left, above = math.floor(column), math.floor(row)
    total = torch.zeros(values.shape[-1], dtype=values.dtype)
    for i in (above, above + 1):
        for j in (left, left + 1):
            if 0 <= i < height and 0 <= j < width:
                total += (1 - abs(row - i)) * (1 - abs(column - j)) * values[i, j]
    return total


def test_deformable_attention_matches_its_formula() -> None:
    """out = W sum_hlk a_hlk V_l(p + o_hlk / size_l)_h, point by point."""
    channels, inner, heads, points = 6, 8, 2, 3
    attention = DeformableAttention(channels, inner, levels=2, heads=heads, points=points).double()
    randomise(attention)
    generator = torch.Generator().manual_seed(2)
    queries = torch.randn(2, 4, channels, generator=generator).double()
    reference = torch.rand(4, 2, generator=generator).double()
    maps = torch.randn(2, 3 * 5 + 2 * 2, channels, generator=generator).double()
    with torch.no_grad():
        actual = attention(queries, reference, maps, SIZES)
        for b in range(2):
            for n in range(4):
                sampled = torch.zeros(heads, inner // heads).double()
                offsets = attention.offsets(queries[b, n]).reshape(heads, 2, points, 2)
                shares = attention.weights(queries[b, n]).reshape(heads, -1).softmax(-1)
                shares = shares.reshape(heads, 2, points)
                for h in range(heads):
                    for level, (height, width) in enumerate(SIZES):
                        first = 0 if level == 0 else 15
                        values = attention.value(maps[b, first : first + height * width])
                        values = values.reshape(height, width, heads, -1)[:, :, h]
                        for k in range(points):
                            dx, dy = offsets[h, level, k].tolist()
                            x = float(reference[n, 0]) + dx / width
                            y = float(reference[n, 1]) + dy / height
                            sampled[h] += shares[h, level, k] * bilinear(values, x, y)
                torch.testing.assert_close(actual[b, n], attention.out(sampled.flatten()))


def test_initial_points_are_on_rays_with_equal_weights() -> None:
    attention = DeformableAttention(8, 8, levels=1, heads=4, points=2)
    offsets = attention.offsets(torch.randn(8)).reshape(4, 2, 2)
    rays = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    torch.testing.assert_close(offsets, torch.stack([rays, 2 * rays], 1), atol=1e-6, rtol=0)
    assert not attention.weights(torch.randn(8)).any()


def test_reference_points_are_pixel_centres() -> None:
    expected = [
        [0.25, 1 / 6],
        [0.75, 1 / 6],
        [0.25, 0.5],
        [0.75, 0.5],
        [0.25, 5 / 6],
        [0.75, 5 / 6],
    ]
    torch.testing.assert_close(reference_points((3, 2)), torch.tensor(expected))


def test_each_map_is_sampled_once_for_all_heads_points_and_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    sample = F.grid_sample

    def count(values: Tensor, *inputs: Any, **named: Any) -> Tensor:
        calls.append(tuple(values.shape))
        return sample(values, *inputs, **named)

    monkeypatch.setattr(F, "grid_sample", count)
    attention = DeformableAttention(8, 8, levels=2, heads=4, points=5)
    attention(torch.randn(3, 7, 8), torch.rand(7, 2), torch.randn(3, 19, 8), SIZES)
    assert calls == [(12, 2, 3, 5), (12, 2, 2, 2)]


def test_half_precision_keeps_reference_points_exact() -> None:
    attention = DeformableAttention(8, 8, levels=1, heads=1, points=1)
    inputs = torch.randn(1, 4, 8), reference_points((1, 4)), torch.randn(1, 4096, 8), [(1, 4096)]
    exact = attention(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rough = attention(*inputs)
    torch.testing.assert_close(rough.float(), exact, atol=0.05, rtol=0.05)


# ---------------------------------------------------------------- through a ViT
def test_maps_match_the_formulas() -> None:
    """Injector, blocks, extractor, four times; then two more extractors and the pyramid."""
    backbone = vit(depth=6)
    model: Any = copy.deepcopy(backbone.model)
    encoder, reader = adapted(backbone)
    images = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        actual = encoder(images).maps

        c1, *maps = reader.prior(images, (2, 3))
        sizes = [(4, 6), (2, 3), (1, 2)]
        assert [tuple(m.shape[-2:]) for m in (c1, *maps)] == [(8, 12), *sizes]
        c = torch.cat(
            [
                m.flatten(2).transpose(1, 2) + e
                for m, e in zip(maps, reader.level_embedding, strict=True)
            ],
            1,
        )
        c_points, x_points = (
            torch.cat([reference_points(s) for s in sizes]),
            reference_points((2, 3)),
        )

        def to_maps(tokens: Tensor) -> list[Tensor]:
            split = torch.split(tokens.transpose(1, 2), [24, 6, 2], -1)
            return [m.reshape(2, -1, *s) for m, s in zip(split, sizes, strict=True)]

        def extract(c: Tensor, x: Tensor, e: Any) -> Tensor:
            c = c + e.attention(e.norm_c(c), c_points, e.norm_x(x), [(2, 3)])
            wide = [e.depthwise(m).flatten(2) for m in to_maps(e.widen(e.norm(c)))]
            out: Tensor = c + e.narrow(F.gelu(torch.cat(wide, -1).transpose(1, 2)))
            return out

        x = model._pos_embed(model.patch_embed(images))
        groups, extractors = [(0, 1), (2,), (3,), (4, 5)], list(reader.extractors)
        outputs = []
        for group, i in zip(groups, reader.injectors, strict=True):
            spatial: Tensor = x[:, 1:]
            spatial = spatial + i.gamma * i.attention(
                i.norm_x(spatial), x_points, i.norm_c(c), sizes
            )
            x = torch.cat([x[:, :1], spatial], 1)
            for index in group:
                x = model.blocks[index](x)
            tap = model.norm(x) if group == groups[-1] else x
            outputs.append(tap[:, 1:].transpose(1, 2).reshape(2, -1, 2, 3))
            for _ in range(3 if group == groups[-1] else 1):
                c = extract(c, tap[:, 1:], extractors.pop(0))
        assert not extractors
        levels = to_maps(c)
        levels = [reader.up(levels[0]) + c1, *levels]
        for ours, level, x_l, norm in zip(actual, levels, outputs, reader.norms, strict=True):
            x_l = F.interpolate(x_l, level.shape[-2:], mode="bilinear")
            torch.testing.assert_close(ours, norm(level + x_l), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("vit", {}, (2, 4, 21, 34)),
        ("registers", {}, (2, 4, 21, 34)),
        ("galileo", {"timesteps": 2}, (2, 4, 2, 9, 14)),
        ("galileo", {"timesteps": 2, "combine": "concat"}, (2, 4, 2, 9, 14)),
        ("timm/small_beit", {}, (1, 4, 230, 200)),
    ],
)
def test_zero_gamma_leaves_the_features_bit_identical(
    make_backbone: MakeBackbone, name: str, options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    backbone = make_backbone(name, **options)
    encoder, reader = adapted(copy.deepcopy(backbone))
    images = torch.randn(shape)
    seen: list[Tensor] = []
    step = reader.step

    def watch(state: Any, index: int, feature: Tensor, activations: Any = None) -> Any:
        seen.append(feature)
        return step(state, index, feature, activations)

    reader.step = watch
    with torch.no_grad():
        expected = backbone.eval()(images, taps=reader.out_indices).maps
        encoder(images)
        assert not any(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))
        for injector in reader.injectors:
            injector.gamma.zero_()
        seen.clear()
        encoder(images)
        assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))


def streams(encoder: Encoder, images: Tensor) -> tuple[Tensor, Tensor, Any]:
    """Input of the first block before and after injection, and the state of the pass."""
    block = encoder.backbone.blocks[0]
    assert isinstance(block, InjectedBlock) and isinstance(encoder.reader, VitAdapterReader)
    captured: list[Any] = []
    reader = encoder.reader

    def before(_module: nn.Module, inputs: Any, named: Any) -> None:
        captured.extend([inputs[0] if inputs else named["x"], copy.copy(reader.pass_state)])

    def after(_module: nn.Module, inputs: Any) -> None:
        captured.append(inputs[0])

    hooks = [
        block.register_forward_pre_hook(before, with_kwargs=True),
        block.inner.register_forward_pre_hook(after),
    ]
    with torch.no_grad():
        encoder(images)
    for hook in hooks:
        hook.remove()
    stream, state, changed = captured
    return stream, changed, state


def test_class_tokens_are_not_injected(make_backbone: MakeBackbone) -> None:
    encoder, reader = adapted(make_backbone("vit"))
    x, changed, state = streams(encoder, torch.randn(2, 4, 21, 34))
    assert torch.equal(changed[:, :1], x[:, :1])
    with torch.no_grad():
        torch.testing.assert_close(changed[:, 1:], reader.injectors[0](state, x[:, 1:]))


def test_dates_and_band_groups_are_injected_with_the_same_prior(
    make_backbone: MakeBackbone,
) -> None:
    encoder, reader = adapted(make_backbone("galileo", timesteps=2))
    images = torch.randn(2, 4, 2, 9, 14)
    x, changed, state = streams(encoder, images)
    tokens_per_location = x.shape[1] // math.prod(state.grid)
    assert state.grid == (3, 4)
    assert tokens_per_location > 2
    for kind in range(tokens_per_location):  # tokens of one position are adjacent
        with torch.no_grad():
            expected = reader.injectors[0](state, x[:, kind::tokens_per_location])
        torch.testing.assert_close(changed[:, kind::tokens_per_location], expected)


def test_tiled_models_are_injected_with_the_prior_of_the_whole_image(
    make_backbone: MakeBackbone,
) -> None:
    encoder, reader = adapted(make_backbone("timm/small_beit"))
    x, changed, state = streams(encoder, torch.randn(1, 4, 230, 200))
    assert len(x) == 2
    assert state.grid == (28, 14)

    def join(tokens: Tensor) -> Tensor:
        maps = tokens[:, 1:].transpose(1, 2).reshape(2, -1, 14, 14)
        return from_tiles(maps, (2, 1)).flatten(2).transpose(1, 2)

    with torch.no_grad():
        torch.testing.assert_close(join(changed), reader.injectors[0](state, join(x)))


@pytest.mark.parametrize("patch", [1, 2, 3, 4, 6, 8, 14, 16, 32])
def test_pyramid_strides_follow_the_patch_size_down_to_one_pixel(patch: int) -> None:
    encoder, _ = adapted(vit(depth=1, patch=patch))
    strides = [patch / 4, patch / 2, patch, 2 * patch]
    assert [tap.stride for tap in encoder.taps] == [s for s in strides if s >= 1]
    for height, width in ((2 * patch + 1, 5 * patch - 1), (patch, patch)):
        with torch.no_grad():
            features = encoder(torch.randn(1, 3, height, width))
        for tap, feature in zip(encoder.taps, features.maps, strict=True):
            sides = [math.ceil(side / tap.stride) for side in features.image_size]
            assert list(feature.shape) == [1, tap.channels, *sides]


@pytest.mark.parametrize(
    ("depth", "interactions", "first"),
    [(6, 4, (0, 2, 3, 4)), (12, 4, (0, 3, 6, 9)), (8, 2, (0, 4)), (2, 4, (0, 1)), (1, 4, (0,))],
)
def test_a_shallow_vit_has_fewer_interactions(
    depth: int, interactions: int, first: tuple[int, ...]
) -> None:
    encoder, reader = adapted(vit(depth), interactions=interactions)
    assert reader.first_blocks == first
    assert len(reader.injectors) == len(first)
    assert len(encoder(torch.randn(1, 3, 32, 32)).maps) == 4


def test_backbone_alone_is_not_injected() -> None:
    backbone = vit()
    encoder, reader = adapted(copy.deepcopy(backbone))
    images = torch.randn(1, 3, 32, 32)
    encoder(images)
    assert reader.pass_state is None
    actual, expected = encoder.backbone(images).maps, backbone.eval()(images).maps
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_copies_are_independent_and_tensors_are_registered_once() -> None:
    encoder, _ = adapted(vit())
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before = encoder(images).maps[-1]
        twin = copy.deepcopy(encoder)
        assert torch.equal(twin(images).maps[-1], before)
        for parameter in twin.parameters():
            parameter.add_(1)
        assert not torch.equal(twin(images).maps[-1], before)
        assert torch.equal(encoder(images).maps[-1], before)
    addresses = [tensor.data_ptr() for tensor in encoder.state_dict().values()]
    assert len(set(addresses)) == len(addresses)
    assert not any("reader" in name for name in encoder.backbone.state_dict())


@pytest.mark.parametrize("train_backbone", [False, True])
def test_train_backbone_decides_whether_the_backbone_changes(train_backbone: bool) -> None:
    torch.manual_seed(0)
    encoder = VitAdapter(train_backbone=train_backbone, **SMALL).attach(vit()).train()
    assert encoder.backbone_trains == encoder.backbone.training == train_backbone
    images = torch.randn(2, 3, 64, 64)
    before = copy.deepcopy(encoder)
    trained = [p for p in encoder.parameters() if p.requires_grad]
    loss = sum((m * torch.randn_like(m)).mean() for m in encoder(images).maps)
    assert isinstance(loss, Tensor)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.optim.SGD(trained, lr=0.1).step()
    with torch.no_grad():
        ours, theirs = encoder.eval()(images).maps, before.eval()(images).maps
    assert not any(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    changed = [
        not torch.equal(a, b)
        for a, b in zip(encoder.backbone.parameters(), before.backbone.parameters(), strict=True)
    ]
    assert any(changed) == train_backbone


# ---------------------------------------------------------------- options
def test_options_size_the_layers() -> None:
    _, reader = adapted(vit(width=64), points=3, num_heads=4, ratio=1.0, cffn_ratio=0.5)
    attention = reader.injectors[0].attention
    assert attention.shape == (4, 3, 3)
    assert attention.value.out_features == 64
    assert reader.extractors[0].widen.out_features == 32
    assert len(reader.extractors) == 6
    assert reader.prior.project[0].in_channels == 4
    _, reader = adapted(vit(), extra_extractors=False)
    assert len(reader.extractors) == 4


def test_default_heads_are_those_of_the_paper() -> None:
    assert [default_num_heads(width // 2) for width in (768, 1024)] == [12, 16]
    assert [default_num_heads(width) for width in (8, 50, 64, 192)] == [1, 1, 2, 6]


@pytest.mark.parametrize(
    ("code", "option", "value", "allowed"),
    [
        ("recipe-invalid", "points", 0, ""),
        ("recipe-invalid", "interactions", 0, ""),
        ("recipe-invalid", "ratio", 1.5, ""),
        ("method-option-invalid", "num_heads", 3, "1, 2, 4, 8"),
    ],
)
def test_invalid_option_raises(code: str, option: str, value: float, allowed: str) -> None:
    with raises(code, key=f"method.{option}", mentions=[value, allowed]):
        VitAdapter(**SMALL, **{option: value}).attach(vit())


def test_models_without_blocks_or_spatial_tokens_raise(make_backbone: MakeBackbone) -> None:
    with raises("method-unsupported", mentions=["timm/hrnet_w18_small"]):
        VitAdapter(**SMALL).attach(make_backbone("timm/hrnet_w18_small"))
    pytest.importorskip("rslearn")
    with raises("method-unsupported", mentions=["vit_adapter", "rslearn/presto"]):
        VitAdapter(**SMALL).attach(make_backbone("rslearn/presto"))


def test_train_backbone_raises_for_a_frozen_backbone() -> None:
    backbone = vit()
    Frozen(stem_width=0).attach(backbone)
    with raises("backbone-already-adapted", key="method.train_backbone"):
        VitAdapter(train_backbone=True, **SMALL).attach(backbone)
