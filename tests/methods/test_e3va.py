"""E3VA against its formulas."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.errors import GeotuneError
from geotune.methods.core.encoder import Encoder
from geotune.methods.e3va import E3va, Highway

MakeBackbone = Callable[..., Backbone]


def highway(encoder: Encoder) -> Highway:
    assert isinstance(encoder.reader, Highway)
    return encoder.reader


def awake(module: nn.Module) -> None:
    """Give every parameter a value, those that start at zero too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def attached(backbone: Backbone, rank: int = 4) -> Encoder:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in backbone.parameters():  # some start at zero
            parameter.data += 0.02 * torch.randn(parameter.shape)
    encoder = E3va(rank=rank, stem_width=0).attach(backbone).eval()
    awake(encoder.reader)
    return encoder


def images(side: int = 64) -> Tensor:
    return torch.randn(2, 4, side, side, generator=torch.Generator().manual_seed(3))


def adapter(module: nn.Module, u: Tensor) -> Tensor:
    """A(u) = Up(GELU(Down(u))) on maps `(B, C, h, w)`."""
    p = {name: value.detach() for name, value in module.named_parameters()}
    x = u.permute(0, 2, 3, 1) @ p["down.weight"][..., 0, 0].T + p["down.bias"]
    x = x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    return (x @ p["up.weight"][..., 0, 0].T + p["up.bias"]).permute(0, 3, 1, 2)


def normed(module: nn.Module, x: Tensor) -> Tensor:
    """Norm over channels."""
    p = {name: value.detach()[:, None, None] for name, value in module.named_parameters()}
    mean, variance = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * p["weight"] + p["bias"]


def caught(backbone: Backbone) -> list[tuple[Tensor, Tensor]]:
    """What attention and MLP of every block of a timm model give, when it runs."""
    found: list[tuple[Tensor, Tensor]] = []

    def catch(block: Any, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        if hasattr(block, "_attn"):
            attention = block._attn(block.norm1(x))
            found.append((attention, block.mlp(block.norm2(x + attention))))
        else:
            attention = block.ls1(block.attn(block.norm1(x)))
            found.append((attention, block.ls2(block.mlp(block.norm2(x + attention)))))

    for block in backbone.blocks:
        block.register_forward_pre_hook(catch)
    return found


def test_on_a_vit_the_maps_are_what_the_formulas_say(make_backbone: MakeBackbone) -> None:
    """e = e + A(attention) + A(mlp) beside every block; y = Norm(x + e)."""
    encoder = attached(make_backbone("vit"))
    side = highway(encoder)
    found = caught(encoder.backbone)
    with torch.no_grad():
        xs = encoder.backbone(images()).maps
        inside = [
            tuple(u[:, 1:].reshape(2, 4, 4, -1).permute(0, 3, 1, 2) for u in pair) for pair in found
        ]
        e, expected = torch.zeros_like(xs[0]), []
        for i, (x, (attention, mlp)) in enumerate(zip(xs, inside, strict=True)):
            e = e + adapter(side.attention[str(i)], attention) + adapter(side.mlp[str(i)], mlp)
            if str(i) in side.norms:
                expected.append(normed(side.norms[str(i)], x + e))
        maps = encoder(images()).maps
    assert e.std() > 0.1
    torch.testing.assert_close(list(maps), expected, rtol=1e-4, atol=1e-4)


def test_on_a_swin_the_highway_takes_the_backbone_s_own_way_down(
    make_backbone: MakeBackbone,
) -> None:
    """e = D(x + e) - D(x) between stages, with D the patch merging of the model."""
    encoder = attached(make_backbone("swin"))
    side, model = highway(encoder), encoder.backbone.model
    found = caught(encoder.backbone)
    with torch.no_grad():
        xs = encoder.backbone(images()).maps
        e, expected = torch.zeros_like(xs[0]), []
        for i, (x, pair) in enumerate(zip(xs, found, strict=True)):
            name, _, block = encoder.backbone.taps[i].name.partition(".blocks.")
            if i and block == "0":
                merging: Any = model.get_submodule(f"{name}.downsample")
                end = xs[i - 1].permute(0, 2, 3, 1)
                e = merging(end + e.permute(0, 2, 3, 1)) - merging(end)
                e = e.permute(0, 3, 1, 2)
            attention, mlp = (u.permute(0, 3, 1, 2) for u in pair)
            e = e + adapter(side.attention[str(i)], attention) + adapter(side.mlp[str(i)], mlp)
            if str(i) in side.norms:
                expected.append(normed(side.norms[str(i)], x + e))
        maps = encoder(images()).maps
    torch.testing.assert_close(list(maps), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["swin", "swinv2", "convnext"])
def test_it_starts_at_the_frozen_features_normalised(
    make_backbone: MakeBackbone, family: str
) -> None:
    encoder = E3va(rank=4, stem_width=0).attach(make_backbone(family)).eval()
    side = highway(encoder)
    with torch.no_grad():
        xs = encoder.backbone(images(), taps=side.levels).maps
        for x, y, norm in zip(xs, encoder(images()).maps, side.norms.values(), strict=True):
            assert torch.equal(y, norm(x))


def test_the_gradient_runs_through_layers_that_stay_frozen(make_backbone: MakeBackbone) -> None:
    encoder = attached(make_backbone("swin"))
    side = highway(encoder)
    before = copy.deepcopy(encoder.backbone.state_dict())
    encoder(images()).maps[-1].square().sum().backward()
    first = side.mlp["0"].get_parameter("down.weight").grad
    assert first is not None
    assert first.abs().max() > 0
    assert all(parameter.grad is None for parameter in encoder.backbone.parameters())
    assert not any("downsample" in name for name, _ in side.named_parameters())
    torch.optim.SGD(encoder.parameters(), 0.1).step()
    after = encoder.backbone.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_block_with_an_mlp_alone_has_one_adapter(make_backbone: MakeBackbone) -> None:
    side = highway(E3va(rank=4, stem_width=0).attach(make_backbone("convnext")))
    assert len(side.mlp) == 9
    assert len(side.attention) == 0


def test_dates_side_by_side_share_one_highway(make_backbone: MakeBackbone) -> None:
    encoder = attached(make_backbone("galileo", timesteps=2, combine="concat"))
    with torch.no_grad():
        maps = encoder(torch.randn(1, 4, 2, 12, 20)).maps
    assert [m.shape for m in maps] == [(1, 256, 3, 5)] * 4


def test_a_rank_wider_than_the_blocks_is_refused(make_backbone: MakeBackbone) -> None:
    with pytest.raises(GeotuneError, match=r"method\.rank 17: .*16 wide.*at most 16"):
        E3va(rank=17).attach(make_backbone("swin"))


def test_stages_without_a_layer_between_them_are_refused(
    make_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = make_backbone("swin")
    monkeypatch.setattr(backbone, "merging", lambda index: None)
    with pytest.raises(GeotuneError, match=r"e3va on .*small_swin.*before layers\.1\.blocks\.0"):
        E3va(rank=4).attach(backbone)
