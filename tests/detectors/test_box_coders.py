"""What is said of a box gives the box."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from geotune.boxes.iou import paired_iou
from geotune.boxes.oriented import hull
from geotune.detectors.box_coders import (
    HorizontalDeltaCoder,
    MidpointOffsetCoder,
    OrientedDeltaCoder,
)

place = st.floats(-50, 50)
side = st.floats(2, 60)  # a ratio above 1000 / 16 is not said, and a hull is larger than its box
angle = st.floats(-math.pi / 2, math.pi / 2 - 1e-6)
oriented = st.tuples(place, place, side, side, angle).map(
    lambda b: torch.tensor([b], dtype=torch.float64)
)


def horizontal(box: Tensor) -> Tensor:
    return hull(torch.cat([box[:, :4], torch.zeros_like(box[:, :1])], dim=1))


def overlap(first: Tensor, second: Tensor) -> float:
    return float(paired_iou(first, second, torch.tensor([0]), torch.tensor([0])))


@given(oriented, oriented)
def test_horizontal_boxes_come_back_and_are_said_as_torchvision_says_them(
    one: Tensor, other: Tensor
) -> None:
    anchor, box = horizontal(one), horizontal(other)
    said = HorizontalDeltaCoder.encode(anchor, box)
    theirs = BoxCoder((1.0, 1.0, 1.0, 1.0))
    torch.testing.assert_close(said, theirs.encode([box], [anchor])[0])
    torch.testing.assert_close(HorizontalDeltaCoder.decode(anchor, said), box)


@given(oriented, oriented)
def test_oriented_boxes_come_back_from_where_they_touch_their_hull(
    one: Tensor, other: Tensor
) -> None:
    anchor = horizontal(one)
    said = MidpointOffsetCoder.encode(anchor, other)
    assert said[:, 4:].abs().max() <= 0.5 + 1e-9
    assert overlap(MidpointOffsetCoder.decode(anchor, said), other) > 1 - 1e-4


@given(oriented, oriented)
def test_oriented_boxes_come_back_from_others_and_are_turned_least(
    one: Tensor, other: Tensor
) -> None:
    said = OrientedDeltaCoder.encode(one, other)
    assert said[:, 4].abs() <= math.pi / 4 + 1e-9
    assert overlap(OrientedDeltaCoder.decode(one, said), other) > 1 - 1e-6


def test_what_is_said_of_an_equal_box_is_nothing() -> None:
    box = torch.tensor([[10.0, 20.0, 8.0, 4.0, 0.5]])
    assert OrientedDeltaCoder.encode(box, box).abs().max() == 0
    around = hull(box)
    assert HorizontalDeltaCoder.encode(around, around).abs().max() == 0
    assert MidpointOffsetCoder.encode(around, box)[:, :4].abs().max() < 1e-6


@pytest.mark.parametrize("coder", [HorizontalDeltaCoder, MidpointOffsetCoder])
def test_boxes_do_not_grow_without_bound(
    coder: type[HorizontalDeltaCoder] | type[MidpointOffsetCoder],
) -> None:
    anchor = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    assert coder.decode(anchor, torch.full((1, coder.size), 100.0)).isfinite().all()
