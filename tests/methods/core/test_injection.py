"""Inserted modules against values computed from the formulas by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune import Adapter, AdaptFormer, Dtl, LoRand, Losa, Mona, Partial, Rein, VitAdapter
from geotune.backbones.base import Backbone
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.injection import ChannelAxis, ModuleWrapper, SequentialAdapter
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]


def images(seed: int = 0) -> Tensor:
    return torch.randn(2, 4, 32, 48, generator=torch.Generator().manual_seed(seed))


def attached(backbone: Backbone, method: Method) -> Encoder:
    """The encoder, with every inserted parameter set to random values."""
    encoder = method.attach(backbone).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return encoder


def through_vit(
    plain: Backbone,
    *,
    attention: Callable[[int, Tensor], Tensor] = lambda i, y: y,
    middle: Callable[[int, Tensor], Tensor] = lambda i, x: x,
    mlp: Callable[[int, Any, Tensor], Tensor] = lambda i, mlp, u: mlp(u),
    after: Callable[[int, Tensor], Tensor] = lambda i, x: x,
) -> Tensor:
    """Last map of a timm ViT written out, with a callback at each insertion point."""
    model: Any = plain.model
    x = model.norm_pre(model._pos_embed(model.patch_embed(images())))
    for index, block in enumerate(model.blocks):
        x = middle(index, x + attention(index, block.attn(block.norm1(x))))
        x = after(index, x + mlp(index, block.mlp, block.norm2(x)))
    tokens: Tensor = model.norm(x)[:, 1:]
    return tokens.transpose(1, 2).unflatten(2, (2, 3))


def part(encoder: Encoder, name: str) -> dict[str, Tensor]:
    """Parameters of the inserted module with this name."""
    module = encoder.backbone.model.get_submodule(name)
    return dict(module.named_parameters())


def linear(p: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def compare(encoder: Encoder, expected: Tensor, plain: Backbone) -> None:
    with torch.no_grad():
        actual = encoder(images()).maps[-1]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(actual, through_vit(plain), atol=1e-2)


@torch.no_grad()
def test_adapter_matches_its_formula(make_backbone: MakeBackbone) -> None:
    """y' = y + Up(GELU(Down(y))) after attention and after the MLP."""
    plain = make_backbone("vit").eval()
    encoder = attached(copy.deepcopy(plain), Adapter(bottleneck_dim=4, stem_width=0))

    def bottleneck(name: str, y: Tensor) -> Tensor:
        p = part(encoder, name)
        return y + linear(p, "up", F.gelu(linear(p, "down", y)))

    expected = through_vit(
        plain,
        attention=lambda i, y: bottleneck(f"blocks.{i}.attn.part", y),
        mlp=lambda i, mlp, u: bottleneck(f"blocks.{i}.mlp.part", mlp(u)),
    )
    compare(encoder, expected, plain)


@torch.no_grad()
def test_adaptformer_matches_its_formula(make_backbone: MakeBackbone) -> None:
    """MLP(u) + s Up(ReLU(Down(u))), s = 0.1."""
    plain = make_backbone("vit").eval()
    encoder = attached(copy.deepcopy(plain), AdaptFormer(bottleneck_dim=4, stem_width=0))

    def beside(i: int, mlp: nn.Module, u: Tensor) -> Tensor:
        p = part(encoder, f"blocks.{i}.mlp.part")
        added: Tensor = mlp(u) + 0.1 * linear(p, "up", linear(p, "down", u).clamp(min=0))
        return added

    compare(encoder, through_vit(plain, mlp=beside), plain)


@torch.no_grad()
def test_lorand_matches_its_formula(make_backbone: MakeBackbone) -> None:
    """y' = y + U GELU(D y); D and U are sums of four products of thin factors and a kernel."""
    plain = make_backbone("vit").eval()
    encoder = attached(
        copy.deepcopy(plain), LoRand(bottleneck_dim=6, rank=2, branches=4, stem_width=0)
    )

    def adapter(name: str, y: Tensor) -> Tensor:
        p = part(encoder, name)
        down, up = torch.zeros(6, 64), torch.zeros(64, 6)
        for b in range(4):
            down += p["down_out"][b] @ p["kernel"][b] @ p["down_in"][b]
            up += p["up_out"][b] @ p["kernel"][b] @ p["up_in"][b]
        return y + F.gelu(y @ down.T + p["down_bias"]) @ up.T + p["up_bias"]

    expected = through_vit(
        plain,
        attention=lambda i, y: adapter(f"blocks.{i}.attn.part", y),
        mlp=lambda i, mlp, u: adapter(f"blocks.{i}.mlp.part", mlp(u)),
    )
    compare(encoder, expected, plain)


def depthwise(p: dict[str, Tensor], name: str, maps: Tensor) -> Tensor:
    """A depthwise convolution, pixel by pixel; `maps` is `(B, h, w, C)`."""
    weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
    reach = weight.shape[-1] // 2
    out = bias.expand(maps.shape).clone()
    for row in range(maps.shape[1]):
        for column in range(maps.shape[2]):
            for down in range(-reach, reach + 1):
                for right in range(-reach, reach + 1):
                    y, x = row + down, column + right
                    if 0 <= y < maps.shape[1] and 0 <= x < maps.shape[2]:
                        tap = weight[:, 0, down + reach, right + reach]
                        out[:, row, column] += tap * maps[:, y, x]
    return out


@torch.no_grad()
def test_mona_matches_its_formula(make_backbone: MakeBackbone) -> None:
    """The class token skips the convolutions; on the stream after attention and after the MLP."""
    plain = make_backbone("vit").eval()
    encoder = attached(copy.deepcopy(plain), Mona(bottleneck_dim=4, stem_width=0))

    def mona(name: str, x: Tensor) -> Tensor:
        p = part(encoder, name)
        normed = linear_norm(x) * p["norm.weight"] + p["norm.bias"]
        v = linear(p, "down", p["norm_scale"] * normed + p["scale"] * x)
        maps = v[:, 1:].reshape(2, 2, 3, 4)
        maps = maps + sum(depthwise(p, f"convolutions.{k}", maps) for k in range(3)) / 3
        maps = maps + maps @ p["pointwise.weight"][..., 0, 0].T + p["pointwise.bias"]
        w = torch.cat([v[:, :1], maps.reshape(2, 6, 4)], dim=1)
        return x + linear(p, "up", F.gelu(w))

    def linear_norm(x: Tensor) -> Tensor:
        mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return (x - mean) / (var + 1e-5).sqrt()

    expected = through_vit(
        plain,
        middle=lambda i, x: mona(f"blocks.{i}.inner.inner.norm2.part", x),
        after=lambda i, x: mona(f"blocks.{i}.part", x),
    )
    compare(encoder, expected, plain)


def test_mona_initial_scales(make_backbone: MakeBackbone) -> None:
    encoder = Mona(stem_width=0).attach(make_backbone("vit"))
    for name, parameter in encoder.named_parameters():
        if name.endswith(("norm_scale", ".scale")):
            start = 1e-6 if name.endswith("norm_scale") else 1.0
            assert torch.equal(parameter, torch.full_like(parameter, start)), name


def test_wrapper_forwards_attributes_to_the_wrapped_module() -> None:
    inner = nn.Linear(3, 2)
    wrapped = SequentialAdapter(inner, nn.Identity())
    assert wrapped.in_features == 3
    assert wrapped.weight is inner.weight
    with pytest.raises(AttributeError, match="missing"):
        _ = wrapped.missing
    twin = copy.deepcopy(wrapped)
    assert isinstance(twin, ModuleWrapper)
    assert twin.inner is not inner
    assert torch.equal(twin(torch.ones(1, 3)), wrapped(torch.ones(1, 3)))


def test_partial_trains_the_last_blocks(make_backbone: MakeBackbone) -> None:
    encoder = Partial(blocks=2, stem_width=0).attach(make_backbone("vit"))
    assert {name.split(".")[3] for name in encoder.trainable_names()} == {"4", "5"}


@pytest.mark.parametrize(
    ("family", "method", "key", "mentions"),
    [
        ("vit", Partial(blocks=7), "blocks", [7, "timm/test_vit", "6 blocks"]),
        ("vit", Adapter(bottleneck_dim=65), "bottleneck_dim", [65, "timm/test_vit", 64]),
        ("swin", Mona(bottleneck_dim=17), "bottleneck_dim", [17, "narrowest", 16]),
        ("vit", LoRand(bottleneck_dim=4, rank=5), "rank", [5, "method.bottleneck_dim", 4]),
    ],
)
def test_options_that_do_not_fit_raise(
    make_backbone: MakeBackbone, family: str, method: Method, key: str, mentions: list[object]
) -> None:
    backbone = make_backbone(family)
    with raises("method-option-invalid", key=f"method.{key}", mentions=mentions):
        method.attach(backbone)
    assert all(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize(
    ("option", "value"), [("bottleneck_dim", 0), ("bottleneck_dim", -3), ("dropout", 1.0)]
)
def test_invalid_option_raises(option: str, value: float) -> None:
    with raises("recipe-invalid", key=f"method.{option}", mentions=[value]):
        Mona(**{option: value})


@pytest.mark.parametrize("family", ["resnet", "convnext"])
@pytest.mark.parametrize(
    "method",
    [Adapter(bottleneck_dim=8), LoRand(bottleneck_dim=8, rank=2)],
    ids=lambda method: method.kind,
)
def test_maps_as_wide_as_they_have_channels(
    make_backbone: MakeBackbone, family: str, method: Method
) -> None:
    """`(B, C, h, C)` and `(B, C, w, C)` do not tell their layout; the layers know it.

    These layers change each position by itself, so that a part of a map gives a part of the result.
    """
    encoder = attached(make_backbone(family), method)
    layers: list[Any] = [
        layer
        for layer in encoder.modules()
        if isinstance(getattr(layer, "axis", None), ChannelAxis)
    ]
    assert layers and all(layer.axis.last is (family == "convnext") for layer in layers)
    for layer in layers:
        c = layer.axis.channels
        shape = (1, c, c + 4, c) if layer.axis.last else (1, c, 5, c + 4)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            whole = layer(x)
            if layer.axis.last:
                part, expected = layer(x[:, :, :c]), whole[:, :, :c]
            else:
                part, expected = layer(x[..., :c]), whole[..., :c]
        torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-5)


def test_a_doubtful_map_does_not_decide() -> None:
    axis = ChannelAxis(3)
    axis.apply(torch.clone, torch.zeros(1, 5, 3))
    axis.apply(torch.clone, torch.zeros(1, 3, 2, 3))
    assert axis.last is None and axis.doubtful
    axis.apply(torch.clone, torch.zeros(1, 3, 2, 4))
    assert axis.last is False and not axis.doubtful
    x = torch.arange(18.0).reshape(1, 3, 2, 3)
    layer = nn.Linear(3, 3)
    expected = layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(axis.apply(layer, x), expected)


def test_attaching_tries_a_second_size_if_the_first_leaves_doubt(
    make_backbone: MakeBackbone,
) -> None:
    """16 channels at stride 4 are maps of 16 x 16 in the first trial, at 64 pixels."""
    backbone = make_backbone("swin")
    assert backbone.taps[0].channels == 2 * backbone.size_divisor / backbone.taps[0].stride
    encoder = attached(backbone, Rein(rank=4))
    axes = [m.axis for m in encoder.modules() if isinstance(getattr(m, "axis", None), ChannelAxis)]
    assert axes and all(axis.last for axis in axes)


@pytest.mark.parametrize("method", [Mona(bottleneck_dim=8), VitAdapter()], ids=lambda m: m.kind)
def test_a_failed_pass_leaves_nothing_behind(make_backbone: MakeBackbone, method: Method) -> None:
    """Such as one that ran out of memory: a retry needs what the graph of the failed one held."""
    backbone = make_backbone("vit")
    last: Any = list(backbone.blocks)[-1]
    encoder = attached(backbone, method)

    def fail(*_: Any) -> None:
        raise MemoryError

    handle = last.mlp.register_forward_pre_hook(fail)
    with pytest.raises(MemoryError):
        encoder(images())
    for module in encoder.modules():
        assert getattr(module, "change", None) is None or callable(module.change)
        assert getattr(module, "pass_state", None) is None
    handle.remove()
    encoder(images())


def test_blocks_of_different_widths_in_a_stage_raise(make_backbone: MakeBackbone) -> None:
    for method in (Losa(stem_width=0, rank=4), Dtl(stem_width=0, rank=4)):
        backbone = make_backbone("vit")
        backbone.taps = (replace(backbone.taps[0], channels=32), *backbone.taps[1:])
        with raises("method-unsupported", key="method.kind", mentions=["32 and", "channels"]):
            method.attach(backbone)
