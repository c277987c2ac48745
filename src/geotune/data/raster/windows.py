"""Windows: rectangles of pixels in a scene."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Window(NamedTuple):
    """A rectangle in pixels of a scene; it may extend beyond the scene."""

    row: int
    col: int
    height: int
    width: int

    def clip(self, shape: tuple[int, int]) -> Window | None:
        """The part inside a scene of `shape` (H, W); None if it lies outside."""
        top, left = max(self.row, 0), max(self.col, 0)
        bottom = min(self.row + self.height, shape[0])
        right = min(self.col + self.width, shape[1])
        if bottom <= top or right <= left:
            return None
        return Window(top, left, bottom - top, right - left)

    def slices_in(self, outer: Window) -> tuple[slice, slice]:
        """Rows and columns of this window in an array of the window `outer`."""
        row, col = self.row - outer.row, self.col - outer.col
        return slice(row, row + self.height), slice(col, col + self.width)


def grid_windows(shape: tuple[int, int], size: int) -> Iterator[Window]:
    """Square windows of `size` pixels that cover every pixel of (H, W) exactly once, row by row.

    All have the full size, so those in the last row and column may extend beyond the edge.
    """
    for row in range(0, shape[0], size):
        for col in range(0, shape[1], size):
            yield Window(row, col, size, size)


def blocks(shape: tuple[int, int], size: int) -> Iterator[Window]:
    """The windows of the same grid, clipped to (H, W)."""
    # lazily: a damaged file may claim any size
    return filter(None, (window.clip(shape) for window in grid_windows(shape, size)))
