"""Sampling of random training windows, with more windows around rare classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geotune.data.raster.windows import Window


class WindowSampler:
    """Draws windows of scenes.

    With probability `rare_class_fraction` a window contains a mark, such as a labelled pixel: a
    class is drawn in proportion to 1/sqrt(its share of the marks), a scene in proportion to its
    marks of that class, then one of the stored marks. Otherwise the window is anywhere: a scene is
    drawn in proportion to its area, then a position in it.

    Args:
        shapes: (H, W) of each scene.
        class_counts: marks of each class in each scene, `(scenes, K)`.
        positions: kept marks by scene and class, `(n, 2)` as (row, col).
        rare_class_fraction: fraction of windows drawn around a mark.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        class_counts: NDArray[np.int64],
        positions: Sequence[Sequence[NDArray[np.int64]]],
        rare_class_fraction: float,
    ) -> None:
        self.shapes = list(shapes)
        self.positions = positions
        self.rare_class_fraction = rare_class_fraction
        areas = np.array([height * width for height, width in shapes], dtype=np.float64)
        self.area_weights = areas / areas.sum()
        totals = class_counts.sum(axis=0)
        self.classes = np.flatnonzero(totals)
        weights = 1 / np.sqrt(totals[self.classes] / max(int(totals.sum()), 1))
        self.class_weights = weights / weights.sum()
        self.scene_weights = class_counts[:, self.classes] / totals[self.classes]

    def draw(self, rng: np.random.Generator, side: int) -> tuple[int, Window]:
        """Index of a scene, and a window of it of `side` pixels."""
        focused = rng.random() < self.rare_class_fraction
        return self.draw_around_label(rng, side) if focused else self.draw_uniform(rng, side)

    def draw_around_label(self, rng: np.random.Generator, side: int) -> tuple[int, Window]:
        """A window that contains a mark."""
        which = int(rng.choice(len(self.classes), p=self.class_weights))
        scene = int(rng.choice(len(self.shapes), p=self.scene_weights[:, which]))
        kept = self.positions[scene][self.classes[which]]
        row, col = kept[rng.integers(len(kept))]
        height, width = self.shapes[scene]
        top = _start(int(row) - int(rng.integers(side)), height, side)
        left = _start(int(col) - int(rng.integers(side)), width, side)
        return scene, Window(top, left, side, side)

    def draw_uniform(self, rng: np.random.Generator, side: int) -> tuple[int, Window]:
        """A window at any place."""
        scene = int(rng.choice(len(self.shapes), p=self.area_weights))
        height, width = self.shapes[scene]
        top = int(rng.integers(max(height - side, 0) + 1))
        left = int(rng.integers(max(width - side, 0) + 1))
        return scene, Window(top, left, side, side)


def _start(start: int, length: int, side: int) -> int:
    """The nearest start at which a window lies inside, 0 where none does."""
    return min(max(start, 0), max(length - side, 0))
