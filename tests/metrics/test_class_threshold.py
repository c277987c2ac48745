"""The threshold of a rare class compared with trying every threshold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geotune.metrics.class_threshold import STEPS, RareClass
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


def iou(threshold: float) -> float:
    """Of ships, by counting."""
    logits, masks = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    known = masks != IGNORE
    found = (logits.softmax(dim=1)[:, 2] >= threshold)[known]
    truth = (masks == 2)[known]
    return float((found & truth).sum() / (found | truth).sum())


def test_best_threshold_equals_a_search() -> None:
    task = make_task("segment", classes=NAMES).with_class_counts([900, 700, 50])
    assert task.rare == RareClass(2)
    metrics = task.metrics()
    for logits, masks in batches():
        metrics.update(logits, masks)
    chosen = metrics.details()["class_threshold"]
    searched = [iou(step / STEPS) for step in range(1, STEPS)]
    assert chosen["class"] == "ship"
    assert chosen["iou"] == pytest.approx(max(searched))
    assert chosen["threshold"] == pytest.approx((1 + int(np.argmax(searched))) / STEPS)
    assert chosen["iou_most_likely"] == metrics.compute()["iou/ship"] < chosen["iou"]
    metrics.reset()
    assert "class_threshold" not in metrics.details()


def test_another_split_is_scored_at_the_chosen_threshold() -> None:
    task = make_task("segment", classes=NAMES).with_rare_class(RareClass(2, 0.3))
    metrics = task.metrics()
    for logits, masks in batches():
        metrics.update(logits, masks)
    found = metrics.details()["class_threshold"]
    assert found["threshold"] == 0.3
    assert found["iou"] == pytest.approx(iou(0.3))


@pytest.mark.parametrize("counts", [[5, 0, 0], [0, 0, 0], []])
def test_no_class_is_rare_without_others(counts: list[int]) -> None:
    assert make_task("segment", classes=NAMES).with_class_counts(counts).rare is None
