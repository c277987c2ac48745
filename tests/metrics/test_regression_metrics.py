"""Regression and counting: losses, metrics compared with numpy, and invariance to units."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geotune.metrics.regression_metrics import (
    LOSSES,
    MAX_PAIRS,
    PairReservoir,
    ValueMetrics,
    regression_loss_sum,
)
from helpers.components import make_task

NAN = math.nan


def batch(seed: int = 0, mean: float = 0.0, std: float = 1.0) -> tuple[Tensor, Tensor]:
    """Standardised outputs `(4, 1, 8, 8)` and labels `(4, 8, 8)`, some of them NaN."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randn(4, 8, 8, generator=rng)
    outputs = labels.unsqueeze(1) + 0.3 * torch.randn(4, 1, 8, 8, generator=rng) + 0.1
    labels = labels * std + mean
    labels[torch.rand(labels.shape, generator=rng) < 0.2] = NAN
    return outputs, labels


@pytest.mark.parametrize("kind", LOSSES)
def test_nan_labels_add_neither_loss_nor_gradient(kind: str) -> None:
    outputs, labels = batch()
    x = outputs.squeeze(1).clone().requires_grad_()
    loss = regression_loss_sum(kind, x, labels)
    loss.backward()
    counted = ~torch.isnan(labels)
    expected = LOSSES[kind](outputs.squeeze(1)[counted], labels[counted], reduction="sum")
    torch.testing.assert_close(loss, expected)
    assert x.grad is not None and (x.grad[~counted] == 0).all() and x.grad.isfinite().all()


def test_losses_by_hand() -> None:
    outputs, labels = torch.tensor([0.0, 0.5, 3.0]), torch.tensor([0.0, 0.0, 0.0])
    assert float(regression_loss_sum("l1", outputs, labels)) == pytest.approx(3.5)
    assert float(regression_loss_sum("l2", outputs, labels)) == pytest.approx(9.25)
    assert float(regression_loss_sum("huber", outputs, labels)) == pytest.approx(0.125 + 2.5)


def test_loss_without_labels_is_zero_with_a_graph() -> None:
    x = torch.randn(1, 1, 4, 4, requires_grad=True)
    for task in (make_task("regress"), make_task("density")):
        loss = task.loss(x, torch.full((1, 4, 4), NAN))
        assert float(loss) == 0 and loss.requires_grad
        assert math.isnan(task.score(x.detach(), torch.full((1, 4, 4), NAN)))


@settings(max_examples=20, deadline=None)
@given(mean=st.floats(-300, 300), std=st.floats(0.01, 1000), seed=st.integers(0, 9))
def test_loss_is_independent_of_the_unit_and_metrics_scale_with_it(
    mean: float, std: float, seed: int
) -> None:
    plain, (outputs, labels) = make_task("regress"), batch(seed)
    task, (_, scaled) = make_task("regress", mean=mean, std=std), batch(seed, mean, std)
    torch.testing.assert_close(
        task.loss(outputs, scaled), plain.loss(outputs, labels), rtol=1e-2, atol=1e-3
    )
    one, two = plain.metrics(), task.metrics()
    one.update(outputs, labels)
    two.update(outputs, scaled)
    here, there = one.compute(), two.compute()
    assert there["r2"] == pytest.approx(here["r2"], abs=0.02)
    for name in ("rmse", "mae", "bias"):
        assert there[name] == pytest.approx(here[name] * std, rel=0.05, abs=0.02 * std)


def test_metrics_equal_numpy_over_all_batches() -> None:
    task = make_task("regress", mean=290.0, std=5.0)
    metrics, result, known = task.metrics(), [], []
    for seed in range(5):
        outputs, labels = batch(seed, 290.0, 5.0)
        metrics.update(outputs[: seed + 1], labels[: seed + 1])
        counted = ~torch.isnan(labels[: seed + 1])
        result.append(task.predict(outputs[: seed + 1])[counted].double().numpy())
        known.append(labels[: seed + 1][counted].double().numpy())
    y, p = np.concatenate(known), np.concatenate(result)
    values = metrics.compute()
    assert tuple(values) == task.metric_names
    assert values["rmse"] == pytest.approx(np.sqrt(((p - y) ** 2).mean()), rel=1e-5)
    assert values["mae"] == pytest.approx(np.abs(p - y).mean(), rel=1e-5)
    assert values["bias"] == pytest.approx((p - y).mean(), rel=1e-4)
    r2 = 1 - ((p - y) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert values["r2"] == pytest.approx(r2, rel=1e-5)
    metrics.reset()
    assert all(math.isnan(value) for value in metrics.compute().values())
    assert metrics.details() == {"pairs": []}


def test_r2_of_one_value_is_nan() -> None:
    metrics = ValueMetrics()
    metrics.update(torch.tensor([2.0]), torch.tensor([1.0]))
    values = metrics.compute()
    assert math.isnan(values["r2"]) and values["mae"] == values["bias"] == 1


def test_image_level_regression_returns_table_rows() -> None:
    task = make_task("regress", level="image", quantity="height", unit="m", mean=10.0, std=2.0)
    answers = task.postprocess(torch.tensor([[0.0], [1.5]]))
    assert task.rows(answers) == [{"height": 10.0}, {"height": 13.0}]
    assert task.score(torch.tensor([[1.5]]), torch.tensor([12.0])) == -1
    assert task.output_kind == "table" and make_task("regress").output_kind == "values"


def test_pair_reservoir_is_a_uniform_sample() -> None:
    pairs = PairReservoir()
    for start in range(0, 50_000, 500):
        x = torch.arange(start, start + 500).float()
        pairs.add(x, x + 1)
    kept = pairs.kept
    assert kept.shape == (MAX_PAIRS, 2) and (kept[:, 1] - kept[:, 0] == 1).all()
    assert len(kept[:, 0].unique()) == MAX_PAIRS
    shares = torch.histc(kept[:, 0], 5, 0, 50_000) / MAX_PAIRS
    assert ((shares - 0.2).abs() < 0.04).all()


# ---------------------------------------------------------------- counts
def test_counts_by_hand() -> None:
    task = make_task("density", objects="trees", std=0.5)
    densities = torch.tensor([[[1.0, 2.0], [0.0, NAN]], [[0.0, 0.0], [0.0, 0.0]]])
    outputs = torch.tensor([[[[2.0, 2.0], [1.0, 90.0]]], [[[1.0, 0.0], [0.0, -3.0]]]])
    metrics = task.metrics()
    metrics.update(outputs, densities)
    metrics.update(outputs[:1], torch.full((1, 2, 2), NAN))
    values = metrics.compute()
    # predicted 2.5 and -1, labelled 3 and 0; nodata is left out
    assert values == pytest.approx(
        {
            "mae": 0.75,
            "rmse": math.sqrt((0.25 + 1) / 2),
            "bias": -0.75,
            "relative": 1.5 / 3,
            "counted": 1.5,
            "labelled": 3.0,
        }
    )
    assert tuple(values) == task.metric_names
    assert metrics.details()["pairs"] == [[3.0, 2.5], [0.0, -1.0]]
    assert task.score(outputs[:1], densities[:1]) == -0.5


def test_count_metrics_without_windows_are_nan() -> None:
    assert all(math.isnan(value) for value in make_task("density").metrics().compute().values())
