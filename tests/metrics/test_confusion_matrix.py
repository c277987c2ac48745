"""Segmentation metrics compared with direct counting in numpy and with torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor
from torchmetrics.functional.classification import multiclass_f1_score, multiclass_jaccard_index

from geotune.types import IGNORE
from helpers.components import make_task

NAMES = ["background", "water", "field", "cloud"]


def as_logits(predicted: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(predicted, len(NAMES)).movedim(-1, 1).float()


def count_directly(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    counted = truth != IGNORE
    predicted, truth = predicted[counted], truth[counted]
    ious, f1s = [], []
    for k in range(len(NAMES)):
        hits = int(np.sum((predicted == k) & (truth == k)))
        either = int(np.sum((predicted == k) | (truth == k)))
        ious.append(hits / either if either else math.nan)
        f1s.append(2 * hits / (either + hits) if either else math.nan)
    present = [i for i, value in enumerate(ious) if not math.isnan(value)]
    values = {
        "miou": sum(ious[i] for i in present) / len(present) if present else math.nan,
        "f1": sum(f1s[i] for i in present) / len(present) if present else math.nan,
        "accuracy": float(np.mean(predicted == truth)) if truth.size else math.nan,
    }
    values |= {f"iou/{name}": value for name, value in zip(NAMES, ious, strict=True)}
    return values | {f"f1/{name}": value for name, value in zip(NAMES, f1s, strict=True)}


classes = st.integers(0, len(NAMES) - 1)
shape = (3, 2, 4)


@settings(deadline=None, max_examples=60)
@given(
    predicted=arrays(np.int64, shape, elements=classes),
    truth=arrays(np.int64, shape, elements=st.one_of(classes, st.just(IGNORE))),
)
def test_metrics_equal_direct_counting(predicted: np.ndarray, truth: np.ndarray) -> None:
    metrics = make_task("segment", classes=NAMES).metrics()
    # Batches of unequal size: metrics are computed over all pixels, not averaged over batches.
    for part in (slice(0, 1), slice(1, 3)):
        metrics.update(as_logits(torch.tensor(predicted[part])), torch.tensor(truth[part]))
    expected = count_directly(predicted, truth)
    assert list(metrics.compute()) == list(expected)
    assert metrics.compute() == pytest.approx(expected, nan_ok=True)
    matrix = np.zeros((4, 4), dtype=int)
    for t, p in zip(truth.flat, predicted.flat, strict=True):
        if t != IGNORE:
            matrix[t, p] += 1
    assert metrics.details()["confusion"] == matrix.tolist()


def test_metrics_equal_torchmetrics_if_every_class_is_present() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randint(4, (2, 16, 16), generator=generator)
    truth = torch.randint(4, (2, 16, 16), generator=generator)
    truth[0, :3] = IGNORE
    metrics = make_task("segment", classes=NAMES).metrics()
    metrics.update(as_logits(predicted), truth)
    values = metrics.compute()
    jaccard = multiclass_jaccard_index(predicted, truth, 4, ignore_index=IGNORE)
    f1 = multiclass_f1_score(predicted, truth, 4, ignore_index=IGNORE, average="none")
    assert values["miou"] == pytest.approx(jaccard.item())
    assert [values[f"f1/{name}"] for name in NAMES] == pytest.approx(f1.tolist())


def test_absent_class_is_nan_and_left_out_of_the_mean() -> None:
    metrics = make_task("segment", classes=NAMES).metrics()
    metrics.update(as_logits(torch.tensor([[[0, 1]]])), torch.tensor([[[0, 1]]]))
    values = metrics.compute()
    assert math.isnan(values["iou/cloud"]) and math.isnan(values["f1/cloud"])
    assert values["miou"] == values["f1"] == 1
    # A false positive makes the class count.
    metrics.update(as_logits(torch.tensor([[[3]]])), torch.tensor([[[0]]]))
    values = metrics.compute()
    assert values["iou/cloud"] == 0 and values["miou"] == pytest.approx((0.5 + 1 + 0) / 3)


def test_reset_clears_and_metrics_without_pixels_are_nan() -> None:
    metrics = make_task("segment", classes=NAMES).metrics()
    metrics.update(as_logits(torch.tensor([[[0, 1]]])), torch.tensor([[[0, 0]]]))
    metrics.reset()
    metrics.update(as_logits(torch.tensor([[[0, 1]]])), torch.full((1, 1, 2), IGNORE))
    assert all(math.isnan(value) for value in metrics.compute().values())
    assert sum(map(sum, metrics.details()["confusion"])) == 0


def test_processes_add_their_confusion_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [make_task("segment", classes=NAMES).metrics() for _ in range(2)]
    whole = make_task("segment", classes=NAMES).metrics()
    generator = torch.Generator().manual_seed(1)
    for size, part in zip((3, 8), parts, strict=True):
        predicted = torch.randint(4, (1, size, size), generator=generator)
        truth = torch.randint(4, (1, size, size), generator=generator)
        part.update(as_logits(predicted), truth)
        whole.update(as_logits(predicted), truth)
    expected = whole.details(), whole.compute()
    monkeypatch.setattr(
        "geotune.metrics.state.all_gather", lambda _: [part.state() for part in parts]
    )
    assert (parts[0].details(), parts[1].compute()) == expected
    assert not whole.state_dict(), "metrics must not appear in checkpoints"
