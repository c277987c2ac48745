"""The largest difference between the predictions of a file and of its run."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from geotune.export_formats.compare import largest_difference, predictions
from helpers.components import make_task
from helpers.errors import raises

WINDOWS = [{"images": np.zeros((1, 3, 100, 100), np.float32)}]
BOX = [10.0, 20.0, 30.0, 24.0]


def difference(task: Any, names: tuple[str, ...], own: list[Any], found: list[Any]) -> float:
    decoder = SimpleNamespace(postprocess=SimpleNamespace(max_detections=3))
    model = SimpleNamespace(decoder=decoder)
    run: Any = SimpleNamespace(task=task, layout="plain", output_names=names, model=model)
    expected = [[tuple(map(torch.tensor, own))]]
    return largest_difference(run, expected, lambda _: list(map(np.asarray, found)), WINDOWS)


def boxes_apart(own: tuple[Any, ...], found: tuple[Any, ...]) -> float:
    """The difference of lists of boxes, scores and classes of one image."""
    names = ("boxes", "scores", "classes", "image")
    lists = [[*each, [0] * len(each[1])] for each in (own, found)]
    return difference(make_task("detect", classes=["a", "b"], boxes="horizontal"), names, *lists)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (([BOX], [0.8], [0]), 0.0),
        (([[10.5, 20, 30, 24]], [0.8], [0]), 0.005),  # half a pixel of a hundred
        (([BOX], [0.7], [0]), 0.1),
        (([BOX], [0.8], [1]), 0.8),  # another class: none of them has a counterpart
        (([[40.0, 20, 60, 24]], [0.6], [0]), 0.8),
    ],
)
def test_objects_are_compared_with_their_counterparts(found: Any, expected: float) -> None:
    assert boxes_apart(([BOX], [0.8], [0]), found) == pytest.approx(expected, abs=1e-6)


def test_an_additional_or_missing_object_counts_with_its_score() -> None:
    one, two = ([BOX], [0.8], [0]), ([BOX, [60.0, 60, 70, 70]], [0.8, 0.3], [0, 1])
    assert boxes_apart(one, two) == pytest.approx(0.3)
    assert boxes_apart(two, one) == pytest.approx(0.3)


def test_the_last_objects_of_a_full_list_may_differ() -> None:
    """Equal scores may have been cut off in another order."""
    boxes = [[20.0 * i, 0.0, 20.0 * i + 9, 9.0] for i in range(4)]
    own, found = (([*boxes[:2], last], [0.9, 0.8, 0.5], [0] * 3) for last in boxes[2:])
    assert boxes_apart(own, found) == pytest.approx(0, abs=1e-6)
    shorter = (boxes[:2], [0.9, 0.8], [0] * 2)
    assert boxes_apart(own, shorter) == pytest.approx(0.5)


def test_what_fills_a_list_of_fixed_length_is_no_object() -> None:
    filled = ([BOX, BOX], [0.8, 0.0], [0, 0])
    assert boxes_apart(filled, ([BOX], [0.8], [0])) < 1e-6
    assert boxes_apart(([BOX], [0.8], [0]), filled) < 1e-6
    assert boxes_apart(([BOX], [0.0], [0]), filled) == pytest.approx(0.8)


def test_a_selection_that_depends_on_rounding_may_be_another_one() -> None:
    class Run:
        """Keeps a second object if the images are exactly as they were."""

        task = make_task("detect", classes=["a"], boxes="horizontal")
        layout, output_names = "plain", ("boxes", "scores", "classes", "image")
        model = SimpleNamespace(
            decoder=SimpleNamespace(postprocess=SimpleNamespace(max_detections=9))
        )

        def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            count = 2 if bool((images == 1000).all()) else 1
            boxes = torch.tensor([BOX, [60.0, 60, 70, 70]])[:count]
            zeros = torch.zeros(count, dtype=torch.int64)
            return boxes, torch.tensor([0.8, 0.3])[:count], zeros, zeros

    run: Any = Run()
    windows = [{"images": np.full((1, 3, 100, 100), 1000, np.float32)}]
    expected = predictions(run, windows)
    for count, difference in ((2, 0.0), (1, 0.0), (0, 0.8)):
        found = [x[:count].numpy() for x in run(torch.tensor(1000.0))]
        assert largest_difference(run, expected, lambda _, f=found: f, windows) == pytest.approx(
            difference
        )


def test_the_angle_of_a_long_box_counts() -> None:
    task = make_task("detect", classes=["a"], boxes="oriented")
    names = ("boxes", "scores", "classes")
    own, turned = ([[[50.0, 50, 40, 4, angle]]] for angle in (0.0, 0.01))
    rest = [[[0.9]], [[0]]]
    assert difference(task, names, [own, *rest], [turned, *rest]) == pytest.approx(0.0072, abs=1e-4)
    assert difference(task, names, [own, *rest], [[[[50.0, 50, 40, 4, math.pi]]], *rest]) < 1e-6


def test_numbers_count_in_standard_deviations() -> None:
    task = make_task("regress", quantity="height", mean=0.0, std=4.0)
    assert difference(task, ("values",), [[[1.0, 2.0]]], [[[1.0, 3.0]]]) == 0.25


def test_nan_is_no_small_difference() -> None:
    task = make_task("regress", quantity="height", mean=0.0, std=1.0)
    assert math.isnan(difference(task, ("values",), [[[math.nan]]], [[[1.0]]]))
    with raises("export-inaccurate", mentions=["values are not finite"]):
        difference(task, ("values",), [[[1.0]]], [[[math.nan]]])
