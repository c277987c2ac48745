"""The area that two oriented boxes share.

It is that of a closed curve. Seen from the second box, whose sides then are those of the axes, let
every point of the first one's outline be moved into the second box by clamping its coordinates:

        +-----------+            What lies outside is folded onto the outline of the second box,
        | second    |            there and back, and encloses nothing. What is enclosed is the
        |     /*****+--.         intersection (*), so its area is the curve's integral of x dy,
        |    *******|   `.       which is a sum over four edges: each is cut to the second box's
        |     `*****+--'         rows, and over them the clamped x has a mean in closed form.
        +-----------+            There is no case to tell from another, and nothing that jumps.

So it is exact for boxes that are equal, that touch and that have no area.
"""

from __future__ import annotations

from geotune.boxes.array_namespace import Array, array_namespace


def intersection(first: Array, second: Array) -> Array:
    """Areas `(...)` that oriented boxes `(..., 5)` share with others; shapes are broadcast."""
    return shared_area(normalise_frame(first), normalise_frame(second))


def normalise_frame(boxes: Array) -> Array:
    """Centre, half sides, and cosine and sine of the angle: `(6, ...)` of boxes `(..., 5)`.

    For those who compare a box with many: the angle's functions are taken once.
    """
    xp = array_namespace(boxes)
    x, y, w, h, angle = (boxes[..., k] for k in range(5))
    return xp.stack([x, y, w / 2, h / 2, xp.cos(angle), xp.sin(angle)])


def shared_area(first: Array, second: Array) -> Array:
    """See `intersection`; both as `normalise_frame` gives them."""
    xp = array_namespace(first)
    x, y, w, h, first_cos, first_sin = first
    x_origin, y_origin, right, down, cos, sin = second
    # The first box from the second: its centre, and its half sides as vectors.
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
        # Where the edge enters the rows of the second box, and where it leaves them.
        x0 = xs[start] + (inside[start] - ys[start]) * slope
        x1 = xs[start] + (inside[end] - ys[start]) * slope
        a, b = xp.clip(x0, -right, right), xp.clip(x1, -right, right)
        run = x1 - x0
        share = (x1 - (a + b) / 2) / xp.where(run == 0, 1.0, run)
        area = area + (inside[end] - inside[start]) * (a + (b - a) * share)
    return xp.clip(area, 0.0, None)
