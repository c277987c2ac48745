"""The detection task: loss, metrics and window scores."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geotune.boxes.oriented import as_oriented
from geotune.boxes.structures import Detections, DetectorOutput
from geotune.data.annotations.object_labels import ObjectLabels
from geotune.data.annotations.object_target import ObjectTarget
from geotune.data.raster.windows import grid_windows
from geotune.tasks.detect import CURVE_POINTS, Boxes
from helpers.components import make_task
from helpers.errors import raises

BOXES = torch.tensor([[2.0, 2.0, 12.0, 10.0], [20.0, 20.0, 30.0, 32.0]])


def target(boxes: Tensor = BOXES, difficult: bool = False) -> dict[str, Tensor]:
    count = len(boxes)
    return {
        "boxes": boxes,
        "labels": torch.zeros(count, dtype=torch.int64),
        "difficult": torch.full((count,), difficult),
    }


def output(boxes: Tensor = BOXES, scores: tuple[float, ...] = (0.9, 0.8)) -> DetectorOutput:
    classes = torch.zeros(len(boxes), dtype=torch.int64)
    return DetectorOutput({}, [Detections(boxes, torch.tensor(scores), classes)])


def test_loss_is_the_sum_of_the_detectors_losses_per_image_or_by_their_counts() -> None:
    losses = {"a": torch.tensor(3.0, requires_grad=True), "b": torch.tensor(4.0)}
    task = make_task("detect", classes=["ship"])
    loss = task.loss(DetectorOutput(losses, ()), [target(), target()])
    assert loss == 3.5 and loss.requires_grad
    counts = {"a": torch.tensor(6), "b": torch.tensor(1)}
    assert task.loss(DetectorOutput(losses, (), lambda _: counts), [target(), target()]) == 4.5


def test_metrics_and_details_of_boxes() -> None:
    task = make_task("detect", classes=["ship", "plane"])
    metrics = task.metrics()
    metrics.update(output(), [target()])
    values = metrics.compute()
    assert set(values) == set(task.metric_names) and task.main_metric in values
    assert values["ap50"] == 1 and math.isnan(values["ap50/plane"])
    details = metrics.details()
    assert details["counts"]["ship"] == {"true": 2, "false": 0, "missed": 0}
    assert details["counts"]["plane"] == {"true": 0, "false": 0, "missed": 0}
    assert details["threshold"] == {"ship": pytest.approx(0.8), "plane": None}
    assert details["curve"]["plane"] == {"recall": [], "precision": []}
    metrics.reset()
    assert math.isnan(metrics.compute()["ap50"])


def test_long_curve_is_subsampled() -> None:
    metrics = make_task("detect", classes=["ship"]).metrics()
    many = BOXES[:1].repeat(1000, 1) + torch.arange(1000)[:, None]
    metrics.update(output(many, tuple((torch.arange(1000) / 1000).tolist())), [target()])
    curve = metrics.details()["curve"]["ship"]
    assert len(curve["recall"]) == len(curve["precision"]) == CURVE_POINTS
    assert curve["recall"][-1] == pytest.approx(1.0)


def test_window_score_uses_its_best_threshold() -> None:
    task = make_task("detect", classes=["ship"])
    extra = torch.cat([BOXES, BOXES + 50])
    assert task.score(output(extra, (0.9, 0.8, 0.1, 0.2)), [target()]) == 1
    assert task.score(output(BOXES + 50), [target()]) == 0
    empty = target(BOXES[:0])
    assert task.score(output(), [empty]) == 0
    assert math.isnan(task.score(output(scores=(0.1, 0.2)), [empty]))
    assert math.isnan(task.score(output(BOXES[:0], ()), [target(difficult=True)]))


def test_points_are_matched_by_box_centres_in_metres() -> None:
    task = make_task("detect", classes=["tree"], boxes="points", match_radius_m=3.0, pixel_m=0.5)
    assert task.main_metric == "f1"
    metrics = task.metrics()
    metrics.update(output(BOXES + torch.tensor([5.0, 0.0, 5.0, 0.0])), [target()])
    values = metrics.compute()
    assert values["f1"] == 1 and values["rmse_m"] == pytest.approx(2.5)
    assert metrics.details()["radius_px"] == 6
    assert task.score(output(BOXES + 5), [target()]) == 0


@pytest.mark.parametrize("boxes", ["horizontal", "points"])
def test_given_score_threshold_is_used(boxes: Boxes) -> None:
    task = make_task("detect", classes=["ship"], boxes=boxes, pixel_m=1.0)
    validation, test = task.metrics(), task.with_score_threshold({"ship": 0.5}).metrics()
    for metrics in (validation, test):  # one correct detection, below the given threshold
        metrics.update(output(BOXES[:1], (0.3,)), [target(BOXES[:1])])
    assert validation.details()["threshold"]["ship"] < 0.5 == test.details()["threshold"]["ship"]
    if boxes == "points":
        assert (validation.compute()["f1"], test.compute()["f1"]) == (1, 0)
    else:
        assert validation.details()["counts"]["ship"] == {"true": 1, "false": 0, "missed": 0}
        assert test.details()["counts"]["ship"] == {"true": 0, "false": 0, "missed": 1}
        assert validation.compute()["ap50"] == test.compute()["ap50"] == 1


def test_points_without_pixel_size_are_an_error() -> None:
    with raises("pixel-size-missing", key="task.pixel_m"):
        make_task("detect", classes=["tree"], boxes="points").metrics()


def test_predict_returns_rows_of_box_score_and_class() -> None:
    [rows] = make_task("detect", classes=["ship"]).predict(output())
    assert rows.shape == (2, 6) and rows[0].tolist() == pytest.approx([2, 2, 12, 10, 0.9, 0])


@pytest.mark.parametrize(("boxes", "columns"), [("horizontal", 4), ("oriented", 5), ("points", 4)])
def test_example_targets_have_the_types_of_a_batch(boxes: str, columns: int) -> None:
    [one] = make_task("detect", classes=["ship"], boxes=boxes).example_targets(64)  # type: ignore[arg-type]
    assert one["boxes"].shape[1] == columns and one["boxes"].dtype == torch.float32
    assert one["labels"].dtype == torch.int64 and one["difficult"].dtype == torch.bool


# ---------------------------------------------------------------- windows of a scene
@pytest.mark.parametrize("oriented", [False, True])
@pytest.mark.parametrize("reported", ["counted", "centre visible", "any part visible"])
@given(seed=st.integers(0, 999))
@settings(max_examples=10, deadline=None)
def test_perfect_detections_score_one_on_the_windows_of_a_grid(
    oriented: bool, reported: str, seed: int
) -> None:
    """Objects cut by the grid are neither errors nor missed, whether they are reported or not."""
    rng = np.random.default_rng(seed)
    size, window, count = (192, 128), 64, 40
    low = rng.uniform(-3, 125, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(2, 40, (count, 2))], axis=1)
    labels = ObjectLabels(
        path=Path("labels"),
        classes=("ship",),
        shape=size,
        boxes=as_oriented(boxes) if oriented else boxes,
        indices=np.zeros(count, dtype=np.int64),
        difficult=rng.random(count) < 0.1,
        min_visibility=0.5,
        overlaps=True,
    )
    metrics = make_task(
        "detect", classes=["ship"], boxes="oriented" if oriented else "horizontal"
    ).metrics()
    counted = 0
    for area in grid_windows(size, window):
        target = labels.read(area)
        kept = {
            "counted": target.counted,
            "centre visible": target.visible_fraction > 0,
            "any part visible": np.ones(len(target.boxes), dtype=bool),
        }[reported]
        targets = ObjectTarget.stack([target])
        detections = Detections(
            targets[0]["boxes"][kept], torch.ones(int(kept.sum())), targets[0]["labels"][kept]
        )
        metrics.update(DetectorOutput({}, [detections]), targets)
        counted += int(target.counted.sum())
    assert counted == int((~labels.difficult).sum()) - labels.num_uncounted(window)
    assert metrics.compute()["ap"] == pytest.approx(1.0)
