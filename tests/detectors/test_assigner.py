"""Assignment of objects to boxes, and sampling."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection._utils import Matcher

from geotune.detectors.assigner import (
    BACKGROUND,
    IGNORE_BOX,
    GroundTruth,
    match_by_iou,
    sample_proposals,
)


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
