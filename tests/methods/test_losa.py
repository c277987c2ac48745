"""LoSA against its formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.methods.losa import GRID, Losa, LowRankMixer, SideMixers
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


@pytest.mark.parametrize("size", [(GRID, GRID), (7, 28), (3, 5)])
def test_mixer_matches_the_formula(size: tuple[int, int]) -> None:
    """LN, then low-rank channels, tokens and channels; token weights are resized bilinearly."""
    mixer = LowRankMixer(6, 2)
    generator = torch.Generator().manual_seed(1)
    for parameter in mixer.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)
    p = {name: value.detach() for name, value in mixer.named_parameters()}
    maps = torch.randn(2, 6, *size, generator=generator)

    def channels(u: Tensor, name: str) -> Tensor:
        inner = gelu(u @ p[f"{name}.0.weight"].T + p[f"{name}.0.bias"])
        return inner @ p[f"{name}.2.weight"].T + p[f"{name}.2.bias"]

    def token_weights(name: str) -> Tensor:  # (2, N)
        return F.interpolate(p[name][None], size, mode="bilinear")[0].flatten(1)

    with torch.no_grad():
        actual = mixer(maps)
    for image, got in zip(maps, actual, strict=True):
        u = image.flatten(1).T  # (N, 6)
        u = (u - u.mean(1, keepdim=True)) / (u.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        u = u * p["norm.weight"] + p["norm.bias"]
        u = u + channels(u, "channels_in")
        down = token_weights("token_down") * GRID**2 / len(u)
        inner = gelu(down @ u + p["token_bias"][:, None])
        u = u + token_weights("token_up").T @ inner
        expected = channels(u, "channels_out")
        torch.testing.assert_close(got.flatten(1).T, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["vit", "swin"])
def test_stream_matches_the_formula(make_backbone: MakeBackbone, family: str) -> None:
    """y_i = y_(i-1) + g_i(x_i + y_(i-1)), from zero at the start of a stage; decoder: x + y."""
    encoder = Losa(rank=2, stem_width=0).attach(make_backbone(family)).eval()
    side = encoder.reader
    assert isinstance(side, SideMixers)
    for mixer in side.mixers.values():
        nn.init.normal_(mixer.channels_out[2].weight)  # type: ignore[index, union-attr]
    images = torch.randn(1, 4, 64, 64)
    with torch.no_grad():
        actual = list(encoder(images).maps)
        features = encoder.backbone(images).maps
        expected, y = [], torch.zeros(0)
        for i, x in enumerate(features):
            if x.shape != y.shape:
                y = torch.zeros_like(x)
            y = y + side.mixers[str(i)](x + y)
            if i in side.levels:
                expected.append(x + y)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_rank_above_the_width_raises(make_backbone: MakeBackbone) -> None:
    with raises("method-option-invalid", key="method.rank", mentions=[17, 16]):
        Losa(rank=17).attach(make_backbone("swin"))
