"""Place labels next to points without overlaps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geotune.report.plots import INK

SIZE = 9.0
"""Font size; all lengths in this file are in points."""
HEIGHT, LETTER, DOT, GAP = 1.15 * SIZE, 0.6 * SIZE, 4.0, 3.0
MAX_DISTANCE = 2.5 * DOT
"""Labels farther from their point than this get a connecting line."""
RINGS, TURNS = 12, 16
"""Candidate positions: number of distances, and of directions at each distance."""

Dot = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""


def label_points(
    figure: Figure, axes: Axes, points: Sequence[tuple[float, float]], names: Sequence[str]
) -> None:
    """Label each point, with a connecting line if the label is far away.

    Requires the final axes limits. Text widths are generous estimates, as readers' fonts differ.
    """
    figure.draw_without_rendering()  # the layout determines the transform
    scale = 72 / figure.dpi
    dots = [(scale * x, scale * y) for x, y in axes.transData.transform(list(points)).tolist()]
    frame = axes.get_window_extent()
    page: Box = (scale * frame.x0, scale * frame.y0, scale * frame.x1 + 2 * GAP, scale * frame.y1)
    occupied = [(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in dots]
    for point, (x, y), name in zip(points, dots, names, strict=True):
        left, bottom = place_label(x, y, LETTER * len(name), dots, occupied, page)
        box = (left, bottom, left + LETTER * len(name), bottom + HEIGHT)
        occupied.append(box)
        offset = distance((x, y), box) > MAX_DISTANCE
        axes.annotate(
            name,
            point,
            xytext=(left - x, bottom - y + 0.2 * HEIGHT),
            textcoords="offset points",
            color=INK,
            fontsize=SIZE,
            arrowprops={"arrowstyle": "-", "color": INK, "alpha": 0.35, "linewidth": 0.7}
            if offset
            else None,
        )


def place_label(
    x: float, y: float, width: float, dots: Sequence[Dot], occupied: Sequence[Box], page: Box
) -> tuple[float, float]:
    """Left and bottom of a label: the nearest position with the smallest overlap.

    The area outside the page counts as overlap. Ties prefer positions that are not ambiguous, with
    another of the `dots` closer to the label or on its line.
    """
    best_position, lowest_cost = (x + DOT, y), (math.inf, True)
    for ring in range(RINGS):
        offset = DOT + GAP + ring * HEIGHT
        for turn in range(TURNS):
            angle = 2 * math.pi * turn / TURNS + math.pi / 6
            cos, sin = math.cos(angle), math.sin(angle)
            left = x + offset * cos - width * (1 - cos) / 2
            bottom = y + offset * sin - HEIGHT * (1 - sin) / 2
            box = (left, bottom, left + width, bottom + HEIGHT)
            inside = overlap_area(box, page)
            covered = width * HEIGHT - inside + sum(overlap_area(box, other) for other in occupied)
            ambiguous = any(is_ambiguous(box, (x, y), other) for other in dots if other != (x, y))
            cost = round(covered, 6), ambiguous
            if cost < lowest_cost:
                best_position, lowest_cost = (left, bottom), cost
        if lowest_cost == (0.0, False):
            break
    return best_position


def is_ambiguous(box: Box, dot: Dot, other: Dot) -> bool:
    """Whether the label of `dot` could be mistaken for that of `other`."""
    offset = distance(dot, box)
    if offset <= MAX_DISTANCE:
        return distance(other, box) < offset - 1e-6
    if distance(other, box) < MAX_DISTANCE:
        return True
    end = nearest_point(dot, box)
    along = sum((e - d) * (o - d) for d, e, o in zip(dot, end, other, strict=True)) / offset**2
    closest = [d + min(max(along, 0.0), 1.0) * (e - d) for d, e in zip(dot, end, strict=True)]
    return math.dist(closest, other) < DOT


def distance(dot: Dot, box: Box) -> float:
    """Distance from a point to a box."""
    return math.dist(dot, nearest_point(dot, box))


def nearest_point(dot: Dot, box: Box) -> Dot:
    """The point of a box that is nearest to a dot."""
    return min(max(dot[0], box[0]), box[2]), min(max(dot[1], box[1]), box[3])


def overlap_area(one: Box, other: Box) -> float:
    """Intersection area of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)
