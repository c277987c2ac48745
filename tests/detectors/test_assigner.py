"""Which boxes stand for which object, and which of them are learnt from."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection._utils import Matcher

from geotune.detectors.assigner import (
    BACKGROUND,
    NEITHER,
    GroundTruth,
    match_by_iou,
    sample_proposals,
)


def truth(objects: int, uncounted: tuple[int, ...] = ()) -> GroundTruth:
    counted = torch.ones(objects, dtype=torch.bool)
    counted[list(uncounted)] = False
    return GroundTruth(torch.zeros(objects, 4), torch.arange(objects), counted)


@pytest.mark.parametrize("best", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_boxes_are_matched_as_torchvision_matches_them(best: bool, seed: int) -> None:
    overlap = torch.rand(4, 50, generator=torch.Generator().manual_seed(seed))
    overlap[:, ::7] *= 0.2
    ours = match_by_iou(overlap, truth(4), least=0.7, none_below=0.3, best=best)
    theirs = Matcher(0.7, 0.3, allow_low_quality_matches=best)(overlap)
    # Where two objects are the reason, torchvision keeps the one that a box overlaps most.
    forced = (overlap == overlap.amax(dim=1, keepdim=True)).any(dim=0)
    assert torch.equal(ours[~forced], theirs[~forced])
    assert torch.equal(ours >= 0, theirs >= 0)


def test_every_object_has_its_best_box_where_that_is_asked() -> None:
    overlap = torch.tensor([[0.1, 0.2, 0.0], [0.9, 0.1, 0.0]])
    match = match_by_iou(overlap, truth(2), least=0.7, none_below=0.3, best=True)
    assert match.tolist() == [1, 0, BACKGROUND]


def test_what_stands_for_an_uncounted_object_is_neither() -> None:
    overlap = torch.tensor([[0.9, 0.0, 0.5], [0.0, 0.8, 0.0]])
    match = match_by_iou(overlap, truth(2, (0,)), least=0.7, none_below=0.3, best=False)
    assert match.tolist() == [NEITHER, 1, NEITHER]


def test_without_objects_everything_is_background() -> None:
    match = match_by_iou(torch.zeros(0, 5), truth(0), least=0.5, none_below=0.5, best=True)
    assert match.tolist() == [BACKGROUND] * 5
    boxes, classes = truth(0).gather(match)
    assert boxes.shape == (5, 4) and classes.shape == (5,)


def test_a_sample_has_at_most_its_share_of_positives_and_all_it_can_get_of_others() -> None:
    match = torch.tensor([0] * 40 + [BACKGROUND] * 100 + [NEITHER] * 30)
    index, counted = sample_proposals(match, 64, 0.25)
    assert counted.all() and len(index.unique()) == 64
    assert (match[index] >= 0).sum() == 16 and (match[index] == BACKGROUND).sum() == 48


def test_where_too_little_can_be_learnt_from_the_rest_does_not_count() -> None:
    match = torch.tensor([1] * 3 + [BACKGROUND] * 5 + [NEITHER] * 30)
    index, counted = sample_proposals(match, 20, 0.5)
    assert len(index) == 20 and counted.sum() == 8
    assert (match[index[counted]] != NEITHER).all()
    index, counted = sample_proposals(match, 100, 0.5)
    assert len(index) == len(match) and counted.sum() == 8
