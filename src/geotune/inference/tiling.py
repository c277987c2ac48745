"""Positions of windows on a scene: they cover every pixel with the requested overlap.

Wide scenes are split into strips of columns, which bounds the memory:

    strip 0       strip 1         a strip uses all windows that touch its columns; windows across
    |-------------|---------|     a border are computed for both strips, so the windows of a
    [  w  ][  w  ][  w  ]         pixel do not depend on the strips
       [  w  ][  w  ][  w  ]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from geotune.data.raster.windows import Window
from geotune.errors import GeotuneError


def window_starts(length: int, window: int, overlap: float) -> tuple[int, ...]:
    """First pixels of the windows along an axis; the last window ends at the end of the axis.

    Neighbours overlap by at least the fraction `overlap`. An axis shorter than the window gets one
    window, which extends beyond its end.
    """
    if length <= window:
        return (0,)
    return (*range(0, length - window, window_stride(window, overlap)), length - window)


def window_stride(window: int, overlap: float) -> int:
    """Pixels from one window to the next."""
    return max(1, int(window * (1 - overlap) + 1e-9))


@dataclass(frozen=True)
class Strip:
    """A strip of columns of a scene, and the windows that touch it.

    Attributes:
        left: first column of the strip.
        right: one past the last column.
        lefts: first columns of the windows.
        window: side of a window in pixels.
    """

    left: int
    right: int
    lefts: tuple[int, ...]
    window: int

    @property
    def first(self) -> int:
        """First column of the first window."""
        return self.lefts[0]

    @property
    def width(self) -> int:
        """Number of columns that the windows cover."""
        return self.lefts[-1] + self.window - self.lefts[0]


@dataclass(frozen=True)
class TilingPlan:
    """All windows over a scene, or those that touch a part of it.

    Attributes:
        shape: (H, W) of the scene in pixels.
        window: side of a window in pixels.
        overlap: minimum overlap of neighbours, as a fraction of the window in [0, 1).
        strip_width: number of columns of a strip.
        area: the part of the scene, inside of it; None for all of it. Its windows are those of the
            whole scene, so that the results do not depend on it.

    Raises `GeotuneError` for a size below one and an overlap outside of [0, 1).
    """

    shape: tuple[int, int]
    window: int
    overlap: float
    strip_width: int
    area: Window | None = None

    def __post_init__(self) -> None:
        for name, size in (
            ("height", self.shape[0]),
            ("width", self.shape[1]),
            ("window", self.window),
            ("strip_width", self.strip_width),
        ):
            if size < 1:
                raise GeotuneError(
                    f"{name}: found {size}, expected at least 1 pixel", code="option-invalid"
                )
        if not 0 <= self.overlap < 1:
            raise GeotuneError(
                f"overlap: found {self.overlap}, expected a fraction in [0, 1), such as 0.5",
                code="option-invalid",
            )

    @property
    def inside(self) -> Window:
        """The part of the scene that the windows are for."""
        return Window(0, 0, *self.shape) if self.area is None else self.area

    @property
    def tops(self) -> tuple[int, ...]:
        """First rows of the windows."""
        starts = window_starts(self.shape[0], self.window, self.overlap)
        first, last = self.inside.row, self.inside.row + self.inside.height
        return tuple(y for y in starts if y < last and y + self.window > first)

    def strips(self) -> Iterator[Strip]:
        """The strips, from left to right."""
        lefts = window_starts(self.shape[1], self.window, self.overlap)
        end = self.inside.col + self.inside.width
        for left in range(self.inside.col, end, self.strip_width):
            right = min(left + self.strip_width, end)
            touching = tuple(x for x in lefts if x < right and x + self.window > left)
            yield Strip(left, right, touching, self.window)

    def __len__(self) -> int:
        """Number of windows to compute; a window in two strips counts twice."""
        return len(self.tops) * sum(len(strip.lefts) for strip in self.strips())


def strip_width(
    window: int, bytes_per_pixel: int, budget_bytes: int = 128 * 2**20, *, multiple: int = 512
) -> int:
    """Width of a strip whose buffers, one window high, stay within the budget.

    At least four windows, because windows at strip borders are computed twice, and at most 8192
    columns; by default a multiple of 512, the tile size of the output.
    """
    affordable = budget_bytes // (bytes_per_pixel * window)
    minimum = -(-4 * window // multiple) * multiple
    return max(minimum, min(8192, affordable // multiple * multiple))
