"""Intersection area of two oriented boxes.

In the frame of the second box, which is then axis-aligned, clamp the coordinates of every point of
the first box's outline to the second box:

        +-----------+            Parts outside are projected onto the outline of the second box,
        | second    |            back and forth, and enclose no area. The clamped curve encloses
        |     /*****+--.         the intersection (*), whose area is the line integral of x dy,
        |    *******|   `.       a sum over four edges. Each edge is cut to the vertical extent
        |     `*****+--'         of the second box, where the mean of the clamped x has a closed
        +-----------+            form. No case distinctions are needed.

The result is exact, also for boxes that coincide, touch or have no area.
"""

from __future__ import annotations

from geotune.boxes.array_namespace import Array, array_namespace


def intersection(first: Array, second: Array) -> Array:
    """Intersection areas `(...)` of oriented boxes `(..., 5)`, with broadcasting."""
    return shared_area(normalise_frame(first), normalise_frame(second))


def normalise_frame(boxes: Array) -> Array:
    """Centre, half sides, and cosine and sine of the angle: `(6, ...)` of boxes `(..., 5)`.

    Computed once for a box that is compared with many.
    """
    xp = array_namespace(boxes)
    x, y, w, h, angle = (boxes[..., k] for k in range(5))
    return xp.stack([x, y, w / 2, h / 2, xp.cos(angle), xp.sin(angle)])


def shared_area(first: Array, second: Array) -> Array:
    """See `intersection`; both arguments are results of `normalise_frame`."""
    xp = array_namespace(first)
    x, y, w, h, first_cos, first_sin = first
    x_origin, y_origin, right, down, cos, sin = second
    # The first box in the frame of the second: its centre, and its half sides as vectors.
    dx, dy = x - x_origin, y - y_origin
    cx, cy = dx * cos + dy * sin, dy * cos - dx * sin
    turn_cos, turn_sin = first_cos * cos + first_sin * sin, first_sin * cos - first_cos * sin
    ux, uy = w * turn_cos, w * turn_sin
    vx, vy = -h * turn_sin, h * turn_cos
    xs = [cx - ux - vx, cx + ux - vx, cx + ux + vx, cx - ux + vx]
    ys = [cy - uy - vy, cy + uy - vy, cy + uy + vy, cy - uy + vy]
    inside = [xp.clip(y, -down, down) for y in ys]
    area = 0 * cx
    for start, end in ((0, 1), (1, 2), (2, 3), (3, 0)):
        rise = ys[end] - ys[start]
        slope = (xs[end] - xs[start]) / xp.where(rise == 0, 1.0, rise)
        # x at which the edge enters and leaves the vertical extent of the second box.
        x0 = xs[start] + (inside[start] - ys[start]) * slope
        x1 = xs[start] + (inside[end] - ys[start]) * slope
        a, b = xp.clip(x0, -right, right), xp.clip(x1, -right, right)
        run = x1 - x0
        share = (x1 - (a + b) / 2) / xp.where(run == 0, 1.0, run)
        area = area + (inside[end] - inside[start]) * (a + (b - a) * share)
    return xp.clip(area, 0.0, None)
