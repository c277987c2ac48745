"""Names beside dots: near, and apart."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from geotune.bench.label_placement import DOT, HEIGHT, NEAR, Box, distance, name_dots, place, shared

PAGE: Box = (0.0, 0.0, 500.0, 300.0)
Dots = list[tuple[float, float]]


def boxes(dots: Dots, width: float) -> list[Box]:
    """Of names that are placed one after the other, as `name_dots` does."""
    taken = [(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in dots]
    for x, y in dots:
        left, bottom = place(x, y, width, dots, taken, PAGE)
        taken.append((left, bottom, left + width, bottom + HEIGHT))
    return taken[len(dots) :]


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(10, 490), st.floats(10, 290)), min_size=1, max_size=8))
def test_where_there_is_room_no_name_covers_another_or_leaves_the_page(dots: Dots) -> None:
    found = boxes(dots, 40)
    for i, box in enumerate(found):
        assert shared(box, PAGE) > 0.999 * 40 * HEIGHT
        assert all(shared(box, other) < 1e-6 for other in found[:i])


def test_many_at_one_place_are_told_apart() -> None:
    found = boxes([(250.0, 150.0)] * 12, 50)
    assert all(shared(a, b) < 1e-6 for i, a in enumerate(found) for b in found[:i])


def test_a_single_name_stands_right_beside_its_dot() -> None:
    [(left, bottom, right, top)] = boxes([(250.0, 150.0)], 50)
    assert distance((250.0, 150.0), (left, bottom, right, top)) < NEAR


@pytest.mark.parametrize(
    "dots",
    [
        [(250.0, 150.0), (250.0, 162.0), (262.0, 150.0), (256.0, 140.0), (240.0, 156.0)],
        [(262.0, 134.0), (250.0, 154.0), (250.0, 166.0), (270.0, 142.0)],
        [(238.0, 142.0), (238.0, 130.0), (266.0, 170.0), (246.0, 158.0)],
    ],
)
def test_no_name_seems_to_be_another_dot_s(dots: Dots) -> None:
    found = boxes(dots, 30)
    assert all(shared(a, b) < 1e-6 for i, a in enumerate(found) for b in found[:i])
    for own, box in zip(dots, found, strict=True):
        others = [distance(dot, box) for dot in dots if dot != own]
        assert min(others) > min(distance(own, box), NEAR) - 1e-5


def test_every_name_is_written_once() -> None:
    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1, 1], [0, 1, 1], "o")
    name_dots(figure, axes, [(0, 0), (1, 1), (1, 1)], ["a", "b", "c"])
    assert [text.get_text() for text in axes.texts] == ["a", "b", "c"]
