"""Classification of images: losses by hand, metrics against their definitions."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from geotune.config.task_options import Classify as ClassifySection
from geotune.config.task_options import Density as DensitySection
from geotune.config.task_options import Regress as RegressSection
from geotune.errors import GeotuneError
from geotune.tasks.base import Task
from geotune.tasks.classify import Classify
from geotune.tasks.registry import TASKS

NAMES = ["forest", "river", "town", "never"]


def batch(several: bool) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 4, generator=rng)
    if several:
        labels = (torch.rand(40, 4, generator=rng) < 0.4).float()
        labels[:, 3] = 0
        return logits + 2 * labels - 1, labels
    labels = torch.randint(0, 3, (40,), generator=rng)
    logits[:, 3] -= 9
    return logits + F.one_hot(labels, 4), labels


def f1(truth: Any, found: Any) -> float:
    """The harmonic mean of precision and recall."""
    precision, recall = (truth & found).sum() / found.sum(), (truth & found).sum() / truth.sum()
    return float(2 * precision * recall / (precision + recall))


def average_precision(truth: Any, shares: Any) -> float:
    """The mean of the precision at each right image, the surest first."""
    right = truth[np.argsort(-shares)] > 0
    return float((right.cumsum() / np.arange(1, len(right) + 1))[right].mean())


def test_losses_by_hand() -> None:
    logits, labels = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    log_p = -math.log(1 + math.exp(-2)), -2 - math.log(1 + math.exp(-2))
    assert float(Classify(NAMES[:2]).loss(logits, labels)) == pytest.approx(-log_p[0])
    smooth = Classify(NAMES[:2], label_smoothing=0.2).loss(logits, labels)
    assert float(smooth) == pytest.approx(-0.9 * log_p[0] - 0.1 * log_p[1])
    several = Classify(NAMES[:2], [1.0, 3.0], multilabel=True)
    both = several.loss(logits, torch.tensor([[1.0, 0.0]]))
    assert float(both) == pytest.approx((-log_p[0] + 3 * math.log(2)) / 2)


def test_metrics_of_one_class() -> None:
    logits, labels = batch(several=False)
    task = Classify(NAMES)
    counter: Any = task.metrics()
    counter.update(logits[:15], labels[:15])
    counter.update(logits[15:], labels[15:])
    values, truth, found = counter.compute(), labels.numpy(), logits.argmax(1).numpy()
    assert tuple(values) == task.metric_names
    assert values["accuracy"] == pytest.approx((truth == found).mean())
    each = np.array([f1(truth == k, found == k) for k in range(3)])
    assert [values[f"f1/{name}"] for name in NAMES[:3]] == pytest.approx(each.tolist())
    assert values["f1"] == pytest.approx(each.mean()), "a class that never is has no part in it"
    assert math.isnan(values["f1/never"])
    matrix = [[((truth == r) & (found == c)).sum() for c in range(4)] for r in range(4)]
    assert counter.details()["confusion"] == matrix


def test_metrics_of_several_classes() -> None:
    logits, labels = batch(several=True)
    task = Classify(NAMES, multilabel=True)
    counter: Any = task.metrics()
    counter.update(logits[:15], labels[:15])
    counter.update(logits[15:], labels[15:])
    values, shares = counter.compute(), logits.sigmoid().numpy()
    truth, found = labels.numpy(), shares > 0.5
    assert set(values) == set(task.metric_names)
    each = [average_precision(truth[:, k], shares[:, k]) for k in range(3)]
    assert [values[f"ap/{name}"] for name in NAMES[:3]] == pytest.approx(each, abs=1e-5)
    assert values["ap"] == pytest.approx(np.mean(each), abs=1e-5)
    each = [f1(truth[:, k] > 0, found[:, k]) for k in range(3)]
    assert [values[f"f1/{name}"] for name in NAMES[:3]] == pytest.approx(each)
    assert values["accuracy"] == pytest.approx((truth == found).mean())
    (right_no, wrong_yes), (wrong_no, right_yes) = counter.details()["decisions"][0]
    assert (
        right_yes + wrong_no == truth[:, 0].sum()
        and wrong_yes == (found & (truth == 0))[:, 0].sum()
    )
    assert right_no + wrong_yes + wrong_no + right_yes == 40


def test_answers_rows_and_scores() -> None:
    logits = torch.tensor([[2.0, 0.0, -2.0]])
    one, several = Classify(NAMES[:3]), Classify(NAMES[:3], multilabel=True)
    shares = one.answers(logits.bfloat16())
    assert shares.dtype == torch.float32 and float(shares.sum()) == pytest.approx(1)
    [row] = one.rows(shares)
    assert row["label"] == "forest" and list(row) == ["label", *NAMES[:3]]
    assert one.score(logits, torch.tensor([1])) == pytest.approx(float(shares[0, 1]))
    assert several.rows(several.answers(logits + 0.1))[0]["labels"] == "forest;river"
    assert several.rows(several.answers(logits - 9))[0]["labels"] == ""
    score = several.score(logits, torch.tensor([[1.0, 0.0, 0.0]]))
    assert score == pytest.approx((0.8808 + 0.5 + 0.8808) / 3, abs=1e-3)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(GeotuneError, match="at least 2"):
        Classify(["one"])
    with pytest.raises(GeotuneError, match="3 values for 2 classes"):
        Classify(["a", "b"], [1, 2, 3])


@pytest.mark.parametrize("section", [ClassifySection, RegressSection, DensitySection])
def test_a_section_has_the_names_and_defaults_of_its_task(section: Any) -> None:
    fields = {k: f for k, f in section.model_fields.items() if k != "kind"}
    parameters = inspect.signature(TASKS[section.model_fields["kind"].default]).parameters
    assert set(parameters) == set(fields)
    for name, field in fields.items():
        if not field.is_required():
            assert parameters[name].default == field.default, name


@pytest.mark.parametrize(
    ("task", "shape"),
    [
        (Classify(NAMES), (2, 4)),
        (Classify(NAMES, multilabel=True), (2, 4)),
        (TASKS["regress"](), (2, 1, 16, 16)),
        (TASKS["regress"](level="image"), (2, 1)),
        (TASKS["density"](), (2, 1, 16, 16)),
        (TASKS["segment"](NAMES), (2, 4, 16, 16)),
    ],
)
def test_every_task_keeps_its_contract_on_its_own_example(
    task: Task, shape: tuple[int, ...]
) -> None:
    """One window's share of outputs and targets has a score, a loss and metrics."""
    example = task.example(16)
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
    assert task.answers(outputs.detach()).shape[0] == 2
    if task.product == "table":
        rows = task.rows(task.answers(outputs.detach()))  # type: ignore[attr-defined]
        assert len(rows) == 2
