"""What methods share: levels of a pyramid, and the search for parts that no gradient reaches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone, Emit
from geotune.backbones.request import Request
from geotune.methods.base import (
    Encoder,
    Levels,
    dead_parameters,
    freeze,
    level_indices,
    require_alive,
)
from geotune.types import GeotuneError, Tap

MakeBackbone = Callable[..., Backbone]


class Chain(Backbone):
    """1x1 convolutions in a row; the weights of an idle layer are read without calling it."""

    def __init__(self, depth: int = 3, idle: bool = False) -> None:
        model = nn.ModuleList(nn.Conv2d(2, 2, 1) for _ in range(depth))
        request = Request("test/chain", ("a", "b"))
        super().__init__(model, request, pad_to=4, licence="none", source=None)
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
    levels = Levels(backbone, [0, 2])
    assert levels.taps == (Tap("0", 2, 1.0), Tap("2", 2, 1.0))
    encoder = Encoder(backbone, levels, constant_backbone=False, backbone_trains=True)
    image = torch.randn(1, 2, 5, 7)
    every = backbone(image).maps
    features = encoder(image)
    assert features.image_size == (8, 8)
    assert torch.equal(features.maps[0], every[0])
    assert torch.equal(features.maps[1], every[2])


def test_what_no_gradient_reaches_is_found_and_named() -> None:
    backbone = Chain(idle=True)
    encoder = Encoder(
        backbone, Levels(backbone, [0, 1]), constant_backbone=False, backbone_trains=True
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
    with pytest.raises(GeotuneError, match=r"est on test/chain: 2 attached layers.*backbone\.idle"):
        require_alive(encoder, "est")
    freeze(backbone)
    assert dead_parameters(encoder) == []
    assert require_alive(encoder, "est") is encoder
