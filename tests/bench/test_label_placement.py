"""Label placement: near the points, without overlaps."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from geotune.bench.label_placement import (
    DOT,
    HEIGHT,
    MAX_DISTANCE,
    Box,
    distance,
    label_points,
    overlap_area,
    place_label,
)

PAGE: Box = (0.0, 0.0, 500.0, 300.0)
Dots = list[tuple[float, float]]


def boxes(dots: Dots, width: float) -> list[Box]:
    """Boxes of labels placed sequentially, as `label_points` does."""
    occupied = [(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in dots]
    for x, y in dots:
        left, bottom = place_label(x, y, width, dots, occupied, PAGE)
        occupied.append((left, bottom, left + width, bottom + HEIGHT))
    return occupied[len(dots) :]


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(10, 490), st.floats(10, 290)), min_size=1, max_size=8))
def test_labels_do_not_overlap_or_leave_the_page(dots: Dots) -> None:
    result = boxes(dots, 40)
    for i, box in enumerate(result):
        assert overlap_area(box, PAGE) > 0.999 * 40 * HEIGHT
        assert all(overlap_area(box, other) < 1e-6 for other in result[:i])


def test_labels_of_coincident_points_do_not_overlap() -> None:
    result = boxes([(250.0, 150.0)] * 12, 50)
    assert all(overlap_area(a, b) < 1e-6 for i, a in enumerate(result) for b in result[:i])


def test_single_label_is_next_to_its_point() -> None:
    [(left, bottom, right, top)] = boxes([(250.0, 150.0)], 50)
    assert distance((250.0, 150.0), (left, bottom, right, top)) < MAX_DISTANCE


@pytest.mark.parametrize(
    "dots",
    [
        [(250.0, 150.0), (250.0, 162.0), (262.0, 150.0), (256.0, 140.0), (240.0, 156.0)],
        [(262.0, 134.0), (250.0, 154.0), (250.0, 166.0), (270.0, 142.0)],
        [(238.0, 142.0), (238.0, 130.0), (266.0, 170.0), (246.0, 158.0)],
    ],
)
def test_labels_are_unambiguous(dots: Dots) -> None:
    result = boxes(dots, 30)
    assert all(overlap_area(a, b) < 1e-6 for i, a in enumerate(result) for b in result[:i])
    for own, box in zip(dots, result, strict=True):
        others = [distance(dot, box) for dot in dots if dot != own]
        assert min(others) > min(distance(own, box), MAX_DISTANCE) - 1e-5


def test_each_label_is_written_once() -> None:
    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1, 1], [0, 1, 1], "o")
    label_points(figure, axes, [(0, 0), (1, 1), (1, 1)], ["a", "b", "c"])
    assert [text.get_text() for text in axes.texts] == ["a", "b", "c"]
