"""Activation checkpointing changes no value and needs less memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import geotune
from geotune.backbones.base import Backbone
from geotune.memory.tracker import MemoryTracker
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder, recompute_blocks
from geotune.registry import DECODERS
from geotune.utils.activation_checkpointing import recompute, recompute_stages
from geotune.utils.batch_norm import allow_single_values
from helpers.components import DETECTORS, PROBES, make_decoder

MakeBackbone = Callable[..., Backbone]


def step(model: nn.Module, run: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Output and gradients of one forward and backward pass."""
    torch.manual_seed(7)
    model.train()
    out = run()
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    return out, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def assert_identical(one: nn.Module, two: nn.Module, run: Callable[[nn.Module], Tensor]) -> None:
    """Outputs, gradients, statistics and names of both are bit-identical."""
    actual, gradients = step(one, lambda: run(one))
    expected, expected_gradients = step(two, lambda: run(two))
    assert torch.equal(actual, expected)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        assert torch.equal(gradient, expected_gradients[name]), name
    assert one.state_dict().keys() == two.state_dict().keys()
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name


def test_batch_norm_updates_once_and_dropout_repeats() -> None:
    plain = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5)
    )
    recomputed = copy.deepcopy(plain)
    recompute(recomputed)
    recompute(recomputed)  # once is enough
    x = torch.randn(2, 3, 8, 8)
    assert_identical(recomputed, plain, lambda net: net(x))
    assert plain[1].num_batches_tracked == 1
    assert recomputed[1].momentum == plain[1].momentum == 0.1
    assert isinstance(recomputed, nn.Sequential)
    with torch.no_grad():
        assert torch.equal(recomputed.eval()(x), plain.eval()(x))


def test_single_values_of_batch_norm_leave_its_statistics() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    allow_single_values(plain)
    recomputed = copy.deepcopy(plain)
    recompute(recomputed)
    x = torch.randn(1, 3, 3, 3)
    assert_identical(recomputed, plain, lambda net: net(x))
    assert plain[1].num_batches_tracked == 0


def test_copies_are_checkpointed_and_independent() -> None:
    stage = nn.Linear(3, 3)
    recompute(stage)
    twin = copy.deepcopy(stage)
    assert type(twin) is type(stage)
    with torch.no_grad():
        twin.weight.zero_()
    assert stage.weight.any()


class Net(nn.Module):
    def __init__(self, encoder: Encoder, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.decoder(self.encoder(images))
        return logits


def net(make_backbone: MakeBackbone, family: str, method: Method, decoder: str) -> Net:
    torch.manual_seed(0)
    encoder = method.attach(make_backbone(family))
    return Net(encoder, make_decoder(decoder, encoder.taps, 3))


@pytest.mark.parametrize(
    "decoder", [kind for kind in DECODERS if kind not in (*DETECTORS, *PROBES)]
)
@pytest.mark.parametrize("method", ["Est", "Lst", "SideTune", "VitAdapter"])
def test_recomputing_stages_changes_no_value(
    make_backbone: MakeBackbone, method: str, decoder: str
) -> None:
    options: dict[str, Any] = {"stem_width": 4}
    recomputed, plain = (
        net(make_backbone, "vit", getattr(geotune, method)(**options), decoder) for _ in range(2)
    )
    recompute_stages(recomputed)
    images = torch.randn(2, 4, 64, 64)
    assert_identical(recomputed, plain, lambda model: model(images))


@pytest.mark.parametrize(
    "method",
    [
        geotune.Full(),
        geotune.Partial(),
        geotune.Lora(rank=2),
        geotune.Vpt(num_prompts=3),
        geotune.Vpt(num_prompts=3, depth="shallow"),
        geotune.Mona(bottleneck_dim=4),
        geotune.AdaptFormer(bottleneck_dim=4),
        geotune.VitAdapter(conv_inplane=4),
        geotune.Dtl(feedback_from=3),
    ],
    ids=lambda method: type(method).__name__,
)
def test_recomputing_blocks_changes_no_value(make_backbone: MakeBackbone, method: Method) -> None:
    recomputed, plain = (net(make_backbone, "vit", method, "linear") for _ in range(2))
    recompute_blocks(recomputed.encoder)
    images = torch.randn(2, 4, 64, 64)
    assert_identical(recomputed, plain, lambda model: model(images))


@pytest.mark.parametrize("family", ["swin", "convnext", "resnet"])
def test_recomputing_blocks_of_every_family_changes_no_value(
    make_backbone: MakeBackbone, family: str
) -> None:
    recomputed, plain = (net(make_backbone, family, geotune.Full(), "linear") for _ in range(2))
    recompute_blocks(recomputed.encoder)
    images = torch.randn(2, 4, 64, 64)
    assert_identical(recomputed, plain, lambda model: model(images))


def test_recomputing_needs_less_memory(make_backbone: MakeBackbone) -> None:
    def activations(mark: Callable[[Net], None]) -> int:
        model = net(make_backbone, "vit", geotune.Full(), "unet").train()
        mark(model)
        images = torch.randn(4, 4, 64, 64)
        with MemoryTracker(model, others=images) as tracker:
            model(images).sum().backward()
        return tracker.peak.activations

    def mark_both(model: Net) -> None:
        recompute_stages(model)
        recompute_blocks(model.encoder)

    plain = activations(lambda _: None)
    stages = activations(recompute_stages)
    both = activations(mark_both)
    assert both < 0.95 * stages < 0.8 * plain
