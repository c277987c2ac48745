"""A small report of a segmentation of two classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from geotune.data.labels.targets import PixelClasses
from geotune.report.context import BackboneSummary, Cost, Example, Report, SplitSummary
from geotune.report.tasks.base import DisplayedWindow, find_page

COLORS = ((68, 78, 92), (255, 196, 0))


def masks(size: int = 32) -> tuple[Any, Any, Any]:
    """Image, label and prediction: a partly missed ship and an ignored corner."""
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    label = np.zeros((size, size), dtype=np.int64)
    label[4:10, 4:20] = 1
    prediction = label.copy()
    prediction[4:10, 16:20] = 0
    label[-8:, -8:] = 255
    return image, label, prediction


def example(name: str = "durban (0, 128)", size: int = 32) -> Example:
    """An example window of segmentation."""
    image, label, prediction = masks(size)
    shown = DisplayedWindow(
        image, PixelClasses(label), prediction, 0.75, ["background", "ship"], COLORS
    )
    return Example(name, *find_page("segment").draw(shown))


@pytest.fixture
def window() -> Callable[..., Example]:
    """Makes windows: `window(name, size)`."""
    return example


@pytest.fixture
def segmented() -> Callable[..., tuple[Any, Any, Any]]:
    """Makes image, label and prediction: `segmented(size)`."""
    return masks


@pytest.fixture
def report() -> Report:
    """Two classes, six epochs, validation and test."""
    history = [
        {
            "epoch": epoch,
            "train/loss": 1 / epoch,
            "val/loss": 1.2 / epoch,
            "val/miou": miou,
            "val/iou/background": 0.99,
            "val/iou/ship": 2 * miou - 0.99,
            "lr": 1e-3 / epoch,
            "seconds": 12.0,
        }
        for epoch, miou in enumerate((0.52, 0.6, 0.7, 0.78, 0.77, 0.77), start=1)
    ]
    return Report(
        name="ships",
        method="est",
        decoder="unet",
        classes=["background", "ship"],
        colors=[(68, 78, 92), (255, 196, 0)],
        backbone=BackboneSummary("rslearn/galileo_nano", "MIT", "nasaharvest/galileo"),
        cost=Cost("CPU (2 cores)", 823.0, 41.0, 412_345, 1_478_812, 1_730_000_000),
        recipe_yaml="backbone: {name: rslearn/galileo_nano}\n",
        history=history,
        best_epoch=4,
        metrics={
            "val": {"miou": 0.78, "accuracy": 0.996, "iou/ship": 0.57, "f1/ship": 0.73},
            "test": {"miou": 0.71, "accuracy": 0.994, "iou/ship": 0.44, "f1/ship": 0.61},
        },
        confusion={"val": [[9890, 10], [30, 70]], "test": [[19800, 50], [58, 92]]},
        best=[example()],
        worst=[example("durban (128, 0)")],
        data={
            "train": SplitSummary(["athens", "cartagena"], [99_000, 500]),
            "val": SplitSummary(["durban"], [9900, 100]),
            "test": SplitSummary(["busan"], [19850, 150], ignored_pixels=77),
        },
        shown_bands=["B04", "B03", "B02"],
        versions={"geotune": "0.1.0", "torch": "2.15.0"},
        data_notes=["busan.geojson: two polygons lie outside the scene"],
        notes=["normalisation: the backbone's own"],
    )
