"""Windows with objects: what is said and drawn is of the run's score on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from geotune.data.annotations.object_target import ObjectTarget
from geotune.report.tasks.base import Shown
from geotune.report.tasks.boxes_overlay import FALSE, MISSED, TRUE, UNCOUNTED
from geotune.report.tasks.detect_page import PAGE, POINTS

BOXES = np.array([[10.0, 10, 20, 20], [30, 10, 40, 20], [50, 10, 60, 20]])


def shown(details: dict[str, Any]) -> Shown:
    """Three objects, of which one is difficult; one of them is found, and one place is false."""
    found = np.array([BOXES[0], [10, 40, 20, 50], [30, 12, 40, 20], BOXES[2]])
    scores, classes = np.array([[0.9], [0.8], [0.3], [0.7]]), np.zeros((4, 1))
    target = ObjectTarget(
        BOXES, np.zeros(3, dtype=np.int64), np.array([False, False, True]), np.ones(3), 0.5,
        np.ones((64, 64), dtype=bool),
    )  # fmt: skip
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    return Shown(
        image, target, np.hstack([found, scores, classes]), 0.8, ["ship"], [], details=details
    )


@pytest.mark.parametrize(
    ("threshold", "said", "colors"),
    [
        (0.5, "1 found, 1 false, 1 missed · F1 at best 0.800", {TRUE, FALSE, MISSED}),
        (0.2, "2 found, 1 false, 0 missed · F1 at best 0.800", {TRUE, FALSE}),
        (None, "0 found, 0 false, 2 missed · F1 at best 0.800", {MISSED}),
    ],
)
def test_a_window_is_judged_from_the_threshold_on(
    threshold: float | None, said: str, colors: set[Any]
) -> None:
    words, pictures = PAGE.draw(shown({"threshold": {"ship": threshold}}))
    assert words == said
    drawn = {tuple(color) for color in pictures["objects"].reshape(-1, 3).tolist()}
    assert drawn == colors | {UNCOUNTED, (0, 0, 0)}


def test_points_are_found_within_the_radius() -> None:
    details = {"threshold": {"ship": 0.2}, "radius_px": 0.5}  # the third is a pixel off
    words, _ = POINTS.draw(shown(details))
    assert words.startswith("1 found, 3 false, 1 missed")
