"""Multi-scale RoIAlign compared with torchvision's, level by level."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision.ops
from torch import Tensor

from geotune.boxes.oriented import as_oriented, hull
from geotune.detectors.roi_align import OUTPUT_SIZE, SAMPLING_RATIO, MultiScaleRoIAlign

STRIDES = (4.0, 8.0, 16.0, 32.0)
SIZE = 768, 1024


def maps(channels: int = 3, images: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(images, channels, int(SIZE[0] / s), int(SIZE[1] / s), generator=generator)
        for s in STRIDES
    ]


def regions(count: int = 40, images: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    side = 8 * 2 ** (6.5 * torch.rand(images, count, 1, generator=generator))
    side = torch.cat([side, side * 0.9], dim=-1)
    middle = torch.rand(images, count, 2, generator=generator) * torch.tensor([1024.0, 768.0])
    boxes = torch.cat([middle - side / 2, middle + side / 2], dim=-1).clamp(min=0)
    return boxes.minimum(torch.tensor([1024.0, 768.0, 1024.0, 768.0]))


def test_horizontal_regions_equal_torchvisions_level_by_level() -> None:
    given, boxes = maps(), regions()
    ours = MultiScaleRoIAlign(given, STRIDES)(boxes).unflatten(0, boxes.shape[:2])
    size = (boxes[..., 2:] - boxes[..., :2]).prod(-1).sqrt()
    level = (4 + torch.log2(size / 224)).floor().clamp(2, 5).long() - 2  # torchvision's LevelMapper
    for k, (x, stride) in enumerate(zip(given, STRIDES, strict=True)):
        theirs = torchvision.ops.roi_align(
            x, list(boxes), OUTPUT_SIZE, 1 / stride, SAMPLING_RATIO, aligned=True
        ).unflatten(0, boxes.shape[:2])
        torch.testing.assert_close(ours[level == k], theirs[level == k], rtol=1e-4, atol=1e-4)
    assert level.unique().tolist() == [0, 1, 2, 3]


def test_oriented_regions_at_angle_zero_equal_horizontal_ones() -> None:
    wide = regions()
    height = (wide[..., 3] - wide[..., 1]).minimum(0.9 * (wide[..., 2] - wide[..., 0]))
    wide[..., 3] = wide[..., 1] + height
    roi_align = MultiScaleRoIAlign(maps(), STRIDES)
    rotated = as_oriented(wide)
    assert (rotated[..., 4] == 0).all()
    torch.testing.assert_close(roi_align(rotated), roi_align(wide), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_oriented_regions_are_rotation_invariant(quarter: int) -> None:
    image = torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(2))
    box = torch.tensor([[[32.0, 32.0, 24.0, 12.0, 0.3]]])
    rotated = box.clone()
    rotated[..., 4] -= quarter * math.pi / 2  # rot90 rotates counterclockwise
    one = MultiScaleRoIAlign([image], (1.0,))(box)
    other = MultiScaleRoIAlign([image.rot90(quarter, (2, 3))], (1.0,))(rotated)
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_gradients_reach_only_the_level_of_a_region() -> None:
    given = [x.requires_grad_() for x in maps(images=1)]
    small = torch.tensor([[[40.0, 40.0, 52.0, 52.0]]])
    MultiScaleRoIAlign(given, STRIDES)(small).sum().backward()
    sums = [0.0 if x.grad is None else float(x.grad.abs().sum()) for x in given]
    assert sums[0] > 0 and sums[1:] == [0, 0, 0]
    assert hull(small).shape == small.shape
