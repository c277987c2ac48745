"""SHERL against its formula; what gradients cross."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from geotune.backbones.base import Backbone
from geotune.methods.sherl import RedundancyMerging, Sherl
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]


def norm(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    normed = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()
    return normed * p[f"{name}.weight"] + p[f"{name}.bias"]


def test_merging_matches_the_formula() -> None:
    """a_i = l1(relu(w . (z_i * z_M) + b) / sum_j relu(cos(z_i, z_j))); s = z_M + sum a_i z_i;
    x' = LN(W relu(s)) + tanh(g / 0.1) x_M, position by position."""
    merging = RedundancyMerging(8, 6, early=3)
    generator = torch.Generator().manual_seed(0)
    for parameter in merging.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)
    merging.gate.data.fill_(0.03)
    p = {name: value.detach() for name, value in merging.named_parameters()}
    features = [torch.randn(1, 8, 2, 3, generator=generator) for _ in range(3)]
    with torch.no_grad():
        for index, feature in enumerate(features):
            merging.collect(index, feature)
        actual = merging(features[-1])
    some = False
    for i in range(2):
        for j in range(3):
            z = []
            for k, feature in enumerate(features):
                low = p[f"down.{k}.0.weight"][..., 0, 0] @ feature[0, :, i, j]
                z.append(norm(low + p[f"down.{k}.0.bias"], p, f"down.{k}.1"))
            raw = []
            for one in z[:2]:
                redundancy = sum(
                    max(0.0, float(one @ other / one.norm() / other.norm())) for other in z[:2]
                )
                guide = p["guide.weight"][0, :, 0, 0] @ (one * z[2]) + p["guide.bias"][0]
                raw.append(max(0.0, float(guide)) / redundancy)
            total = max(sum(raw), 1e-12)
            some |= 0 < raw[0] < total
            s = z[2] + sum(a / total * one for a, one in zip(raw, z[:2], strict=True))
            wide = p["up.0.weight"][..., 0, 0] @ s.clamp(min=0) + p["up.0.bias"]
            expected = norm(wide, p, "up.1") + math.tanh(0.3) * features[2][0, :, i, j]
            torch.testing.assert_close(actual[0, :, i, j], expected, rtol=1e-4, atol=1e-4)
    assert some, "no position weights both features"


def test_gradients_cross_the_late_blocks_only(make_backbone: MakeBackbone) -> None:
    encoder = Sherl(late_blocks=2, stem_width=0).attach(make_backbone("vit")).train()
    crossed = []
    for block in encoder.backbone.blocks:
        block.register_forward_hook(lambda _m, _i, out: crossed.append(out.requires_grad))
    maps = encoder(torch.randn(1, 4, 64, 64)).maps
    assert crossed == [False, False, False, False, True, True]
    assert [m.requires_grad for m in maps] == [False, False, False, True]


@pytest.mark.parametrize(("late_blocks", "guided"), [(3, True), (4, False), (5, False)])
def test_a_single_weight_is_constant(
    make_backbone: MakeBackbone, late_blocks: int, guided: bool
) -> None:
    encoder = Sherl(late_blocks=late_blocks, stem_width=0).attach(make_backbone("vit"))
    assert any("guide" in name for name in encoder.trainable_names()) == guided


def test_class_token_enters_the_late_blocks_unchanged(make_backbone: MakeBackbone) -> None:
    encoder = Sherl(stem_width=0).attach(make_backbone("vit")).eval()
    seen = {}
    late = encoder.backbone.blocks[5]
    late.register_forward_pre_hook(lambda _m, inputs: seen.update(before=inputs[0]))
    late.inner.register_forward_pre_hook(lambda _m, inputs: seen.update(after=inputs[0]))
    with torch.no_grad():
        encoder(torch.randn(1, 4, 32, 32))
    assert torch.equal(seen["after"][:, 0], seen["before"][:, 0])
    assert not torch.isclose(seen["after"][:, 1:], seen["before"][:, 1:]).all(-1).any()


def test_too_many_late_blocks_raise(make_backbone: MakeBackbone) -> None:
    with raises("method-option-invalid", key="method.late_blocks", mentions=[6, "at most 5"]):
        Sherl(late_blocks=6).attach(make_backbone("vit"))


@pytest.mark.parametrize("late_blocks", [0, -1])
def test_no_late_blocks_raise(late_blocks: int) -> None:
    with raises("recipe-invalid", key="method.late_blocks"):
        Sherl(late_blocks=late_blocks)
