"""Random training windows, more of them where rare classes are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geotune.data.windows import Window


class WindowSampler:
    """Draws windows of scenes.

    With probability `focus` around a mark, such as a labelled pixel: its class with probability
    proportional to 1/sqrt(the class's share of the marks), a scene in proportion to its marks of
    the class, one of those kept, and a window that contains it. Else anywhere: a scene in
    proportion to its area, any place in it.

    Args:
        shapes: (H, W) of each scene.
        class_counts: marks of each class in each scene, `(scenes, K)`.
        positions: kept marks by scene and class, `(n, 2)` as (row, col).
        window: side of the windows in pixels.
        focus: share of windows drawn around a mark.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        class_counts: NDArray[np.int64],
        positions: Sequence[Sequence[NDArray[np.int64]]],
        window: int,
        focus: float,
    ) -> None:
        self.shapes = list(shapes)
        self.positions = positions
        self.window = window
        self.focus = focus
        areas = np.array([height * width for height, width in shapes], dtype=np.float64)
        self.by_area = areas / areas.sum()
        totals = class_counts.sum(axis=0)
        self.classes = np.flatnonzero(totals)
        weights = 1 / np.sqrt(totals[self.classes] / max(int(totals.sum()), 1))
        self.by_class = weights / weights.sum()
        self.by_scene = class_counts[:, self.classes] / totals[self.classes]

    def draw(self, rng: np.random.Generator) -> tuple[int, Window]:
        """Index of a scene, and a window of it."""
        return self.draw_focused(rng) if rng.random() < self.focus else self.draw_anywhere(rng)

    def draw_focused(self, rng: np.random.Generator) -> tuple[int, Window]:
        """A window that contains a mark."""
        which = int(rng.choice(len(self.classes), p=self.by_class))
        scene = int(rng.choice(len(self.shapes), p=self.by_scene[:, which]))
        kept = self.positions[scene][self.classes[which]]
        row, col = kept[rng.integers(len(kept))]
        height, width = self.shapes[scene]
        return scene, self._at(
            self._start(int(row) - int(rng.integers(self.window)), height),
            self._start(int(col) - int(rng.integers(self.window)), width),
        )

    def draw_anywhere(self, rng: np.random.Generator) -> tuple[int, Window]:
        """A window at any place."""
        scene = int(rng.choice(len(self.shapes), p=self.by_area))
        height, width = self.shapes[scene]
        return scene, self._at(
            int(rng.integers(max(height - self.window, 0) + 1)),
            int(rng.integers(max(width - self.window, 0) + 1)),
        )

    def _start(self, start: int, length: int) -> int:
        """The nearest start at which a window lies inside, 0 where none does."""
        return min(max(start, 0), max(length - self.window, 0))

    def _at(self, row: int, col: int) -> Window:
        return Window(row, col, self.window, self.window)
