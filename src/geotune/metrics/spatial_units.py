"""Units of a test split: regions, scenes, or blocks of a scene.

Neighbouring windows of a scene are alike, and so are neighbouring scenes and those of one group, so
they are not independent units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from geotune.metrics.state import MetricState
from geotune.metrics.uncertainty import Floats
from geotune.utils.text import pluralize

MIN_UNITS = 6
"""Fewer units allow no verdict: even if all agree, a sign test at 5 % needs six."""

MAX_UNITS = 100
"""More units are merged in their order: 100 give nearly the quantiles of a normal distribution."""

NEGLIGIBLE_CORRELATION = 0.1

RANGES_PER_BLOCK = 3
"""Side of a block in correlation ranges."""

MAX_CORRELATED_WINDOWS = 2000

UnitKind = Literal["region", "scene", "block"]


@dataclass(frozen=True)
class SpatialUnits:
    """The unit of each window.

    Attributes:
        kind: what a unit is.
        of_window: the index of the unit of each window, `(N,)`.
        count: number of units.
        side: side of a block in pixels; 0 for other units.
    """

    kind: UnitKind
    of_window: NDArray[np.int64]
    count: int
    side: int = 0

    @property
    def enough(self) -> bool:
        """Whether they allow conclusions beyond these scenes."""
        return self.kind != "block" and self.count >= MIN_UNITS

    def __str__(self) -> str:
        size = f" of {self.side} x {self.side} pixels" if self.kind == "block" else ""
        return f"{pluralize(self.count, f'test {self.kind}')}{size}"

    def merge(self, states: Sequence[MetricState]) -> list[MetricState]:
        """The state of each unit, at most `MAX_UNITS`, from those of the windows."""
        merged = min(self.count, MAX_UNITS)
        group = self.of_window * merged // self.count
        return [
            MetricState.merge([states[i] for i in np.flatnonzero(group == unit).tolist()])
            for unit in range(merged)
        ]


def units_by_name(kind: UnitKind, names: Sequence[str] | Sequence[int]) -> SpatialUnits:
    """Units by the name of each window's region or scene, in alphabetical order."""
    known, of_window = np.unique(names, return_inverse=True)
    return SpatialUnits(kind, of_window, len(known))


def independent_units(scenes: Sequence[str], areas: Sequence[int]) -> SpatialUnits:
    """The areas of the windows: scenes if each is an area of its own, else regions."""
    by_scene, by_area = units_by_name("scene", scenes), units_by_name("region", areas)
    return by_scene if by_scene.count == by_area.count else by_area


def blocks(scenes: Sequence[str], positions: NDArray[np.int64], values: Floats) -> SpatialUnits:
    """Blocks of the scenes, `RANGES_PER_BLOCK` correlation ranges wide.

    Args:
        scenes: the scene of each window.
        positions: row and column of each window in pixels, `(N, 2)`.
        values: such as differences of scores, `(K, N)`; correlations are averaged over K.
    """
    scene = units_by_name("scene", scenes).of_window
    side = RANGES_PER_BLOCK * correlation_range(scene, positions, values)
    keys = np.column_stack([scene, positions // side])
    _, of_window = np.unique(keys, axis=0, return_inverse=True)
    of_window = of_window.reshape(-1)
    return SpatialUnits("block", of_window, int(of_window.max()) + 1, side)


def correlation_range(
    scene: NDArray[np.int64], positions: NDArray[np.int64], values: Floats
) -> int:
    """The distance in pixels at which windows of a scene are no longer correlated.

    It is the first distance, in steps of the window grid, at which the mean correlogram is below
    `NEGLIGIBLE_CORRELATION` (Isaaks and Srivastava, Applied Geostatistics, 1989, chapter 4).
    """
    step = _grid_step(scene, positions)
    if len(scene) > MAX_CORRELATED_WINDOWS:
        kept = np.random.default_rng(0).choice(len(scene), MAX_CORRELATED_WINDOWS, replace=False)
        scene, positions, values = scene[kept], positions[kept], values[:, kept]
    spread = values.std(axis=1, keepdims=True)
    scores = (values - values.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)
    correlation = scores.T @ scores / max(1, int(np.sum(spread > 0)))
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    lags = np.where(scene[:, None] == scene[None], np.rint(distance / step), 0).astype(np.int64)
    pairs = np.bincount(lags.ravel())
    correlogram = np.bincount(lags.ravel(), correlation.ravel()) / np.maximum(pairs, 1)
    low = np.flatnonzero((correlogram < NEGLIGIBLE_CORRELATION) & (np.arange(len(pairs)) > 0))
    return step * int(low[0] if len(low) else len(pairs))


def _grid_step(scene: NDArray[np.int64], positions: NDArray[np.int64]) -> int:
    """The smallest distance in pixels between the rows or the columns of windows of a scene."""
    steps = [
        gaps[gaps > 0].min()
        for each in np.unique(scene)
        for axis in (0, 1)
        for gaps in [np.diff(np.unique(positions[scene == each, axis]))]
        if np.any(gaps > 0)
    ]
    return int(min(steps, default=1))
