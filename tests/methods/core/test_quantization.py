"""Quantized frozen weights: values, gradients, memory; everything else is unchanged."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import geotune
from geotune.backbones.base import Backbone
from geotune.backbones.spec import BackboneSpec
from geotune.memory.tracker import MemoryTracker
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.quantization import quantize_frozen
from geotune.methods.core.reader import SelectedFeatures
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]
PRECISIONS = ("bf16", "int8")


def layers() -> list[tuple[nn.Module, tuple[int, ...]]]:
    return [
        (nn.Linear(6, 4), (3, 5, 6)),
        (nn.Linear(6, 4, bias=False), (3, 6)),
        (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 5, 7)),
        (
            nn.Conv2d(4, 8, 3, stride=2, dilation=2, padding=(2, 1), groups=2, bias=False),
            (2, 4, 9, 8),
        ),
    ]


def quantized(layer: nn.Module, precision: Any) -> nn.Module:
    """A quantized copy of the layer."""
    model = nn.Sequential(copy.deepcopy(layer)).requires_grad_(False)
    quantize_frozen(Toy(model), precision)
    return model[0]


class Toy(Backbone):
    def __init__(self, model: nn.Module) -> None:
        request = BackboneSpec(name="test/toy", bands=("a",))
        super().__init__(model, request, size_divisor=1, licence="none", source=None)

    def run(self, images: Tensor, emit: Any, out_indices: set[int], **_: Tensor | None) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("layer", "shape"), layers(), ids=["linear", "no-bias", "conv", "groups"])
def test_quantized_layer_equals_a_layer_with_rounded_weights(
    layer: nn.Module, shape: tuple[int, ...], precision: Any, autocast: bool
) -> None:
    """s q with q = round(W / s), s = max |row| / 127; the input gradients are equal, too."""
    weight = layer.get_parameter("weight").detach()
    if precision == "int8":
        rows = weight.flatten(1)
        scale = rows.abs().amax(1) / 127
        expected = ((rows / scale[:, None]).round() * scale[:, None]).view(weight.shape)
    else:
        expected = weight.bfloat16().float()
    plain = copy.deepcopy(layer).requires_grad_(False)
    with torch.no_grad():
        plain.get_parameter("weight").copy_(expected)
    ours = quantized(layer, precision)
    torch.testing.assert_close(ours.weight, expected, rtol=1e-6, atol=1e-7)

    one, two = (torch.randn(shape, generator=torch.manual_seed(1)).requires_grad_() for _ in "ab")
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        actual, expected = ours(one), plain(two)
    assert actual.dtype == expected.dtype
    tolerance = {"rtol": 3e-2, "atol": 3e-2} if autocast else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(actual, expected, **tolerance)
    actual.float().square().sum().backward()
    expected.float().square().sum().backward()
    torch.testing.assert_close(one.grad, two.grad, **tolerance)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "method", [geotune.Frozen, geotune.Est, geotune.Lora, geotune.BitFit, geotune.Mona, geotune.Vpt]
)
def test_methods_train_with_quantized_backbones(
    make_backbone: MakeBackbone, family: str, method: Any, precision: Any
) -> None:
    options: dict[str, Any] = {"stem_width": 0, "frozen_precision": precision}
    if method is geotune.Vpt and family in ("swin", "swinv2", "convnext", "resnet"):
        pytest.skip("vpt does not support it")
    if method in (geotune.Lora,):
        options["rank"] = 2
    if method is geotune.Mona:
        options["bottleneck_dim"] = 4
    encoder = method(**options).attach(make_backbone(family))
    plain = method(**{**options, "frozen_precision": "fp32"}).attach(make_backbone(family))
    plain.load_state_dict(encoder.state_dict(), strict=False)
    images = torch.randn(1, 4, 64, 64)
    with torch.no_grad():
        ours, theirs = (e.eval()(images).maps[-1] for e in (encoder, plain))
    assert not torch.equal(ours, theirs)
    assert (ours - theirs).norm() < 0.1 * theirs.norm()

    names = encoder.trainable_names()
    assert names == plain.trainable_names()
    assert all(encoder.get_parameter(name).dtype == torch.float32 for name in names)
    before = {n: t.clone() for n, t in encoder.state_dict().items() if n.startswith("backbone.")}
    encoder.train()
    sum(m.square().mean() for m in encoder(images).maps).backward() if names else None
    reached = {n for n, p in encoder.named_parameters() if p.grad is not None}
    assert reached == set(names)
    for name, tensor in encoder.state_dict().items():
        if name in before and name not in names:
            assert torch.equal(tensor, before[name]), name


def test_bf16_and_int8_need_a_half_and_a_quarter_of_the_memory(make_backbone: MakeBackbone) -> None:
    def frozen_bytes(method: Method) -> int:
        encoder = method.attach(make_backbone("vit"))
        with MemoryTracker(encoder) as tracker:
            pass
        return tracker.peak.frozen

    full = frozen_bytes(geotune.Frozen(stem_width=0))
    assert frozen_bytes(geotune.Frozen(stem_width=0, frozen_precision="bf16")) < 0.6 * full
    assert frozen_bytes(geotune.Frozen(stem_width=0, frozen_precision="int8")) < 0.4 * full


def test_no_dequantized_weight_is_saved_for_backward(make_backbone: MakeBackbone) -> None:
    def activations(precision: str) -> int:
        encoder: Encoder = geotune.Lora(rank=2, stem_width=0, frozen_precision=precision).attach(
            make_backbone("vit")
        )
        images = torch.randn(1, 4, 32, 32)
        with MemoryTracker(encoder, others=images) as tracker:
            sum(m.sum() for m in encoder.train()(images).maps).backward()
        return tracker.peak.activations

    weights = sum(p.numel() * 4 for p in make_backbone("vit").parameters())
    assert activations("int8") - activations("fp32") < 0.2 * weights


def test_quantizing_a_backbone_that_trains_raises(make_backbone: MakeBackbone) -> None:
    mentions = ["int8", "timm/test_vit"]
    with raises("method-option-invalid", key="method.frozen_precision", mentions=mentions):
        geotune.Full(frozen_precision="int8").attach(make_backbone("vit"))


def test_merging_into_quantized_weights_raises(make_backbone: MakeBackbone) -> None:
    encoder = geotune.Lora(rank=2, frozen_precision="bf16").attach(make_backbone("vit"))
    with raises("merge-unsupported"):
        encoder.merge()


def test_copies_are_independent(make_backbone: MakeBackbone) -> None:
    encoder = geotune.Frozen(stem_width=0, frozen_precision="bf16").attach(make_backbone("vit"))
    twin = copy.deepcopy(encoder)
    twin.backbone.model.get_submodule("blocks.0.attn.qkv").held.zero_()  # type: ignore[operator, union-attr]
    images = torch.randn(1, 4, 32, 32)
    with torch.no_grad():
        assert not torch.equal(twin(images).maps[0], encoder(images).maps[0])
    assert isinstance(encoder.reader, SelectedFeatures)
