"""Names beside dots, so that none covers another."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geotune.report.plots import INK

SIZE = 9.0
"""Of the letters, in points; all lengths here are in points."""
HEIGHT, LETTER, DOT, GAP = 1.15 * SIZE, 0.6 * SIZE, 4.0, 3.0
NEAR = 2.5 * DOT
"""A name farther than this from its dot gets a line to it; one within is taken for the dot's."""
RINGS, TURNS = 12, 16
"""Places that are tried: so many distances from the dot, so many directions at each."""

Dot = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""


def name_dots(
    figure: Figure, axes: Axes, points: Sequence[tuple[float, float]], names: Sequence[str]
) -> None:
    """Write each name near its dot; one that had to go farther gets a line to it.

    The axes' limits have to be final. The page's letters are as wide as its reader's fonts, so
    widths are rough and on the generous side.
    """
    figure.draw_without_rendering()  # the layout decides where a point of the data lies
    scale = 72 / figure.dpi
    dots = [(scale * x, scale * y) for x, y in axes.transData.transform(list(points)).tolist()]
    frame = axes.get_window_extent()
    page: Box = (scale * frame.x0, scale * frame.y0, scale * frame.x1 + 2 * GAP, scale * frame.y1)
    taken = [(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in dots]
    for point, (x, y), name in zip(points, dots, names, strict=True):
        left, bottom = place(x, y, LETTER * len(name), dots, taken, page)
        box = (left, bottom, left + LETTER * len(name), bottom + HEIGHT)
        taken.append(box)
        far = distance((x, y), box) > NEAR
        axes.annotate(
            name,
            point,
            xytext=(left - x, bottom - y + 0.2 * HEIGHT),
            textcoords="offset points",
            color=INK,
            fontsize=SIZE,
            arrowprops={"arrowstyle": "-", "color": INK, "alpha": 0.35, "linewidth": 0.7}
            if far
            else None,
        )


def place(
    x: float,
    y: float,
    width: float,
    dots: Sequence[Dot],
    taken: Sequence[Box],
    page: Box,
) -> tuple[float, float]:
    """Left and bottom of a box by a dot: the nearest place where it covers least of what is there.

    What reaches out of the page counts as covered. Of places as good, one where it does not seem
    to be the name of another of the `dots`, which is nearer or in the way of the line.
    """
    best, least = (x + DOT, y), (math.inf, True)
    for ring in range(RINGS):
        far = DOT + GAP + ring * HEIGHT
        for turn in range(TURNS):
            angle = 2 * math.pi * turn / TURNS + math.pi / 6
            across, up = math.cos(angle), math.sin(angle)
            left = x + far * across - width * (1 - across) / 2
            bottom = y + far * up - HEIGHT * (1 - up) / 2
            box = (left, bottom, left + width, bottom + HEIGHT)
            inside = shared(box, page)
            covered = width * HEIGHT - inside + sum(shared(box, other) for other in taken)
            wrong = any(misleads(box, (x, y), other) for other in dots if other != (x, y))
            cost = round(covered, 6), wrong
            if cost < least:
                best, least = (left, bottom), cost
        if least == (0.0, False):
            break
    return best


def misleads(box: Box, dot: Dot, other: Dot) -> bool:
    """Whether the name of a dot would be taken for that of another one."""
    far = distance(dot, box)
    if far <= NEAR:
        return distance(other, box) < far - 1e-6
    if distance(other, box) < NEAR:
        return True
    end = nearest(dot, box)
    along = sum((e - d) * (o - d) for d, e, o in zip(dot, end, other, strict=True)) / far**2
    at = [d + min(max(along, 0.0), 1.0) * (e - d) for d, e in zip(dot, end, strict=True)]
    return math.dist(at, other) < DOT


def distance(dot: Dot, box: Box) -> float:
    """From a dot to the nearest place of a box."""
    return math.dist(dot, nearest(dot, box))


def nearest(dot: Dot, box: Box) -> Dot:
    """The place of a box that is nearest to a dot."""
    return min(max(dot[0], box[0]), box[2]), min(max(dot[1], box[1]), box[3])


def shared(one: Box, other: Box) -> float:
    """The area that two boxes have in common."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    up = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0.0) * max(up, 0.0)
