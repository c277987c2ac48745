"""The metrics that are shown first."""

from __future__ import annotations

import math

from geotune.utils.headline import headline, lowest_class


def test_the_lowest_class_comes_before_the_mean() -> None:
    metrics = {"miou": 0.498, "f1": 0.5, "iou/sea": 0.993, "iou/ship": 0.003, "f1/ship": 0.001}
    assert headline(metrics) == {"iou/ship": 0.003, "miou": 0.498}
    assert list(headline(metrics)) == ["iou/ship", "miou"]


def test_classes_without_a_value_and_single_classes_have_no_place() -> None:
    metrics = {"ap50": 0.4, "ap50/car": 0.4, "ap50/bus": math.nan}
    assert lowest_class(metrics, "ap50") is None
    assert headline(metrics) == {"ap50": 0.4}
    assert headline({"rmse": 2.0, "mae": 1.0}) == {"rmse": 2.0}
