"""Scenes whose values are unlike the other scenes': in other units, or with bands swapped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from geotune.data.checks.scanned import ScannedData
from geotune.data.issues import Issue
from geotune.utils.text import join_some

FACTOR = 30.0
"""Values so many times larger or smaller than the other scenes' are in other units."""

LEAST_SCENES = 5
"""Of fewer it is not clear what is usual."""

UNLIKE = 4.0
"""Spreads between scenes, and times further than after a swap, by which swapped bands lie off."""


def check_units(examined: ScannedData) -> list[Issue]:
    """Warnings for single scenes in other units than the rest, and with swapped bands."""
    rows = [(scene, scan) for _, scene, scan in examined.scenes if (scan.counts > 0).all()]
    if len(rows) < 2:
        return []
    means = np.array([scan.means for _, scan in rows])
    sizes = np.abs(means).mean(axis=1)
    usual = float(np.median(sizes))
    found = []
    odd = [
        f"{scene.raster.path} (mean {size:.4g})"
        for (scene, _), size in zip(rows, sizes, strict=True)
        if usual > 0 and not 1 / FACTOR < size / usual < FACTOR
    ]
    if odd:
        text = (
            f"{join_some(odd)}: other units than the rest, whose mean is about {usual:.4g}; bring all "
            "to one scale"
        )
        found.append(Issue("warning", "units", text))
    if len(rows) >= LEAST_SCENES:
        found += [
            Issue(
                "warning",
                "units",
                f"{scene.raster.path}: its bands look swapped: {swap}, by the other scenes' means; "
                "look at their order in the file",
                scene.raster.path,
            )
            for (scene, _), swap in zip(rows, _swaps(means, rows[0][0].raster.bands), strict=True)
            if swap
        ]
    return found


def _swaps(means: NDArray[np.float64], bands: tuple[str, ...]) -> list[str]:
    """Of each scene which of its bands looks like which other; empty where each is like itself."""
    usual = np.median(means, axis=0)
    spread = np.maximum(1.5 * np.median(np.abs(means - usual), axis=0), 1e-6 * np.abs(usual) + 1e-9)
    said = []
    for row in means:
        # how far band i of the scene is from what is usual for band j
        far = np.abs(row[:, None] - usual[None]) / spread[None]
        _, best = linear_sum_assignment(far**2)
        moved = [i for i, j in enumerate(best) if i != j]
        swapped = moved and all(far[i, i] > UNLIKE * max(1.0, far[i, best[i]]) for i in moved)
        said.append(
            ", ".join(f"{bands[i]} is like {bands[best[i]]}" for i in moved) if swapped else ""
        )
    return said
