"""EST against its formulas; widths and strides of its side network."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from timm.models import VisionTransformer
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.timm import TimmBackbone
from geotune.methods.core.pca import RunningCovariance
from geotune.methods.est import Est, EstBlock, EstStream
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]


def vit(depth: int, patch: int = 16) -> Backbone:
    model = VisionTransformer(
        img_size=4 * patch,
        patch_size=patch,
        in_chans=3,
        num_classes=0,
        embed_dim=16,
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
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))


# ---------------------------------------------------------------- the block
@pytest.mark.parametrize("gated", [True, False])
def test_block_matches_the_formulas(gated: bool) -> None:
    """g = sigmoid(W [z, s] + b); h = g z + (1 - g) s; h += sum_k w_k Up_k(GELU(Down_k(LN(h))));
    h += DWConv(h), pixel by pixel."""
    width = 16
    block = EstBlock(width, Est(), gated=gated)
    randomise(block)
    generator = torch.Generator().manual_seed(2)
    z, s = (torch.randn(2, width, 5, 6, generator=generator) for _ in range(2))
    with torch.no_grad():
        actual = block(z, s if gated else None)

        p = dict(block.named_parameters())
        h = torch.empty_like(z)
        for b in range(2):
            for i in range(5):
                for j in range(6):
                    x = z[b, :, i, j]
                    if gated:
                        both = torch.cat([x, s[b, :, i, j]])
                        gate = 1 / (
                            1 + (-(p["gate.weight"][:, :, 0, 0] @ both + p["gate.bias"])).exp()
                        )
                        x = gate * x + (1 - gate) * s[b, :, i, j]
                    h[b, :, i, j] = x + _fusion(x, p)
        expected = h.clone()
        padded = torch.zeros(2, width, 7, 8)
        padded[:, :, 1:-1, 1:-1] = h
        for i in range(5):
            for j in range(6):
                patch = padded[:, :, i : i + 3, j : j + 3]
                expected[:, :, i, j] += (patch * p["enhance.weight"][:, 0]).sum((2, 3))
        expected += p["enhance.bias"][:, None, None]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def _fusion(h: Tensor, p: dict[str, Tensor]) -> Tensor:
    """sum_k w_k Up_k(GELU(Down_k(LN(h)))) with widths d/2, d/4, d/8 and w = softmax."""
    normed = (h - h.mean()) / (h.var(unbiased=False) + 1e-5).sqrt()
    normed = normed * p["norm.weight"] + p["norm.bias"]
    weights = p["adapter_logits"].exp() / p["adapter_logits"].exp().sum()
    total, start = p["adapters_up.bias"].clone(), 0
    for weight, inner in zip(weights, (8, 4, 2), strict=True):
        rows = slice(start, start + inner)
        a = p["adapters_down.weight"][rows] @ normed + p["adapters_down.bias"][rows]
        gelu = a * 0.5 * (1 + torch.erf(a / 2**0.5))
        total += weight * (p["adapters_up.weight"][:, rows] @ gelu)
        start += inner
    return total


def test_spatial_fusion_matches_the_formula() -> None:
    """h + Up(sum_k w_k resize(GELU(Down_k(pool_k(LN(h)))))) with rates 1, 2, 4, pixel by pixel."""
    block = EstBlock(4, Est(fusion="spatial"), gated=False)
    randomise(block)
    h = torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        block.enhance.weight.zero_()
        block.enhance.bias.zero_()
        actual = block(h, None)

        p = dict(block.named_parameters())
        normed = (h - h.mean(1)) / (h.var(1, unbiased=False) + 1e-5).sqrt()
        normed = normed * p["norm.weight"][:, None, None] + p["norm.bias"][:, None, None]
        weights = p["adapter_logits"].exp() / p["adapter_logits"].exp().sum()
        fused = torch.zeros(2, 5, 6)
        for k, rate in enumerate((1, 2, 4)):
            rows, columns = -(-5 // rate), -(-6 // rate)
            inner = torch.empty(2, rows, columns)
            for i in range(rows):
                for j in range(columns):  # windows at the edge average the pixels that exist
                    window = normed[0, :, rate * i : rate * (i + 1), rate * j : rate * (j + 1)]
                    a = p["adapters_down.weight"][2 * k : 2 * k + 2] @ window.mean((1, 2))
                    a = a + p["adapters_down.bias"][2 * k : 2 * k + 2]
                    inner[:, i, j] = a * 0.5 * (1 + torch.erf(a / 2**0.5))
            for i in range(5):
                for j in range(6):
                    y = min(max((i + 0.5) / rate - 0.5, 0), rows - 1)
                    x = min(max((j + 0.5) / rate - 0.5, 0), columns - 1)
                    top, left = int(y), int(x)
                    below, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
                    upper = torch.lerp(inner[:, top, left], inner[:, top, right], x - left)
                    lower = torch.lerp(inner[:, below, left], inner[:, below, right], x - left)
                    fused[:, i, j] += weights[k] * torch.lerp(upper, lower, y - top)
        up = torch.einsum("oi,ihw->ohw", p["adapters_up.weight"], fused)
        expected = h + up + p["adapters_up.bias"][:, None, None]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fusion", ["widths", "spatial"])
def test_block_starts_as_the_gate_alone(fusion: Any) -> None:
    block = EstBlock(8, Est(fusion=fusion), gated=True)
    z, s = torch.randn(1, 8, 4, 4), torch.randn(1, 8, 4, 4)
    assert block.gate is not None
    with torch.no_grad():
        gate = torch.sigmoid(block.gate(torch.cat([z, s], dim=1)))
        torch.testing.assert_close(block(z, s), gate * z + (1 - gate) * s)
        assert torch.equal(EstBlock(8, Est(fusion=fusion), gated=False)(z, None), z)


# ---------------------------------------------------------------- the side network
def test_plain_vit_gets_a_pyramid() -> None:
    encoder = Est(output="side", reduction=4, min_width=2, stem_width=0).attach(vit(4)).eval()
    assert [tap.stride for tap in encoder.taps] == [4, 8, 16, 32]
    assert {tap.channels for tap in encoder.taps} == {4}
    with torch.no_grad():
        maps = encoder(torch.randn(1, 3, 40, 60)).maps
    assert [tuple(m.shape[-2:]) for m in maps] == [(12, 16), (6, 8), (3, 4), (2, 2)]


@pytest.mark.parametrize(("patch", "strides"), [(2, [1, 2, 4]), (8, [2, 4, 8, 16])])
def test_no_stride_is_below_one_pixel(patch: int, strides: list[int]) -> None:
    encoder = Est(output="side", reduction=4, stem_width=0).attach(vit(4, patch))
    assert [tap.stride for tap in encoder.taps] == strides


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("output", ["side", "sum"])
def test_shallow_vit_has_fewer_levels(depth: int, output: Any) -> None:
    encoder = Est(output=output, reduction=4, stem_width=0).attach(vit(depth)).eval()
    assert len(encoder.taps) == depth
    with torch.no_grad():
        assert len(encoder(torch.randn(1, 3, 32, 32)).maps) == depth


@pytest.mark.parametrize(
    ("depth", "block_stride", "count"),
    [(12, None, 12), (13, None, 9), (24, None, 12), (25, None, 11), (12, 3, 4), (12, 12, 4)],
)
def test_block_stride_selects_blocks(depth: int, block_stride: int | None, count: int) -> None:
    """Counted back from the last block; the four levels are always read."""
    encoder = Est(output="sum", block_stride=block_stride, reduction=4, stem_width=0).attach(
        vit(depth)
    )
    indices = encoder.reader.out_indices
    assert isinstance(indices, tuple)
    assert len(indices) == count
    assert indices[-1] == depth - 1
    assert list(indices) == sorted(set(indices))


@pytest.mark.parametrize(
    ("reduction", "min_width", "widths"),
    [(8, 1, [4, 6, 24, 12]), (2, 1, [16, 24, 96, 48]), (8, 20, [20, 20, 24, 20]), (8, 999, None)],
)
def test_reduction_and_min_width_set_the_stream_width(
    make_backbone: MakeBackbone, reduction: int, min_width: int, widths: list[int] | None
) -> None:
    """C / reduction, at least min_width, at most C."""
    backbone = make_backbone("resnet")
    channels = [tap.channels for tap in backbone.taps]
    assert channels == [32, 48, 192, 96]
    encoder = Est(output="side", reduction=reduction, min_width=min_width, stem_width=0).attach(
        backbone
    )
    assert [tap.channels for tap in encoder.taps] == (widths or channels)


@pytest.mark.parametrize("kernel_size", [1, 5])
def test_any_odd_kernel_size_is_supported(make_backbone: MakeBackbone, kernel_size: int) -> None:
    backbone = make_backbone("resnet")
    encoder = Est(kernel_size=kernel_size, stem_width=0).attach(backbone).eval()
    with torch.no_grad():
        maps = encoder(torch.randn(1, 4, 64, 64)).maps
    assert [m.shape[-1] for m in maps] == [16, 8, 4, 2]


@pytest.mark.parametrize(
    ("option", "value", "limit"), [("kernel_size", 4, "odd"), ("reduction", 33, 32)]
)
def test_options_that_do_not_fit_raise(
    make_backbone: MakeBackbone, option: str, value: int, limit: object
) -> None:
    method = Est(**{option: value})
    with raises("method-option-invalid", key=f"method.{option}", mentions=[value, limit]):
        method.attach(make_backbone("resnet"))


def test_principal_components_of_block_internals_raise(make_backbone: MakeBackbone) -> None:
    method = Est(use_block_internals=True, projection_init="pca")
    with raises("method-option-invalid", key="method.projection_init", mentions=["pca"]):
        method.attach(make_backbone("vit"))


# ---------------------------------------------------------------- options
def test_static_gate_has_one_value_per_channel() -> None:
    block = EstBlock(8, Est(gate="static"), gated=True)
    z, s = torch.randn(2, 1, 8, 3, 4)
    logits = torch.linspace(-3, 3, 8)
    with torch.no_grad():
        block.gate.bias.copy_(logits[:, None, None])  # type: ignore[union-attr, operator]
        actual = block(z, s)
    g = torch.sigmoid(logits)[:, None, None]
    torch.testing.assert_close(actual, g * z + (1 - g) * s)


def test_block_internals_are_projected_and_added(
    make_backbone: MakeBackbone,
) -> None:
    encoder = Est(use_block_internals=True, stem_width=0, min_width=8).attach(make_backbone("vit"))
    reader = encoder.reader
    assert reader.internals_at == reader.out_indices
    projected = []
    reader.blocks[0].register_forward_hook(lambda _m, inputs, _o: projected.append(inputs[0]))
    images = torch.randn(1, 4, 32, 32)
    model = encoder.backbone.model
    with torch.no_grad():
        encoder(images)
        x = model.norm_pre(model._pos_embed(model.patch_embed(images)))
        block = model.blocks[0]
        attention = block.attn(block.norm1(x))
        mlp = block.mlp(block.norm2(x + attention))
        expected = sum(
            project(part[:, 1:].transpose(1, 2).unflatten(2, (2, 2)))
            for project, part in (
                (reader.down[0], x + attention + mlp),
                (reader.from_inside["0"]["attention"], attention),
                (reader.from_inside["0"]["mlp"], mlp),
            )
        )
    torch.testing.assert_close(projected[0], expected, rtol=1e-4, atol=1e-5)


def test_calibration_fits_principal_components(make_backbone: MakeBackbone) -> None:
    """Components are uncorrelated, centred and sorted by variance, which averages one."""
    encoder = Est(projection_init="pca_fixed", stem_width=0, min_width=8).attach(
        make_backbone("vit")
    )
    images = torch.randn(8, 4, 64, 64)
    encoder.calibrate([{"images": images[:4]}, {"images": images[4:]}])
    with torch.no_grad():
        for feature, down in zip(encoder.backbone(images).maps, encoder.reader.down, strict=True):
            z = down(feature).movedim(1, -1).flatten(0, -2)
            covariance = torch.cov(z.T)
            variances = covariance.diagonal()
            torch.testing.assert_close(z.mean(0), torch.zeros(8), atol=1e-4, rtol=0)
            torch.testing.assert_close(covariance, variances.diag(), atol=1e-3, rtol=0)
            torch.testing.assert_close(variances.mean(), torch.tensor(1.0), atol=1e-3, rtol=0)
            assert (variances.diff() <= 1e-4).all()


def test_calibration_keeps_no_features(
    make_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Est(projection_init="pca", stem_width=0, min_width=8).attach(make_backbone("vit"))
    kept: list[weakref.ref[Tensor]] = []
    observe = EstStream.observe

    def watched(self: EstStream, index: int, feature: Tensor) -> None:
        observe(self, index, feature)
        kept.append(weakref.ref(feature.untyped_storage()))

    monkeypatch.setattr(EstStream, "observe", watched)
    encoder.calibrate({"images": torch.randn(1, 4, 64, 64)} for _ in range(5))
    assert len(kept) == 5 * len(encoder.reader.out_indices)
    assert not any(storage() for storage in kept)


def test_running_covariance_matches_numpy() -> None:
    """Also of features far from zero, in batches of different sizes."""
    generator = torch.Generator().manual_seed(0)
    feature = 1e4 + torch.randn(7, 5, 3, 4, generator=generator) * torch.arange(1, 6)[:, None, None]
    running = RunningCovariance()
    for batch in feature.split([1, 4, 2]):
        running.add(batch)
    vectors = feature.double().permute(0, 2, 3, 1).reshape(-1, 5).numpy()
    variances, axes = np.linalg.eigh(np.cov(vectors.T))
    scale = variances[-2:].mean() ** -0.5
    weight, bias = running.principal_components(2)
    for ours, axis in zip(weight[..., 0, 0].numpy(), axes.T[[-1, -2]], strict=True):
        np.testing.assert_allclose(np.sign(ours @ axis) * ours, scale * axis, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        bias, -(weight[..., 0, 0].double().numpy() @ vectors.mean(0)), rtol=1e-4
    )


@pytest.mark.parametrize("projection_init", ["pca", "pca_fixed"])
def test_training_without_calibration_raises(
    make_backbone: MakeBackbone, projection_init: Any
) -> None:
    method = Est(projection_init=projection_init, stem_width=0, min_width=8)
    encoder = method.attach(make_backbone("vit")).train()
    images = torch.randn(2, 4, 32, 32)
    with raises("calibration-missing", mentions=["encoder.calibrate"]):
        encoder(images)
    encoder.calibrate([{"images": images}])
    trained = {name for name in encoder.trainable_names() if ".down." in name}
    assert bool(trained) == (projection_init == "pca")

    twin = method.attach(make_backbone("vit")).train()
    twin.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        assert torch.equal(twin(images).maps[0], encoder(images).maps[0])


@pytest.mark.parametrize(
    ("option", "value"),
    [("adapters", ()), ("pool_rates", (0,)), ("gate", "open"), ("block_stride", 0), ("width", 8)],
)
def test_invalid_option_raises(option: str, value: Any) -> None:
    with raises("recipe-invalid", key=f"method.{option}"):
        Est(**{option: value})
