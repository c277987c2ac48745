"""The threshold of a rare class compared with trying every threshold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geotune.metrics.class_threshold import STEPS, RareClass, apply_thresholds
from geotune.types import IGNORE
from helpers.components import make_task

NAMES = ["background", "water", "ship"]


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(2, (6, 20, 20), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < 0.05] = 2
    logits = torch.randn(6, 3, 20, 20, generator=generator)
    logits[:, 2] += 2.0 * (masks == 2) - 1.5
    masks[torch.rand(masks.shape, generator=generator) < 0.1] = IGNORE
    return [(logits[:2], masks[:2]), (logits[2:], masks[2:])]


def iou(threshold: float, index: int = 2) -> float:
    """Of a class, by counting."""
    logits, masks = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    known = masks != IGNORE
    found = (logits.softmax(dim=1)[:, index] >= threshold)[known]
    truth = (masks == index)[known]
    return float((found & truth).sum() / (found | truth).sum())


def test_best_threshold_equals_a_search() -> None:
    task = make_task("segment", classes=NAMES).with_class_counts([900, 700, 50])
    assert task.rare == (RareClass(2), RareClass(1))
    metrics = task.metrics()
    for logits, masks in batches():
        metrics.update(logits, masks)
    found = metrics.details()["class_thresholds"]
    assert [chosen["class"] for chosen in found] == ["ship", "water"]
    for index, chosen in zip((2, 1), found, strict=True):
        searched = [iou(step / STEPS, index) for step in range(1, STEPS)]
        assert chosen["iou"] == pytest.approx(max(searched))
        assert chosen["threshold"] == pytest.approx((1 + int(np.argmax(searched))) / STEPS)
        assert chosen["iou_most_likely"] == metrics.compute()[f"iou/{chosen['class']}"]
    assert found[0]["iou_most_likely"] < found[0]["iou"]
    metrics.reset()
    assert metrics.details()["class_thresholds"] == []


def test_another_split_is_scored_at_the_chosen_threshold() -> None:
    task = make_task("segment", classes=NAMES).with_rare_classes([RareClass(2, 0.3)])
    metrics = task.metrics()
    for logits, masks in batches():
        metrics.update(logits, masks)
    (found,) = metrics.details()["class_thresholds"]
    assert found["threshold"] == 0.3
    assert found["iou"] == pytest.approx(iou(0.3))


@pytest.mark.parametrize("counts", [[5, 0, 0], [0, 0, 0], []])
def test_no_class_is_rare_without_others(counts: list[int]) -> None:
    assert make_task("segment", classes=NAMES).with_class_counts(counts).rare == ()


def test_of_several_classes_the_largest_multiple_of_its_threshold_wins() -> None:
    pixels = [[0.7, 0.2, 0.1], [0.55, 0.3, 0.15], [0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]
    probabilities = torch.tensor(pixels).T[:, None]

    def classes(thresholds: dict[int, float]) -> list[int]:
        return apply_thresholds(probabilities, thresholds)[0].tolist()

    assert classes({}) == [0, 0, 0, 2]
    assert classes({2: 0.15}) == [0, 2, 2, 2]
    assert classes({2: 0.15, 1: 0.2}) == [1, 1, 2, 2]  # 1.5 against 1.0, 1.25 against 1.67
    assert classes({0: 0.6}) == [0, 1, 1, 2]
    # Every class has one: nothing else is left where none is reached.
    assert classes({0: 0.9, 1: 0.5, 2: 0.5}) == [0, 0, 0, 2]
