"""Features of regions: each from its own level, as if the others were not there."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision.ops
from torch import Tensor

from geotune.boxes.oriented import as_oriented, hull
from geotune.detectors.roi_align import BINS, SAMPLES, MultiScaleRoIAlign

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


def test_horizontal_regions_are_read_as_torchvision_reads_them_level_by_level() -> None:
    given, boxes = maps(), regions()
    ours = MultiScaleRoIAlign(given, STRIDES).read(boxes).unflatten(0, boxes.shape[:2])
    size = (boxes[..., 2:] - boxes[..., :2]).prod(-1).sqrt()
    level = (4 + torch.log2(size / 224)).floor().clamp(2, 5).long() - 2  # its LevelMapper
    for k, (x, stride) in enumerate(zip(given, STRIDES, strict=True)):
        theirs = torchvision.ops.roi_align(
            x, list(boxes), BINS, 1 / stride, SAMPLES, aligned=True
        ).unflatten(0, boxes.shape[:2])
        torch.testing.assert_close(ours[level == k], theirs[level == k], rtol=1e-4, atol=1e-4)
    assert level.unique().tolist() == [0, 1, 2, 3]


def test_oriented_regions_that_are_not_turned_are_read_as_horizontal_ones() -> None:
    wide = regions()
    height = (wide[..., 3] - wide[..., 1]).minimum(0.9 * (wide[..., 2] - wide[..., 0]))
    wide[..., 3] = wide[..., 1] + height
    sheet = MultiScaleRoIAlign(maps(), STRIDES)
    turned = as_oriented(wide)
    assert (turned[..., 4] == 0).all()
    torch.testing.assert_close(sheet.read(turned), sheet.read(wide), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_an_object_looks_the_same_however_the_image_is_turned(quarter: int) -> None:
    image = torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(2))
    box = torch.tensor([[[32.0, 32.0, 24.0, 12.0, 0.3]]])
    turned = box.clone()
    turned[..., 4] -= quarter * math.pi / 2  # rot90 turns against the clock
    one = MultiScaleRoIAlign([image], (1.0,)).read(box)
    other = MultiScaleRoIAlign([image.rot90(quarter, (2, 3))], (1.0,)).read(turned)
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_gradients_reach_the_level_of_a_region_and_no_other() -> None:
    given = [x.requires_grad_() for x in maps(images=1)]
    small = torch.tensor([[[40.0, 40.0, 52.0, 52.0]]])
    MultiScaleRoIAlign(given, STRIDES).read(small).sum().backward()
    sums = [0.0 if x.grad is None else float(x.grad.abs().sum()) for x in given]
    assert sums[0] > 0 and sums[1:] == [0, 0, 0]
    assert hull(small).shape == small.shape
