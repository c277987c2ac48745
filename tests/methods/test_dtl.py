"""DTL against its formulas; which blocks its gradients cross."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.reader import level_indices
from geotune.methods.dtl import CompactSideNetwork, Dtl
from geotune.methods.selective import Frozen
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]


def randomise(module: nn.Module, scale: float = 0.3) -> None:
    """Set every trainable parameter to random values."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


def network(encoder: Encoder) -> CompactSideNetwork:
    (side,) = (m for m in encoder.modules() if isinstance(m, CompactSideNetwork))
    return side


def images() -> Tensor:
    return torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(3))


def accumulate(side: CompactSideNetwork, i: int, x: Tensor, h: Tensor | None) -> Tensor:
    """h + x A B on maps, after the transition between stages."""
    low: Any = side.low_rank[i]
    update = torch.einsum("oc,bchw->bohw", low.b.weight[..., 0, 0] @ low.a.weight[..., 0, 0], x)
    return update if h is None else side.between[i - 1](h) + update


def feedback(side: CompactSideNetwork, stage: int, h: Tensor) -> Tensor:
    """DWConv(swish(h)), swish(h) = h sigmoid(100 h)."""
    weight = side.feedbacks[stage].get_parameter("weight")
    return F.conv2d(h * torch.sigmoid(100 * h), weight, padding=1, groups=h.shape[1])


def on_patches(tokens: Tensor) -> Tensor:
    """A ViT's tokens of 64 x 64 pixels, without the class token."""
    return tokens[:, 1:].reshape(2, 4, 4, -1).permute(0, 3, 1, 2)


# ---------------------------------------------------------------- beside the backbone
@pytest.mark.parametrize("family", ["vit", "swin"])
def test_without_feedback_maps_match_the_formulas(make_backbone: MakeBackbone, family: str) -> None:
    """h = h + x A B before every block; y = x + DWConv(swish(h)) at the levels."""
    encoder = Dtl(stem_width=0).attach(make_backbone(family)).eval()
    randomise(encoder)
    side, backbone = network(encoder), encoder.backbone
    to_map = on_patches if family == "vit" else lambda x: x.permute(0, 3, 1, 2)
    inputs: list[Tensor] = []
    for block in backbone.blocks:
        block.register_forward_pre_hook(lambda _, given: inputs.append(to_map(given[0])))
    levels = level_indices(backbone)
    with torch.no_grad():
        outputs = backbone(images()).maps
        h, expected = None, []
        for i, (x, y) in enumerate(zip(inputs, outputs, strict=True)):
            h = accumulate(side, i, x, h)
            if i in levels:
                stage = 0 if family == "vit" else levels.index(i)
                expected.append(y + feedback(side, stage, h))
        actual = encoder(images()).maps
    assert not torch.allclose(actual[0], outputs[levels[0]], atol=1e-2)
    torch.testing.assert_close(list(actual), expected, rtol=1e-4, atol=1e-4)


def test_feedback_from_the_last_block_is_the_default(make_backbone: MakeBackbone) -> None:
    encoder = Dtl(stem_width=0, feedback_from=6).attach(make_backbone("vit"))
    assert encoder.backbone_frozen
    assert (
        encoder.trainable_names()
        == Dtl(stem_width=0).attach(make_backbone("vit")).trainable_names()
    )


# ---------------------------------------------------------------- with feedback
def test_with_feedback_maps_match_the_formulas(make_backbone: MakeBackbone) -> None:
    """From block 4 of 6 on x = block(x) + DWConv(swish(h)), for all spatial tokens."""
    encoder = Dtl(stem_width=0, feedback_from=4).attach(make_backbone("vit")).eval()
    randomise(encoder)
    side = network(encoder)
    plain: Any = make_backbone("vit").eval()
    start: list[Tensor] = []
    plain.blocks[0].register_forward_pre_hook(lambda _, given: start.append(given[0]))
    with torch.no_grad():
        plain(images())
        (x,) = start
        h, expected = None, []
        for i, block in enumerate(plain.blocks):
            h = accumulate(side, i, on_patches(x), h)
            x = block(x)
            back = feedback(side, 0, h)
            if i + 1 >= 4:
                x = torch.cat([x[:, :1], x[:, 1:] + back.flatten(2).transpose(1, 2)], 1)
            out = plain.model.norm(x) if i == 5 else x
            if i in level_indices(plain):
                expected.append(on_patches(out) + (back if i + 1 < 4 else 0))
        actual = encoder(images()).maps
    torch.testing.assert_close(list(actual), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["swin", "convnext", "resnet", "galileo"])
def test_feedback_changes_the_taps_from_feedback_from_on(
    make_backbone: MakeBackbone, family: str
) -> None:
    encoder = Dtl(stem_width=0, feedback_from=3).attach(make_backbone(family)).eval()
    randomise(encoder)
    with torch.no_grad():
        changed = encoder.backbone(images()).maps
        frozen = make_backbone(family).eval()(images()).maps
    for index, (ours, theirs) in enumerate(zip(changed, frozen, strict=True)):
        assert torch.equal(ours, theirs) == (index + 1 < 3)


def test_no_gradient_crosses_the_blocks_before_the_feedback(make_backbone: MakeBackbone) -> None:
    encoder = Dtl(stem_width=0, feedback_from=4).attach(make_backbone("vit"))
    randomise(encoder)
    crossed: dict[int, bool] = {}
    for index, block in enumerate(encoder.backbone.blocks):
        block.get_submodule("mlp").register_forward_hook(
            lambda _, inputs, output, index=index: crossed.update({index: output.requires_grad})
        )
    maps = encoder(images()).maps
    assert crossed == {0: False, 1: False, 2: False, 3: False, 4: True, 5: True}
    total = torch.stack([m.square().sum() for m in maps]).sum()
    parameters = list(network(encoder).parameters())
    assert all(g.any() for g in torch.autograd.grad(total, parameters))


def test_dates_and_band_groups_are_combined_in_the_maps(
    make_backbone: MakeBackbone,
) -> None:
    for options in ({}, {"feedback_from": 3}):
        method = Dtl(stem_width=0, **options)
        for combine, width in (("mean", 128), ("concat", 256)):
            backbone = make_backbone("galileo", timesteps=2, combine=combine)
            encoder = method.attach(backbone).eval()
            randomise(encoder)
            with torch.no_grad():
                maps = encoder(torch.randn(1, 4, 2, 12, 20)).maps
            assert [m.shape for m in maps] == [(1, width, 3, 5)] * 4


@pytest.mark.parametrize("feedback_from", [None, 2])
def test_passes_and_copies_are_independent(
    make_backbone: MakeBackbone, feedback_from: int | None
) -> None:
    encoder = Dtl(stem_width=0, feedback_from=feedback_from).attach(make_backbone("vit"))
    randomise(encoder)
    with torch.no_grad():
        expected = encoder(images()).maps
    encoder(torch.randn(1, 4, 32, 48))  # of another size, with a graph
    twin = copy.deepcopy(encoder)
    randomise(encoder, scale=0.1)
    with torch.no_grad():
        assert not torch.equal(encoder(images()).maps[0], expected[0])
        for ours, theirs in zip(twin(images()).maps, expected, strict=True):
            assert torch.equal(ours, theirs)


def test_a_failed_pass_leaves_no_state(make_backbone: MakeBackbone) -> None:
    encoder = Dtl(stem_width=0, feedback_from=5).attach(make_backbone("vit"))
    randomise(encoder)
    with torch.no_grad():
        expected = encoder(images()).maps
        hook = encoder.backbone.blocks[3].register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            encoder(torch.randn(1, 4, 32, 48))
        hook.remove()
        for ours, theirs in zip(encoder(images()).maps, expected, strict=True):
            assert torch.equal(ours, theirs)


# ---------------------------------------------------------------- options
def test_feedback_convolution_starts_as_the_identity(make_backbone: MakeBackbone) -> None:
    encoder = Dtl(stem_width=0, kernel_size=5).attach(make_backbone("vit")).eval()
    side = network(encoder)
    h = torch.randn(2, 64, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(side.feedback(0, h), h * torch.sigmoid(100 * h))
        frozen = Frozen(stem_width=0).attach(make_backbone("vit")).eval()
        assert torch.equal(encoder(images()).maps[-1], frozen(images()).maps[-1])


@pytest.mark.parametrize(
    ("option", "value", "limit"),
    [("kernel_size", 4, "odd"), ("rank", 65, 64), ("feedback_from", 7, 6)],
)
def test_options_that_do_not_fit_raise(
    make_backbone: MakeBackbone, option: str, value: int, limit: object
) -> None:
    with raises("method-option-invalid", key=f"method.{option}", mentions=[value, limit]):
        Dtl(**{option: value}).attach(make_backbone("vit"))
