"""Windows: rectangles of pixels of a scene."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Window(NamedTuple):
    """A rectangle in pixels of a scene; it may reach beyond the scene's edges."""

    row: int
    col: int
    height: int
    width: int

    def clip(self, shape: tuple[int, int]) -> Window | None:
        """The part inside a scene of `shape` (H, W); None where nothing of it is."""
        top, left = max(self.row, 0), max(self.col, 0)
        bottom = min(self.row + self.height, shape[0])
        right = min(self.col + self.width, shape[1])
        if bottom <= top or right <= left:
            return None
        return Window(top, left, bottom - top, right - left)

    def within(self, outer: Window) -> tuple[slice, slice]:
        """Rows and columns of this window in an array that holds `outer`."""
        row, col = self.row - outer.row, self.col - outer.col
        return slice(row, row + self.height), slice(col, col + self.width)


def grid(shape: tuple[int, int], size: int) -> Iterator[Window]:
    """Square windows of `size` pixels, row by row, that cover every pixel of (H, W) exactly once.

    All have the full size, so those of the last row and column reach beyond the edge.
    """
    for row in range(0, shape[0], size):
        for col in range(0, shape[1], size):
            yield Window(row, col, size, size)
