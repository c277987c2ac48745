"""Windows with detections: captions and boxes use the run's score threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from geotune.data.annotations.object_target import ObjectTarget
from geotune.report.tasks.base import DisplayedWindow
from geotune.report.tasks.detect_page import FALSE, IGNORED, MISSED, PAGE, POINTS, TRUE

BOXES = np.array([[10.0, 10, 20, 20], [30, 10, 40, 20], [50, 10, 60, 20]])


def shown(details: dict[str, Any]) -> DisplayedWindow:
    """Three objects, one of them difficult, and four detections, one of them false."""
    detections = np.array([BOXES[0], [10, 40, 20, 50], [30, 12, 40, 20], BOXES[2]])
    scores, classes = np.array([[0.9], [0.8], [0.3], [0.7]]), np.zeros((4, 1))
    target = ObjectTarget(
        BOXES, np.zeros(3, dtype=np.int64), np.array([False, False, True]), np.ones(3), 0.5,
        np.ones((64, 64), dtype=bool),
    )  # fmt: skip
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    return DisplayedWindow(
        image, target, np.hstack([detections, scores, classes]), 0.8, ["ship"], [], details=details
    )


@pytest.mark.parametrize(
    ("threshold", "caption", "colors"),
    [
        (0.5, "1 correct, 1 false, 1 missed · best F1 0.800", {TRUE, FALSE, MISSED}),
        (0.2, "2 correct, 1 false, 0 missed · best F1 0.800", {TRUE, FALSE}),
        (None, "0 correct, 0 false, 2 missed · best F1 0.800", {MISSED}),
    ],
)
def test_boxes_are_filtered_by_the_threshold(
    threshold: float | None, caption: str, colors: set[Any]
) -> None:
    text, pictures = PAGE.draw(shown({"threshold": {"ship": threshold}}))
    assert text == caption
    drawn = {tuple(color) for color in pictures["objects"].reshape(-1, 3).tolist()}
    assert drawn == colors | {IGNORED, (0, 0, 0)}


def test_points_match_within_the_radius() -> None:
    details = {"threshold": {"ship": 0.2}, "radius_px": 0.5}  # the third is a pixel off
    caption, _ = POINTS.draw(shown(details))
    assert caption.startswith("1 correct, 3 false, 1 missed")
