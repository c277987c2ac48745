"""Where windows lie on a scene: every pixel covered, as few windows as the overlap allows.

A wide scene is cut into strips of columns, so that what is held at once has a bound:

    strip 0      strip 1          windows of strip 0 are those that touch its columns; the ones
    |-------------|---------|     that reach over the border are computed for both strips, so a
    [  w  ][  w  ][  w  ]         pixel gets the same windows whichever way the scene is cut
       [  w  ][  w  ][  w  ]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from geotune.errors import GeotuneError


def window_starts(length: int, window: int, overlap: float) -> tuple[int, ...]:
    """First pixels of the windows along one axis; the last window ends where the axis ends.

    Neighbours overlap by at least the share `overlap` of the window. An axis shorter than the
    window gets one window, which reaches beyond its end.
    """
    if length <= window:
        return (0,)
    return (*range(0, length - window, window_stride(window, overlap)), length - window)


def window_stride(window: int, overlap: float) -> int:
    """Pixels from a window to the next."""
    return max(1, int(window * (1 - overlap) + 1e-9))


@dataclass(frozen=True)
class Strip:
    """Columns `left` to `right` (exclusive) of a scene, and the windows that touch them.

    Attributes:
        left: first column of the strip.
        right: one past its last column.
        lefts: first columns of the windows.
        window: pixels of a window's side.
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
        """Columns that the windows cover together."""
        return self.lefts[-1] + self.window - self.lefts[0]


@dataclass(frozen=True)
class TilingPlan:
    """All windows over a scene.

    Attributes:
        shape: (H, W) of the scene in pixels.
        window: pixels of a window's side.
        overlap: least share of a window that its neighbour covers too, from 0 to below 1.
        strip_width: columns that are finished at once.

    Raises `GeotuneError` for a size below one and an overlap outside [0, 1).
    """

    shape: tuple[int, int]
    window: int
    overlap: float
    strip_width: int

    def __post_init__(self) -> None:
        for name, size in (
            ("height", self.shape[0]),
            ("width", self.shape[1]),
            ("window", self.window),
            ("strip_width", self.strip_width),
        ):
            if size < 1:
                raise GeotuneError(f"{name}: found {size}, expected at least 1 pixel")
        if not 0 <= self.overlap < 1:
            raise GeotuneError(
                f"overlap: found {self.overlap}, expected a share from 0 to below 1, such as 0.5"
            )

    @property
    def tops(self) -> tuple[int, ...]:
        """First rows of the windows."""
        return window_starts(self.shape[0], self.window, self.overlap)

    def strips(self) -> Iterator[Strip]:
        """The strips, left to right."""
        lefts = window_starts(self.shape[1], self.window, self.overlap)
        for left in range(0, self.shape[1], self.strip_width):
            right = min(left + self.strip_width, self.shape[1])
            touching = tuple(x for x in lefts if x < right and x + self.window > left)
            yield Strip(left, right, touching, self.window)

    def __len__(self) -> int:
        """Windows to compute; one that touches two strips counts twice."""
        return len(self.tops) * sum(len(strip.lefts) for strip in self.strips())


def strip_width(window: int, bytes_per_pixel: int, budget_bytes: int = 128 * 2**20) -> int:
    """Columns of a strip whose window-high buffers stay within the budget.

    Never less than four windows, for each border between strips has windows computed twice, and
    never more than 4096 columns; a multiple of 512, the side of a map's tiles.
    """
    fitting = budget_bytes // (bytes_per_pixel * window)
    least = -(-4 * window // 512) * 512
    return max(least, min(4096, fitting // 512 * 512))
