"""Ladder side-tuning against its formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.layers import LayerScale, SwiGLUPacked
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.methods.core.encoder import Encoder
from geotune.methods.lst import Ladder, LadderAttention, LadderBlock, Lst, num_heads
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]


def ladder(encoder: Encoder) -> Ladder:
    assert isinstance(encoder.reader, Ladder)
    return encoder.reader


def randomise(module: nn.Module) -> None:
    """Set every parameter to random values."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def layer_norm(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias, over the last dimension."""
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    normed = (x - mean) / (variance + 1e-5).sqrt()
    return normed * p[f"{name}.weight"] + p[f"{name}.bias"]


def attention(x: Tensor, p: dict[str, Tensor], count: int) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of `count` heads, on tokens `(N, C)`."""
    q, k, v = (x @ p["attention.qkv.weight"].T).chunk(3, -1)
    out = []
    for qh, kh, vh in zip(q.chunk(count, -1), k.chunk(count, -1), v.chunk(count, -1), strict=True):
        scores = qh @ kh.T / math.sqrt(qh.shape[-1])
        out.append(scores.softmax(-1) @ vh)
    return torch.cat(out, -1) @ p["attention.out.weight"].T + p["attention.out.bias"]


def mlp(x: Tensor, p: dict[str, Tensor]) -> Tensor:
    inner = x @ p["mlp.0.weight"].T + p["mlp.0.bias"]
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    return inner @ p["mlp.2.weight"].T + p["mlp.2.bias"]


@pytest.mark.parametrize("width", [6, 32, 48])
def test_block_matches_the_formulas(width: int) -> None:
    """s = s + Attention(LN(s)); s = s + MLP(LN(s)), over the whole map."""
    block = LadderBlock(width, None)
    randomise(block)
    s = torch.randn(2, width, 3, 5, generator=torch.Generator().manual_seed(2))
    p = {name: parameter.detach() for name, parameter in block.named_parameters()}
    with torch.no_grad():
        actual = block(s)
    for image, got in zip(s, actual, strict=True):
        x = image.flatten(1).T
        x = x + attention(layer_norm(x, p, "norm1"), p, num_heads(width))
        x = x + mlp(layer_norm(x, p, "norm2"), p)
        torch.testing.assert_close(got.flatten(1).T, x, rtol=1e-4, atol=1e-4)


def test_attention_is_restricted_to_windows_and_ignores_padding() -> None:
    """A map of 5 x 7 in windows of 4: each equals attention over its own pixels."""
    windowed, whole = LadderAttention(32, 4), LadderAttention(32, None)
    randomise(windowed)
    whole.load_state_dict(windowed.state_dict())
    x = torch.randn(2, 5, 7, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        actual = windowed(x)
        for rows in (slice(0, 4), slice(4, 5)):
            for columns in (slice(0, 4), slice(4, 7)):
                part = whole(x[:, rows, columns])
                torch.testing.assert_close(actual[:, rows, columns], part, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("width", "expected"), [(1, 1), (5, 1), (16, 1), (17, 1), (32, 2), (48, 3), (50, 2), (96, 6)]
)
def test_number_of_heads_divides_the_width(width: int, expected: int) -> None:
    assert num_heads(width) == expected


@pytest.mark.parametrize("family", ["vit", "swin"])
def test_maps_match_the_formulas(make_backbone: MakeBackbone, family: str) -> None:
    """s_1 = Block(Linear(x_1)); s_i = Block(mu s_(i-1) + (1 - mu) Linear(x_i)) with
    mu = sigmoid(a / 0.1); y = x + Up(s)."""
    encoder = Lst(reduction=4, stem_width=0).attach(make_backbone(family)).eval()
    side = ladder(encoder)
    randomise(side.down)
    randomise(side.up)
    with torch.no_grad():
        for i, gate in enumerate(side.gates):
            gate.fill_(0.05 * (i - 1))
    images = torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(0))

    def linear(layer: nn.Module, x: Tensor) -> Tensor:
        p = dict(layer.named_parameters())
        return torch.einsum("oi,bihw->bohw", p["weight"][..., 0, 0], x) + p["bias"][:, None, None]

    with torch.no_grad():
        actual = encoder(images).maps
        features = encoder.backbone(images).maps
        expected, s = [], None
        for i, x in enumerate(features):
            projected = linear(side.down[i], x)
            if s is None:
                s = side.blocks[i](projected)
            else:
                mu = 1 / (1 + torch.exp(-side.gates[i - 1] / 0.1))
                s = side.blocks[i](mu * side.between[i - 1](s) + (1 - mu) * projected)
            if str(i) in side.up:
                expected.append(x + linear(side.up[str(i)], s))
    torch.testing.assert_close(list(actual), expected, rtol=1e-4, atol=1e-4)


def test_default_width_and_block_stride(
    make_backbone: MakeBackbone,
) -> None:
    backbone = make_backbone("convnext")
    side = ladder(Lst(block_stride=2, stem_width=0).attach(backbone))
    assert side.out_indices == (0, 2, 4, 6, 8)
    assert [layer.get_parameter("weight").shape[:2] for layer in side.down] == [
        (max(8, backbone.taps[i].channels // 8), backbone.taps[i].channels)
        for i in side.out_indices
    ]


def test_reduction_below_one_channel_raises(make_backbone: MakeBackbone) -> None:
    with raises("method-option-invalid", key="method.reduction", mentions=[17, 16]):
        Lst(reduction=17).attach(make_backbone("swin"))


# ---------------------------------------------------------------- pruned start
def top(scores: Tensor, count: int) -> list[int]:
    return sorted(sorted(range(len(scores)), key=lambda i: -float(scores[i]))[:count])


@pytest.mark.parametrize("family", ["vit", "galileo"])
def test_pruned_start_copies_the_most_important_channels(
    make_backbone: MakeBackbone, family: str
) -> None:
    """Importance: sum of absolute weights that read or write a channel; of the residual stream
    over all blocks, inside attention and MLP in each."""
    backbone = make_backbone(family)
    blocks: list[Any] = list(backbone.blocks)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def qkv(block: Any) -> list[Tensor]:
        fused = getattr(block.attn, "qkv", None)
        weights = fused.weight.chunk(3) if fused else [getattr(block.attn, n).weight for n in "qkv"]
        return list(weights)

    stream = torch.zeros(backbone.taps[0].channels)
    for b in blocks:
        stream += sum(w.detach().abs().sum(0) for w in (*qkv(b), b.mlp.fc1.weight))
        stream += b.attn.proj.weight.detach().abs().sum(1) + b.mlp.fc2.weight.detach().abs().sum(1)
    side = ladder(Lst(reduction=4, init="pruned", stem_width=0).attach(backbone))
    width = side.down[0].out_channels
    kept = top(stream, width)
    b, ours = blocks[1], side.blocks[1]
    q, k, v = qkv(b)
    inner = top(q.abs().sum(1) + k.abs().sum(1), width)
    values = top(v.abs().sum(1) + b.attn.proj.weight.abs().sum(0), width)
    hidden = top(b.mlp.fc1.weight.abs().sum(1) + b.mlp.fc2.weight.abs().sum(0), 4 * width)
    expected = torch.cat([w[rows][:, kept] for w, rows in ((q, inner), (k, inner), (v, values))])
    assert torch.equal(ours.attention.qkv.weight, expected)
    assert torch.equal(ours.attention.out.weight, b.attn.proj.weight[kept][:, values])
    assert torch.equal(ours.mlp[0].weight, b.mlp.fc1.weight[hidden][:, kept])
    assert torch.equal(ours.mlp[0].bias, b.mlp.fc1.bias[hidden])
    assert torch.equal(ours.mlp[2].weight, b.mlp.fc2.weight[kept][:, hidden])
    assert torch.equal(ours.norm2.weight, b.norm2.weight[kept])
    x = torch.randn(1, len(stream), 2, 3)
    with torch.no_grad():
        assert torch.equal(side.down[1](x), x[:, kept])


def test_pruned_start_contains_the_layer_scale(make_backbone: MakeBackbone) -> None:
    """What multiplies the outputs of attention and MLP is part of the weights that are copied."""
    backbone = make_backbone("vit")
    channels = backbone.taps[0].channels
    gamma = torch.linspace(0.1, 2, channels)
    blocks: list[Any] = list(backbone.blocks)
    for block in blocks:
        for name in ("ls1", "ls2"):
            scale = LayerScale(channels)
            scale.gamma.data.copy_(gamma)
            setattr(block, name, scale)
    side = ladder(Lst(reduction=4, init="pruned", stem_width=0).attach(backbone))
    kept = side.down[0].weight.flatten(1).argmax(1)
    width, b, ours = len(kept), blocks[0], side.blocks[0]
    scaled = b.attn.proj.weight * gamma[:, None]
    values = top(b.attn.qkv.weight.chunk(3)[2].abs().sum(1) + scaled.abs().sum(0), width)
    expected = b.attn.proj.weight[kept][:, values] * gamma[kept][:, None]
    torch.testing.assert_close(ours.attention.out.weight, expected)
    torch.testing.assert_close(ours.mlp[2].bias, b.mlp.fc2.bias[kept] * gamma[kept])


def test_pruned_start_of_a_gated_mlp_raises(make_backbone: MakeBackbone) -> None:
    backbone = make_backbone("vit")
    for block in backbone.blocks:
        width = block.mlp.fc1.in_features
        block.mlp = SwiGLUPacked(width, 4 * width)  # fc2 reads half of the outputs of fc1
    with raises("method-unsupported", mentions=["init pruned", "use random"]):
        Lst(init="pruned").attach(backbone)


def test_pruned_start_needs_as_many_channels(make_backbone: MakeBackbone) -> None:
    """Also of an MLP that is not four times as wide as the stream, and of a single date."""
    backbone = make_backbone("vit")
    blocks: list[Any] = list(backbone.blocks)
    for block in blocks:
        channels = block.mlp.fc1.in_features
        block.mlp.fc1 = nn.Linear(channels, 2 * channels)
        block.mlp.fc2 = nn.Linear(2 * channels, channels)
    with raises("method-option-invalid", key="method.reduction", mentions=["MLP", "pruned"]):
        Lst(reduction=1, init="pruned", stem_width=0).attach(backbone)
    dates = make_backbone("vit")
    dates.timesteps, dates.combine = 2, "concat"  # as of a model that takes several dates
    with raises("method-unsupported", key="backbone.combine", mentions=["mean"]):
        Lst(reduction=4, init="pruned", stem_width=0).attach(dates)
