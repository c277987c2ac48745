"""E3VA against its formulas."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geotune.adapter_io import adapter_state
from geotune.backbones.base import Backbone
from geotune.config.decoder_options import UnetOptions
from geotune.decoders.unet import Unet
from geotune.methods.core.encoder import Encoder
from geotune.methods.e3va import E3va, Highway
from geotune.model import Model
from geotune.types import Normalization
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]


def highway(encoder: Encoder) -> Highway:
    assert isinstance(encoder.reader, Highway)
    return encoder.reader


def randomise(module: nn.Module) -> None:
    """Set every parameter to random values."""
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
    randomise(encoder.reader)
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


def capture_outputs(backbone: Backbone) -> list[tuple[Tensor, Tensor]]:
    """Outputs of attention and MLP of every block of a timm model; filled when it runs."""
    outputs: list[tuple[Tensor, Tensor]] = []

    def capture(block: Any, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        if hasattr(block, "_attn"):
            attention = block._attn(block.norm1(x))
            outputs.append((attention, block.mlp(block.norm2(x + attention))))
        else:
            attention = block.ls1(block.attn(block.norm1(x)))
            outputs.append((attention, block.ls2(block.mlp(block.norm2(x + attention)))))

    for block in backbone.blocks:
        block.register_forward_pre_hook(capture)
    return outputs


def test_maps_of_a_vit_match_the_formulas(make_backbone: MakeBackbone) -> None:
    """e = e + A(attention) + A(mlp) beside every block; y = Norm(x + e)."""
    encoder = attached(make_backbone("vit"))
    side = highway(encoder)
    outputs = capture_outputs(encoder.backbone)
    with torch.no_grad():
        xs = encoder.backbone(images()).maps
        changes = [
            tuple(u[:, 1:].reshape(2, 4, 4, -1).permute(0, 3, 1, 2) for u in pair)
            for pair in outputs
        ]
        e, expected = torch.zeros_like(xs[0]), []
        for i, (x, (attention, mlp)) in enumerate(zip(xs, changes, strict=True)):
            e = e + adapter(side.attention[str(i)], attention) + adapter(side.mlp[str(i)], mlp)
            if str(i) in side.norms:
                expected.append(normed(side.norms[str(i)], x + e))
        maps = encoder(images()).maps
    assert e.std() > 0.1
    torch.testing.assert_close(list(maps), expected, rtol=1e-4, atol=1e-4)


def test_highway_of_a_swin_uses_the_backbone_s_downsampling(
    make_backbone: MakeBackbone,
) -> None:
    """e = D(x + e) - D(x) between stages, with D the patch merging of the model."""
    encoder = attached(make_backbone("swin"))
    side, model = highway(encoder), encoder.backbone.model
    outputs = capture_outputs(encoder.backbone)
    with torch.no_grad():
        xs = encoder.backbone(images()).maps
        e, expected = torch.zeros_like(xs[0]), []
        for i, (x, pair) in enumerate(zip(xs, outputs, strict=True)):
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


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_small_highways_are_downsampled_in_float32(
    make_backbone: MakeBackbone, precision: Any
) -> None:
    """Under autocast the difference of two maps in bfloat16 would be noise."""
    encoder = E3va(rank=4, stem_width=0, frozen_precision=precision).attach(make_backbone("swin"))
    backbone, reader = encoder.backbone, highway(encoder)
    index = next(i for i in range(len(backbone.taps)) if backbone.downsample_before(i) is not None)
    generator = torch.Generator().manual_seed(0)
    frozen = torch.randn(2, backbone.taps[index - 1].channels, 8, 8, generator=generator)
    small = 1e-3 * torch.randn(frozen.shape, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        found = reader.downsample_highway(index, frozen.bfloat16(), small)
    layer: Any = copy.deepcopy(backbone.downsample_before(index))
    if precision == "fp32":
        layer = layer.double()

        def exact(maps: Tensor) -> Tensor:
            out: Tensor = layer(maps.double().permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            return out

        expected = exact(frozen.bfloat16().double() + small) - exact(frozen.bfloat16())
        error = (found.double() - expected).norm() / expected.norm()
        assert error < 1e-3
    assert found.dtype == torch.float32 and torch.isfinite(found).all()


@pytest.mark.parametrize("family", ["swin", "swinv2", "convnext"])
def test_initial_maps_are_the_normalised_frozen_features(
    make_backbone: MakeBackbone, family: str
) -> None:
    encoder = E3va(rank=4, stem_width=0).attach(make_backbone(family)).eval()
    side = highway(encoder)
    with torch.no_grad():
        xs = encoder.backbone(images(), taps=side.levels).maps
        for x, y, norm in zip(xs, encoder(images()).maps, side.norms.values(), strict=True):
            assert torch.equal(y, norm(x))


def test_gradients_cross_downsampling_layers_that_stay_frozen(make_backbone: MakeBackbone) -> None:
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


def test_blocks_without_attention_have_one_adapter(make_backbone: MakeBackbone) -> None:
    side = highway(E3va(rank=4, stem_width=0).attach(make_backbone("convnext")))
    assert len(side.mlp) == 9
    assert len(side.attention) == 0


def test_concatenated_dates_share_one_highway(make_backbone: MakeBackbone) -> None:
    encoder = attached(make_backbone("galileo", timesteps=2, combine="concat"))
    with torch.no_grad():
        maps = encoder(torch.randn(1, 4, 2, 12, 20)).maps
    assert [m.shape for m in maps] == [(1, 256, 3, 5)] * 4


def test_rank_above_block_width_raises(make_backbone: MakeBackbone) -> None:
    with raises("method-option-invalid", key="method.rank", mentions=[17, 16]):
        E3va(rank=17).attach(make_backbone("swin"))


def test_stages_without_downsampling_layers_raise(
    make_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = make_backbone("swin")
    monkeypatch.setattr(backbone, "downsample_before", lambda index: None)
    mentions = ["small_swin", "layers.1.blocks.0"]
    with raises("method-unsupported", mentions=mentions):
        E3va(rank=4).attach(backbone)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_tensors_of_shared_layers_are_not_saved(
    make_backbone: MakeBackbone, precision: Any
) -> None:
    """Nor while the backbone is set aside, as in a training from cached features."""
    backbone = make_backbone("convnext")
    encoder = E3va(stem_width=0, frozen_precision=precision).attach(backbone)
    plain = Normalization(backbone.bands, (0.0,) * 4, (1.0,) * 4)
    model = Model(plain, encoder, Unet(encoder.taps, 2, UnetOptions(channels=[8])))
    names = adapter_state(model).keys()
    with encoder.without_backbone():
        assert any(name.startswith("encoder.borrowed.") for name in model.state_dict())
        assert adapter_state(model).keys() == names
