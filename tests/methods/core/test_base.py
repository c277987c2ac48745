"""Encoder, readers, gradient check, and block activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone, Emit
from geotune.backbones.spec import BackboneSpec
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import check_trainable, dead_parameters
from geotune.methods.core.injection import freeze
from geotune.methods.core.reader import BlockActivations, Reader, SelectedFeatures, level_indices
from geotune.types import Tap
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]


class Chain(Backbone):
    """A sequence of 1x1 convolutions, and optionally a layer that is not used."""

    def __init__(self, depth: int = 3, unused: bool = False) -> None:
        model = nn.ModuleList(nn.Conv2d(2, 2, 1) for _ in range(depth))
        request = BackboneSpec(name="test/chain", bands=("a", "b"))
        super().__init__(model, request, size_divisor=4, licence="none", source=None)
        self.unused = nn.Linear(2, 2) if unused else None
        self.fingerprint = "chain"
        self.taps = self.find_taps([f"{i}" for i in range(depth)])

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.model)  # type: ignore[arg-type]

    def run(self, images: Tensor, emit: Emit, wanted: set[int], **metadata: Tensor | None) -> None:
        for index, block in enumerate(self.blocks):
            images = block(images)
            if index in wanted:
                emit(index, images)


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(1, [0]), (3, [0, 1, 2]), (4, [0, 1, 2, 3]), (12, [2, 5, 8, 11]), (24, [5, 11, 17, 23])],
)
def test_levels_of_a_plain_backbone_are_evenly_spaced(depth: int, expected: list[int]) -> None:
    assert level_indices(Chain(depth)) == expected


def test_levels_of_a_hierarchical_backbone_are_the_last_blocks_of_stages(
    make_backbone: MakeBackbone,
) -> None:
    backbone = make_backbone("convnext")
    assert [backbone.taps[i].name for i in level_indices(backbone)] == [
        "stages.0.blocks.0",
        "stages.1.blocks.1",
        "stages.2.blocks.3",
        "stages.3.blocks.1",
    ]


def test_selected_features_returns_taps_unchanged() -> None:
    backbone = Chain()
    levels = SelectedFeatures(backbone, [0, 2])
    assert levels.taps == (Tap("0", 2, 1.0), Tap("2", 2, 1.0))
    encoder = Encoder(backbone, levels, backbone_frozen=False, backbone_trains=True)
    image = torch.randn(1, 2, 5, 7)
    every = backbone(image).maps
    features = encoder(image)
    assert features.image_size == (8, 8)
    assert torch.equal(features.maps[0], every[0])
    assert torch.equal(features.maps[1], every[2])


def test_dead_parameters_are_found_and_named() -> None:
    backbone = Chain(unused=True)
    encoder = Encoder(
        backbone, SelectedFeatures(backbone, [0, 1]), backbone_frozen=False, backbone_trains=True
    )
    torch.manual_seed(5)
    before = torch.get_rng_state()
    dead = dead_parameters(encoder.train())
    assert torch.equal(torch.get_rng_state(), before)
    assert encoder.training
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert dead == [
        "backbone.model.2.weight",
        "backbone.model.2.bias",
        "backbone.unused.weight",
        "backbone.unused.bias",
    ]
    mentions = ["own", "test/chain", "2 inserted layers", "backbone.unused"]
    with raises("method-layers-dead", mentions=mentions):
        check_trainable(encoder, "own")
    freeze(backbone)
    assert dead_parameters(encoder) == []
    assert check_trainable(encoder) is encoder


# ---------------------------------------------------------------- block activations
class RecordingReader(Reader):
    """Stores every tap and the activations of its block."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.out_indices = self.internals_at = tuple(range(len(backbone.taps)))
        self.taps = backbone.taps
        self.features: list[Tensor] = []
        self.activations: list[BlockActivations] = []

    def step(
        self, state: Any, index: int, feature: Tensor, activations: BlockActivations | None = None
    ) -> Any:
        assert activations is not None
        assert index == len(self.activations)
        self.features.append(feature)
        self.activations.append(activations)

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        return tuple(self.features)


def record(backbone: Backbone, **inputs: Tensor) -> tuple[RecordingReader, list[Any], list[Any]]:
    """Run the backbone; return its reader, and inputs and outputs of its blocks."""
    for parameter in backbone.parameters():  # some start at zero
        parameter.data += 0.1 * torch.randn_like(parameter)
    inputs_of: list[Any] = []
    outputs_of: list[Any] = []
    for block in backbone.blocks:
        block.register_forward_pre_hook(
            lambda _, inputs, named: inputs_of.append(inputs[0] if inputs else named["x"]),
            with_kwargs=True,
        )
        block.register_forward_hook(lambda _, inputs, output: outputs_of.append(output))
    reader = RecordingReader(backbone)
    with torch.no_grad():
        Encoder(backbone, reader, backbone_frozen=True)(**inputs)
    return reader, inputs_of, outputs_of


@pytest.mark.parametrize("family", ["vit", "registers", "swin", "swinv2", "convnext"])
def test_input_plus_attention_plus_mlp_is_the_block_output(
    make_backbone: MakeBackbone, family: str
) -> None:
    torch.manual_seed(0)
    backbone = make_backbone(family)
    reader, _, _ = record(backbone, images=torch.randn(2, 4, 40, 70))
    last = len(backbone.taps) - 1
    for index, activation in enumerate(reader.activations):
        after = activation.before
        assert (activation.attention is None) == (family == "convnext")
        for added in (activation.attention, activation.mlp):
            if added is not None:
                assert added.abs().max() > 1e-3
                after = after + added
        assert after.shape == reader.features[index].shape
        if index < last:  # the last tap is taken after the final normalisation
            torch.testing.assert_close(after, reader.features[index], rtol=1e-5, atol=1e-5)
        if index < last and backbone.taps[index + 1].stride == backbone.taps[index].stride:
            assert torch.equal(reader.activations[index + 1].before, reader.features[index])


def test_activations_equal_the_outputs_of_a_vit_s_modules(make_backbone: MakeBackbone) -> None:
    torch.manual_seed(0)
    backbone = make_backbone("vit")
    reader, inputs, _ = record(backbone, images=torch.randn(2, 4, 40, 70))

    def to_map(tokens: Tensor) -> Tensor:
        """Without the class token, 3 x 5 patches."""
        return tokens[:, 1:].reshape(2, 3, 5, -1).permute(0, 3, 1, 2)

    block: Any
    with torch.no_grad():
        for block, x, activation in zip(backbone.blocks, inputs, reader.activations, strict=True):
            attention = block.ls1(block.attn(block.norm1(x)))
            mlp = block.ls2(block.mlp(block.norm2(x + attention)))
            for actual, expected in zip(
                (activation.before, activation.attention, activation.mlp),
                (x, attention, mlp),
                strict=True,
            ):
                assert actual is not None
                torch.testing.assert_close(actual, to_map(expected), rtol=1e-5, atol=1e-5)


def test_galileo_s_tokens_of_one_position_are_averaged(make_backbone: MakeBackbone) -> None:
    """Tokens are ordered by row, column, date and group of bands; the image has 3 x 5 patches."""
    torch.manual_seed(0)
    backbone = make_backbone("galileo", timesteps=2)
    reader, inputs, outputs = record(backbone, images=torch.randn(1, 4, 2, 12, 20))

    def to_map(tokens: Tensor) -> Tensor:
        return tokens.reshape(1, 3, 5, -1, tokens.shape[-1]).mean(3).permute(0, 3, 1, 2)

    block: Any
    with torch.no_grad():
        for block, x, out, activation in zip(
            backbone.blocks, inputs, outputs, reader.activations, strict=True
        ):
            assert x.shape[1] >= 2 * 3 * 5
            attention = block.attn(block.norm1(x), None, None)
            assert activation.attention is not None
            assert activation.mlp is not None
            torch.testing.assert_close(
                activation.attention, to_map(attention), rtol=1e-5, atol=1e-5
            )
            after = activation.before + activation.attention + activation.mlp
            torch.testing.assert_close(after, to_map(out), rtol=1e-5, atol=1e-5)


def test_blocks_without_attention_and_mlp_have_only_an_input(make_backbone: MakeBackbone) -> None:
    """The first block of a ResNet's stage downsamples itself, so its input is finer."""
    backbone = make_backbone("resnet")
    reader, inputs, _ = record(backbone, images=torch.randn(2, 4, 32, 64))
    for index, activation in enumerate(reader.activations):
        assert activation.attention is None
        assert activation.mlp is None
        assert torch.equal(activation.before, inputs[index])
    assert reader.activations[1].before.shape[-2:] == reader.features[0].shape[-2:]
