"""The detection task: sums losses, counts what is found, scores windows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geotune.boxes.detector_output import DetectorOutput
from geotune.boxes.oriented import as_oriented
from geotune.boxes.structures import Detections
from geotune.data.annotations.object_labels import ObjectLabels
from geotune.data.annotations.object_target import ObjectTarget
from geotune.data.raster.windows import grid
from geotune.errors import GeotuneError
from geotune.tasks.detect import CURVE_POINTS, Boxes, Detect

BOXES = torch.tensor([[2.0, 2.0, 12.0, 10.0], [20.0, 20.0, 30.0, 32.0]])


def target(boxes: Tensor = BOXES, difficult: bool = False) -> dict[str, Tensor]:
    count = len(boxes)
    return {
        "boxes": boxes,
        "labels": torch.zeros(count, dtype=torch.int64),
        "difficult": torch.full((count,), difficult),
    }


def found(boxes: Tensor = BOXES, scores: tuple[float, ...] = (0.9, 0.8)) -> DetectorOutput:
    classes = torch.zeros(len(boxes), dtype=torch.int64)
    return DetectorOutput({}, [Detections(boxes, torch.tensor(scores), classes)])


def test_the_loss_is_the_sum_of_the_detectors_losses() -> None:
    losses = {"a": torch.tensor(1.5, requires_grad=True), "b": torch.tensor(2.0)}
    loss = Detect(["ship"]).loss(DetectorOutput(losses, ()), [])
    assert loss == 3.5 and loss.requires_grad


def test_what_is_found_counts() -> None:
    task = Detect(["ship", "plane"])
    metrics = task.metrics()
    metrics.update(found(), [target()])
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


def test_a_long_curve_is_thinned() -> None:
    metrics = Detect(["ship"]).metrics()
    many = BOXES[:1].repeat(1000, 1) + torch.arange(1000)[:, None]
    metrics.update(found(many, tuple((torch.arange(1000) / 1000).tolist())), [target()])
    curve = metrics.details()["curve"]["ship"]
    assert len(curve["recall"]) == len(curve["precision"]) == CURVE_POINTS
    assert curve["recall"][-1] == pytest.approx(1.0)


def test_a_window_is_scored_at_the_threshold_that_suits_it() -> None:
    task = Detect(["ship"])
    wrong = torch.cat([BOXES, BOXES + 50])
    assert task.score(found(wrong, (0.9, 0.8, 0.1, 0.2)), [target()]) == 1
    assert task.score(found(BOXES + 50), [target()]) == 0
    nothing = target(BOXES[:0])
    assert task.score(found(), [nothing]) == 0
    assert math.isnan(task.score(found(scores=(0.1, 0.2)), [nothing]))
    assert math.isnan(task.score(found(BOXES[:0], ()), [target(difficult=True)]))


def test_points_are_judged_in_metres_by_their_middles() -> None:
    task = Detect(["tree"], "points", match_radius_m=3.0, pixel_m=0.5)
    assert task.main_metric == "f1"
    metrics = task.metrics()
    metrics.update(found(BOXES + torch.tensor([5.0, 0.0, 5.0, 0.0])), [target()])
    values = metrics.compute()
    assert values["f1"] == 1 and values["rmse_m"] == pytest.approx(2.5)
    assert metrics.details()["radius_px"] == 6
    assert task.score(found(BOXES + 5), [target()]) == 0


@pytest.mark.parametrize("boxes", ["horizontal", "points"])
def test_a_test_counts_from_the_score_that_a_validation_chose(boxes: Boxes) -> None:
    task = Detect(["ship"], boxes, pixel_m=1.0)
    validation, test = task.metrics(), task.judged_from({"ship": 0.5}).metrics()
    for metrics in (validation, test):  # the right one has a score that was too low in validation
        metrics.update(found(BOXES[:1], (0.3,)), [target(BOXES[:1])])
    assert validation.details()["threshold"]["ship"] < 0.5 == test.details()["threshold"]["ship"]
    if boxes == "points":
        assert (validation.compute()["f1"], test.compute()["f1"]) == (1, 0)
    else:
        assert validation.details()["counts"]["ship"] == {"true": 1, "false": 0, "missed": 0}
        assert test.details()["counts"]["ship"] == {"true": 0, "false": 0, "missed": 1}
        assert validation.compute()["ap50"] == test.compute()["ap50"] == 1


def test_points_need_the_size_of_a_pixel() -> None:
    with pytest.raises(GeotuneError, match=r"task\.pixel_m"):
        Detect(["tree"], "points").metrics()


def test_windows_are_shown_as_rows_of_boxes() -> None:
    [rows] = Detect(["ship"]).predict(found())
    assert rows.shape == (2, 6) and rows[0].tolist() == pytest.approx([2, 2, 12, 10, 0.9, 0])


@pytest.mark.parametrize(("boxes", "columns"), [("horizontal", 4), ("oriented", 5), ("points", 4)])
def test_the_example_is_what_a_batch_holds(boxes: str, columns: int) -> None:
    [one] = Detect(["ship"], boxes).example(64)  # type: ignore[arg-type]
    assert one["boxes"].shape[1] == columns and one["boxes"].dtype == torch.float32
    assert one["labels"].dtype == torch.int64 and one["difficult"].dtype == torch.bool


# ---------------------------------------------------------------- windows of a scene
@pytest.mark.parametrize("oriented", [False, True])
@pytest.mark.parametrize("told", ["what counts", "all whose middle it sees", "all it sees"])
@given(seed=st.integers(0, 999))
@settings(max_examples=10, deadline=None)
def test_a_perfect_model_is_perfect_on_the_windows_of_a_grid(
    oriented: bool, told: str, seed: int
) -> None:
    """Whatever it tells of objects that the grid cuts is nowhere wrong, and nothing is missed."""
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
    metrics = Detect(["ship"], "oriented" if oriented else "horizontal").metrics()
    judged = 0
    for place in grid(size, window):
        target = labels.read(place)
        seen = {
            "what counts": target.counted,
            "all whose middle it sees": target.shown_share > 0,
            "all it sees": np.ones(len(target.boxes), dtype=bool),
        }[told]
        targets = ObjectTarget.stack([target])
        found = Detections(
            targets[0]["boxes"][seen], torch.ones(int(seen.sum())), targets[0]["labels"][seen]
        )
        metrics.update(DetectorOutput({}, [found]), targets)
        judged += int(target.counted.sum())
    assert judged == int((~labels.difficult).sum()) - labels.cut(window)
    assert metrics.compute()["ap"] == pytest.approx(1.0)
