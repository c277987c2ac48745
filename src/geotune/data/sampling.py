"""Sampling of random training windows, with more windows around rare classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geotune.data.raster.windows import Window


class WindowSampler:
    """Draws windows of scenes.

    With probability `rare_class_fraction` a window contains a label (a labelled pixel or object): a
    class is drawn in proportion to 1/sqrt(its fraction of the labels), a scene in proportion to its
    labels of that class, then one of the stored positions. Otherwise a scene is drawn in proportion
    to its area, then a position in it.

    Args:
        shapes: (H, W) of each scene.
        class_counts: number of labels of each class in each scene, `(scenes, K)`.
        positions: label positions by scene and class, `(n, 2)` as (row, col).
        rare_class_fraction: fraction of windows drawn around a label.
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

    def draw(self, rng: np.random.Generator, size: int) -> tuple[int, Window]:
        """Draw the index of a scene, and a window of `size` pixels in it."""
        around_label = rng.random() < self.rare_class_fraction
        return self.draw_around_label(rng, size) if around_label else self.draw_uniform(rng, size)

    def draw_around_label(self, rng: np.random.Generator, size: int) -> tuple[int, Window]:
        """Draw a window that contains a label."""
        index = int(rng.choice(len(self.classes), p=self.class_weights))
        scene = int(rng.choice(len(self.shapes), p=self.scene_weights[:, index]))
        positions = self.positions[scene][self.classes[index]]
        row, col = positions[rng.integers(len(positions))]
        height, width = self.shapes[scene]
        top = _clip_start(int(row) - int(rng.integers(size)), height, size)
        left = _clip_start(int(col) - int(rng.integers(size)), width, size)
        return scene, Window(top, left, size, size)

    def draw_in(self, scene: int, rng: np.random.Generator, size: int) -> tuple[int, Window]:
        """Draw a window anywhere in one scene."""
        height, width = self.shapes[scene]
        top = int(rng.integers(max(height - size, 0) + 1))
        left = int(rng.integers(max(width - size, 0) + 1))
        return scene, Window(top, left, size, size)

    def draw_uniform(self, rng: np.random.Generator, size: int) -> tuple[int, Window]:
        """Draw a window anywhere."""
        return self.draw_in(int(rng.choice(len(self.shapes), p=self.area_weights)), rng, size)


def _clip_start(start: int, length: int, size: int) -> int:
    """The nearest start at which a window lies in the scene; 0 if the scene is too small."""
    return min(max(start, 0), max(length - size, 0))
