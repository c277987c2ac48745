"""What methods share: levels of a pyramid, and the search for parts that no gradient reaches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone, Emit
from geotune.backbones.spec import BackboneSpec
from geotune.errors import GeotuneError
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import check_trainable, dead_parameters
from geotune.methods.core.injection import freeze
from geotune.methods.core.reader import BlockActivations, Reader, SelectedFeatures, level_indices
from geotune.types import Tap

MakeBackbone = Callable[..., Backbone]


class Chain(Backbone):
    """1x1 convolutions in a row; the weights of an idle layer are read without calling it."""

    def __init__(self, depth: int = 3, idle: bool = False) -> None:
        model = nn.ModuleList(nn.Conv2d(2, 2, 1) for _ in range(depth))
        request = BackboneSpec(name="test/chain", bands=("a", "b"))
        super().__init__(model, request, size_divisor=4, licence="none", source=None)
        self.idle = nn.Linear(2, 2) if idle else None
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
def test_a_plain_backbone_has_levels_at_even_distances(depth: int, expected: list[int]) -> None:
    assert level_indices(Chain(depth)) == expected


def test_a_hierarchical_backbone_has_the_last_block_of_each_stage(
    make_backbone: MakeBackbone,
) -> None:
    backbone = make_backbone("convnext")
    assert [backbone.taps[i].name for i in level_indices(backbone)] == [
        "stages.0.blocks.0",
        "stages.1.blocks.1",
        "stages.2.blocks.3",
        "stages.3.blocks.1",
    ]


def test_levels_hand_on_what_they_read() -> None:
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


def test_what_no_gradient_reaches_is_found_and_named() -> None:
    backbone = Chain(idle=True)
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
        "backbone.idle.weight",
        "backbone.idle.bias",
    ]
    with pytest.raises(GeotuneError, match=r"own on test/chain: 2 attached layers.*backbone\.idle"):
        check_trainable(encoder, "own")
    freeze(backbone)
    assert dead_parameters(encoder) == []
    assert check_trainable(encoder) is encoder


# ---------------------------------------------------------------- inside the blocks
class Watcher(Reader):
    """Keeps every tap and the inside of its block."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.out_indices = self.internals_at = tuple(range(len(backbone.taps)))
        self.taps = backbone.taps
        self.features: list[Tensor] = []
        self.insides: list[BlockActivations] = []

    def step(
        self, state: Any, index: int, feature: Tensor, inside: BlockActivations | None = None
    ) -> Any:
        assert inside is not None
        assert index == len(self.insides)
        self.features.append(feature)
        self.insides.append(inside)

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        return tuple(self.features)


def look(backbone: Backbone, **inputs: Tensor) -> tuple[Watcher, list[Any], list[Any]]:
    """What a reader sees in an image, and what the blocks got and gave."""
    for parameter in backbone.parameters():  # some start at zero
        parameter.data += 0.1 * torch.randn_like(parameter)
    got: list[Any] = []
    gave: list[Any] = []
    for block in backbone.blocks:
        block.register_forward_pre_hook(
            lambda _, inputs, named: got.append(inputs[0] if inputs else named["x"]),
            with_kwargs=True,
        )
        block.register_forward_hook(lambda _, inputs, output: gave.append(output))
    watcher = Watcher(backbone)
    with torch.no_grad():
        Encoder(backbone, watcher, backbone_frozen=True)(**inputs)
    return watcher, got, gave


@pytest.mark.parametrize("family", ["vit", "registers", "swin", "swinv2", "convnext"])
def test_what_attention_and_mlp_add_makes_the_output_of_the_block(
    make_backbone: MakeBackbone, family: str
) -> None:
    torch.manual_seed(0)
    backbone = make_backbone(family)
    watcher, _, _ = look(backbone, images=torch.randn(2, 4, 40, 70))
    last = len(backbone.taps) - 1
    for index, inside in enumerate(watcher.insides):
        after = inside.before
        assert (inside.attention is None) == (family == "convnext")
        for added in (inside.attention, inside.mlp):
            if added is not None:
                assert added.abs().max() > 1e-3
                after = after + added
        assert after.shape == watcher.features[index].shape
        if index < last:  # the last tap is taken after the final normalisation
            torch.testing.assert_close(after, watcher.features[index], rtol=1e-5, atol=1e-5)
        if index < last and backbone.taps[index + 1].stride == backbone.taps[index].stride:
            assert torch.equal(watcher.insides[index + 1].before, watcher.features[index])


def test_attention_and_mlp_are_what_a_vit_s_own_modules_add(make_backbone: MakeBackbone) -> None:
    torch.manual_seed(0)
    backbone = make_backbone("vit")
    watcher, got, _ = look(backbone, images=torch.randn(2, 4, 40, 70))

    def to_map(tokens: Tensor) -> Tensor:
        """Without the class token, 3 x 5 patches."""
        return tokens[:, 1:].reshape(2, 3, 5, -1).permute(0, 3, 1, 2)

    block: Any
    with torch.no_grad():
        for block, x, inside in zip(backbone.blocks, got, watcher.insides, strict=True):
            attention = block.ls1(block.attn(block.norm1(x)))
            mlp = block.ls2(block.mlp(block.norm2(x + attention)))
            for found, expected in zip(
                (inside.before, inside.attention, inside.mlp), (x, attention, mlp), strict=True
            ):
                assert found is not None
                torch.testing.assert_close(found, to_map(expected), rtol=1e-5, atol=1e-5)


def test_galileo_s_tokens_of_one_place_are_seen_as_their_mean(make_backbone: MakeBackbone) -> None:
    """Tokens lie by row, column, date and group of bands; here of one image of 3 x 5 patches."""
    torch.manual_seed(0)
    backbone = make_backbone("galileo", timesteps=2)
    watcher, got, gave = look(backbone, images=torch.randn(1, 4, 2, 12, 20))

    def to_map(tokens: Tensor) -> Tensor:
        return tokens.reshape(1, 3, 5, -1, tokens.shape[-1]).mean(3).permute(0, 3, 1, 2)

    block: Any
    with torch.no_grad():
        for block, x, out, inside in zip(backbone.blocks, got, gave, watcher.insides, strict=True):
            assert x.shape[1] >= 2 * 3 * 5
            attention = block.attn(block.norm1(x), None, None)
            assert inside.attention is not None
            assert inside.mlp is not None
            torch.testing.assert_close(inside.attention, to_map(attention), rtol=1e-5, atol=1e-5)
            after = inside.before + inside.attention + inside.mlp
            torch.testing.assert_close(after, to_map(out), rtol=1e-5, atol=1e-5)


def test_a_block_without_attention_and_mlp_shows_what_it_got(make_backbone: MakeBackbone) -> None:
    """Those of a ResNet go to the next stage themselves, so the first gets a finer map."""
    backbone = make_backbone("resnet")
    watcher, got, _ = look(backbone, images=torch.randn(2, 4, 32, 64))
    for index, inside in enumerate(watcher.insides):
        assert inside.attention is None
        assert inside.mlp is None
        assert torch.equal(inside.before, got[index])
    assert watcher.insides[1].before.shape[-2:] == watcher.features[0].shape[-2:]
