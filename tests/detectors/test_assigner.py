"""Assignment of objects to boxes, and sampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from geotune.detectors import assigner
from geotune.detectors.anchors import grid_centers
from geotune.detectors.assigner import (
    BACKGROUND,
    IGNORE_BOX,
    GroundTruth,
    iou_chunks,
    match_by_iou,
    sample_proposals,
)
from geotune.detectors.fcos import FcosGrid, assign_targets


def truth(objects: int, uncounted: tuple[int, ...] = ()) -> GroundTruth:
    counted = torch.ones(objects, dtype=torch.bool)
    counted[list(uncounted)] = False
    return GroundTruth(torch.zeros(objects, 4), torch.arange(objects), counted)


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_match_equals_torchvisions(low_quality: bool, seed: int) -> None:
    iou = torch.rand(4, 50, generator=torch.Generator().manual_seed(seed))
    iou[:, ::7] *= 0.2
    ours = match_by_iou(
        iou, truth(4), fg_threshold=0.7, bg_threshold=0.3, allow_low_quality=low_quality
    )
    theirs = Matcher(0.7, 0.3, allow_low_quality_matches=low_quality)(iou)
    # torchvision keeps the best object of a box, not the object whose best box it is.
    forced = (iou == iou.amax(dim=1, keepdim=True)).any(dim=0)
    assert torch.equal(ours[~forced], theirs[~forced])
    assert torch.equal(ours >= 0, theirs >= 0)


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 7, 20])
def test_matching_in_chunks_equals_matching_at_once(low_quality: bool, rows: int) -> None:
    iou = torch.rand(20, 300, generator=torch.Generator().manual_seed(rows)) ** 4
    options: dict[str, Any] = {
        "fg_threshold": 0.7, "bg_threshold": 0.3, "allow_low_quality": low_quality
    }  # fmt: skip
    at_once = match_by_iou(iou, truth(20, (3, 8)), **options)
    assert torch.equal(match_by_iou(iou.split(rows), truth(20, (3, 8)), **options), at_once)
    # independently: the best object of a box, unless it is the best box of an object
    value, index = iou.numpy().max(0), iou.numpy().argmax(0)
    expected = np.where(value >= 0.7, index, np.where(value >= 0.3, IGNORE_BOX, BACKGROUND))
    if low_quality:
        best = iou.numpy() * (iou.numpy() == iou.numpy().max(1, keepdims=True))
        expected = np.where(best.max(0) > 0, best.argmax(0), expected)
    expected[np.isin(expected, (3, 8))] = IGNORE_BOX
    np.testing.assert_array_equal(at_once.numpy(), expected)


def test_chunks_bound_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assigner, "PAIRS_PER_CHUNK", 100)
    objects, boxes = torch.rand(17, 4), torch.rand(30, 4)
    objects[:, 2:] += 1
    boxes[:, 2:] += 1
    chunks = list(iou_chunks(box_iou, objects, boxes))
    assert max(chunk.numel() for chunk in chunks) <= 100
    assert torch.equal(torch.cat(chunks), box_iou(objects, boxes))
    assert [chunk.shape for chunk in iou_chunks(box_iou, objects[:0], boxes)] == [(0, 30)]


def test_points_are_assigned_in_chunks_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    corners = 60 * torch.rand(25, 2, generator=generator)
    sides = 2 + 30 * torch.rand(25, 2, generator=generator)
    boxes = torch.cat([corners, corners + sides], 1)
    rotated = torch.cat([corners + sides / 2, sides, torch.rand(25, 1, generator=generator)], 1)
    counted = torch.ones(25, dtype=torch.bool)
    [points] = grid_centers([torch.zeros(1, 1, 8, 8)], [8.0])
    grid = FcosGrid(points, torch.full((64,), 8.0), torch.zeros(64), torch.full((64,), 64.0))
    for objects in (boxes, rotated):
        target = GroundTruth(objects, torch.arange(25), counted)
        at_once = assign_targets(target, grid)
        assert (at_once[0] >= 0).sum() > 10
        with monkeypatch.context() as patch:
            patch.setattr(assigner, "PAIRS_PER_CHUNK", 64 * 4)
            for ours, expected in zip(assign_targets(target, grid), at_once, strict=True):
                assert torch.equal(ours, expected)


def test_low_quality_matches_give_every_object_its_best_box() -> None:
    iou = torch.tensor([[0.1, 0.2, 0.0], [0.9, 0.1, 0.0]])
    match = match_by_iou(iou, truth(2), fg_threshold=0.7, bg_threshold=0.3, allow_low_quality=True)
    assert match.tolist() == [1, 0, BACKGROUND]


def test_boxes_of_uncounted_objects_are_ignored() -> None:
    iou = torch.tensor([[0.9, 0.0, 0.5], [0.0, 0.8, 0.0]])
    match = match_by_iou(
        iou, truth(2, (0,)), fg_threshold=0.7, bg_threshold=0.3, allow_low_quality=False
    )
    assert match.tolist() == [IGNORE_BOX, 1, IGNORE_BOX]


def test_all_boxes_are_background_without_objects() -> None:
    match = match_by_iou(
        torch.zeros(0, 5), truth(0), fg_threshold=0.5, bg_threshold=0.5, allow_low_quality=True
    )
    assert match.tolist() == [BACKGROUND] * 5
    boxes, classes = truth(0).gather(match)
    assert boxes.shape == (5, 4) and classes.shape == (5,)


def test_sample_limits_positives_and_fills_up_with_negatives() -> None:
    match = torch.tensor([0] * 40 + [BACKGROUND] * 100 + [IGNORE_BOX] * 30)
    index, valid = sample_proposals(match, 64, 0.25)
    assert valid.all() and len(index.unique()) == 64
    assert (match[index] >= 0).sum() == 16 and (match[index] == BACKGROUND).sum() == 48


def test_sample_marks_missing_boxes_as_invalid() -> None:
    match = torch.tensor([1] * 3 + [BACKGROUND] * 5 + [IGNORE_BOX] * 30)
    index, valid = sample_proposals(match, 20, 0.5)
    assert len(index) == 20 and valid.sum() == 8
    assert (match[index[valid]] != IGNORE_BOX).all()
    index, valid = sample_proposals(match, 100, 0.5)
    assert len(index) == len(match) and valid.sum() == 8
