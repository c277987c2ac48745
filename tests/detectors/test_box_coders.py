"""Box coders: decoding inverts encoding."""

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

coordinate = st.floats(-50, 50)
side = st.floats(2, 60)  # so that side ratios, also of hulls, stay below 1000 / 16
angle = st.floats(-math.pi / 2, math.pi / 2 - 1e-6)
oriented = st.tuples(coordinate, coordinate, side, side, angle).map(
    lambda b: torch.tensor([b], dtype=torch.float64)
)


def horizontal(box: Tensor) -> Tensor:
    return hull(torch.cat([box[:, :4], torch.zeros_like(box[:, :1])], dim=1))


def overlap(first: Tensor, second: Tensor) -> float:
    return float(paired_iou(first, second, torch.tensor([0]), torch.tensor([0])))


@given(oriented, oriented)
def test_horizontal_round_trip_and_deltas_equal_torchvisions(one: Tensor, other: Tensor) -> None:
    anchor, box = horizontal(one), horizontal(other)
    deltas = HorizontalDeltaCoder.encode(anchor, box)
    theirs = BoxCoder((1.0, 1.0, 1.0, 1.0))
    torch.testing.assert_close(deltas, theirs.encode([box], [anchor])[0])
    torch.testing.assert_close(HorizontalDeltaCoder.decode(anchor, deltas), box)


@given(oriented, oriented)
def test_midpoint_offset_round_trip(one: Tensor, other: Tensor) -> None:
    anchor = horizontal(one)
    deltas = MidpointOffsetCoder.encode(anchor, other)
    assert deltas[:, 4:].abs().max() <= 0.5 + 1e-9
    assert overlap(MidpointOffsetCoder.decode(anchor, deltas), other) > 1 - 1e-4


@given(oriented, oriented)
def test_oriented_round_trip_with_minimal_rotation(one: Tensor, other: Tensor) -> None:
    deltas = OrientedDeltaCoder.encode(one, other)
    assert deltas[:, 4].abs() <= math.pi / 4 + 1e-9
    assert overlap(OrientedDeltaCoder.decode(one, deltas), other) > 1 - 1e-6


def test_deltas_of_equal_boxes_are_zero() -> None:
    box = torch.tensor([[10.0, 20.0, 8.0, 4.0, 0.5]])
    assert OrientedDeltaCoder.encode(box, box).abs().max() == 0
    hulls = hull(box)
    assert HorizontalDeltaCoder.encode(hulls, hulls).abs().max() == 0
    assert MidpointOffsetCoder.encode(hulls, box)[:, :4].abs().max() < 1e-6


@pytest.mark.parametrize("coder", [HorizontalDeltaCoder, MidpointOffsetCoder])
def test_decoded_sides_are_bounded(
    coder: type[HorizontalDeltaCoder] | type[MidpointOffsetCoder],
) -> None:
    anchor = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    assert coder.decode(anchor, torch.full((1, coder.size), 100.0)).isfinite().all()
