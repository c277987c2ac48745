"""Image classification: losses by hand, metrics compared with their definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from geotune.tasks.base import Task
from helpers.components import make_task

NAMES = ["forest", "river", "town", "never"]


def batch(multilabel: bool) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 4, generator=rng)
    if multilabel:
        labels = (torch.rand(40, 4, generator=rng) < 0.4).float()
        labels[:, 3] = 0
        return logits + 2 * labels - 1, labels
    labels = torch.randint(0, 3, (40,), generator=rng)
    logits[:, 3] -= 9
    return logits + F.one_hot(labels, 4), labels


def f1(truth: Any, predicted: Any) -> float:
    """The harmonic mean of precision and recall."""
    hits = (truth & predicted).sum()
    precision, recall = hits / predicted.sum(), hits / truth.sum()
    return float(2 * precision * recall / (precision + recall))


def average_precision(truth: Any, probs: Any) -> float:
    """The mean of the precision at each positive, in order of descending probability."""
    positive = truth[np.argsort(-probs)] > 0
    precision = positive.cumsum() / np.arange(1, len(positive) + 1)
    return float(precision[positive].mean())


def test_losses_by_hand() -> None:
    logits, labels = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    log_p = -math.log(1 + math.exp(-2)), -2 - math.log(1 + math.exp(-2))
    assert float(make_task("classify", classes=NAMES[:2]).loss(logits, labels)) == pytest.approx(
        -log_p[0]
    )
    smooth = make_task("classify", classes=NAMES[:2], label_smoothing=0.2).loss(logits, labels)
    assert float(smooth) == pytest.approx(-0.9 * log_p[0] - 0.1 * log_p[1])
    multilabel = make_task("classify", classes=NAMES[:2], class_weights=[1.0, 3.0], multilabel=True)
    both = multilabel.loss(logits, torch.tensor([[1.0, 0.0]]))
    assert float(both) == pytest.approx((-log_p[0] + 3 * math.log(2)) / 2)


def test_multiclass_metrics_equal_their_definitions() -> None:
    logits, labels = batch(multilabel=False)
    task = make_task("classify", classes=NAMES)
    metrics: Any = task.metrics()
    metrics.update(logits[:15], labels[:15])
    metrics.update(logits[15:], labels[15:])
    values, truth, predicted = metrics.compute(), labels.numpy(), logits.argmax(1).numpy()
    assert tuple(values) == task.metric_names
    assert values["accuracy"] == pytest.approx((truth == predicted).mean())
    each = np.array([f1(truth == k, predicted == k) for k in range(3)])
    assert [values[f"f1/{name}"] for name in NAMES[:3]] == pytest.approx(each.tolist())
    assert values["f1"] == pytest.approx(each.mean()), "absent classes are left out of the mean"
    assert math.isnan(values["f1/never"])
    matrix = [[((truth == r) & (predicted == c)).sum() for c in range(4)] for r in range(4)]
    assert metrics.details()["confusion"] == matrix


def test_multilabel_metrics_equal_their_definitions() -> None:
    logits, labels = batch(multilabel=True)
    task = make_task("classify", classes=NAMES, multilabel=True)
    metrics: Any = task.metrics()
    metrics.update(logits[:15], labels[:15])
    metrics.update(logits[15:], labels[15:])
    values, probs = metrics.compute(), logits.sigmoid().numpy()
    truth, predicted = labels.numpy(), probs > 0.5
    assert set(values) == set(task.metric_names)
    each = [average_precision(truth[:, k], probs[:, k]) for k in range(3)]
    assert [values[f"ap/{name}"] for name in NAMES[:3]] == pytest.approx(each, abs=1e-5)
    assert values["ap"] == pytest.approx(np.mean(each), abs=1e-5)
    each = [f1(truth[:, k] > 0, predicted[:, k]) for k in range(3)]
    assert [values[f"f1/{name}"] for name in NAMES[:3]] == pytest.approx(each)
    assert values["accuracy"] == pytest.approx((truth == predicted).mean())
    (tn, fp), (fn, tp) = metrics.details()["decisions"][0]
    assert tp + fn == truth[:, 0].sum() and fp == (predicted & (truth == 0))[:, 0].sum()
    assert tn + fp + fn + tp == 40


def test_postprocess_rows_and_score() -> None:
    logits = torch.tensor([[2.0, 0.0, -2.0]])
    multiclass, multilabel = (
        make_task("classify", classes=NAMES[:3]),
        make_task("classify", classes=NAMES[:3], multilabel=True),
    )
    probs = multiclass.postprocess(logits.bfloat16())
    assert probs.dtype == torch.float32 and float(probs.sum()) == pytest.approx(1)
    [row] = multiclass.rows(probs)
    assert row["label"] == "forest" and list(row) == ["label", *NAMES[:3]]
    assert multiclass.score(logits, torch.tensor([1])) == pytest.approx(float(probs[0, 1]))
    assert multilabel.rows(multilabel.postprocess(logits + 0.1))[0]["labels"] == "forest;river"
    assert multilabel.rows(multilabel.postprocess(logits - 9))[0]["labels"] == ""
    score = multilabel.score(logits, torch.tensor([[1.0, 0.0, 0.0]]))
    assert score == pytest.approx((0.8808 + 0.5 + 0.8808) / 3, abs=1e-3)


def test_wrong_number_of_classes_or_weights_is_an_error() -> None:
    with pytest.raises(ValidationError, match="at least 2 items"):
        make_task("classify", classes=["one"])
    with pytest.raises(ValidationError, match=r"task\.class_weights|3 values for 2 classes"):
        make_task("classify", classes=["a", "b"], class_weights=[1, 2, 3])


@pytest.mark.parametrize(
    ("task", "shape"),
    [
        (make_task("classify", classes=NAMES), (2, 4)),
        (make_task("classify", classes=NAMES, multilabel=True), (2, 4)),
        (make_task("regress"), (2, 1, 16, 16)),
        (make_task("regress", level="image"), (2, 1)),
        (make_task("density"), (2, 1, 16, 16)),
        (make_task("segment", classes=NAMES), (2, 4, 16, 16)),
    ],
)
def test_task_contract_on_its_example_targets(task: Task, shape: tuple[int, ...]) -> None:
    """Loss, metrics, score and predictions for targets of the example's shape."""
    example = task.example_targets(16)
    targets = torch.cat([example, example])
    outputs = torch.randn(shape, requires_grad=True)
    assert shape[1] == task.num_outputs
    loss = task.loss(outputs, targets)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.shape == () and outputs.grad is not None and outputs.grad.abs().sum() > 0
    metrics = task.metrics()
    metrics.update(outputs.detach(), targets)
    assert set(metrics.compute()) == set(task.metric_names)
    assert task.main_metric in task.metric_names
    assert set(task.lower_is_better) <= set(task.metric_names)
    assert math.isfinite(task.score(outputs.detach()[:1], targets[:1]))
    assert len(task.predict(outputs.detach())) == 2
    assert task.postprocess(outputs.detach()).shape[0] == 2
    if task.output_kind == "table":
        rows = task.rows(task.postprocess(outputs.detach()))  # type: ignore[attr-defined]
        assert len(rows) == 2
