"""Bands that hold one value, or too often the same."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from geotune.data.checks.scanned import ScannedData
from geotune.data.issues import Issue
from geotune.utils.text import join_some, pluralize

SATURATED = 0.01
"""Share of a band's pixels at its highest value that speaks of clipping."""

PILED = 4.0
"""So many times the average value's pixels hold the highest one of a clipped band."""

FILLED = 0.01
"""Share of pixels with one value in all bands alike that speaks of a border without data."""


def check_band_values(examined: ScannedData) -> list[Issue]:
    """Warnings for constant bands, saturated ones, and borders that are not marked as nodata."""
    constant: dict[str, list[Path]] = defaultdict(list)
    saturated: list[tuple[float, str, float, Path]] = []
    filled: dict[float, list[tuple[float, Path]]] = defaultdict(list)
    for _, scene, scan in examined.scenes:
        path = scene.raster.path
        fill = scan.fill if scan.pixels and scan.fill else (0.0, 0)
        if fill[1] > FILLED * scan.pixels and (scan.maxima > scan.minima).any():
            filled[fill[0]].append((fill[1] / scan.pixels, path))
        for i, band in enumerate(scene.raster.bands):
            count, high = int(scan.counts[i]), float(scan.maxima[i])
            if count < 2:
                continue
            if scan.minima[i] == high:
                constant[band].append(path)
                continue
            # what fills a border is no clipping
            at_high = int(scan.at_maximum[i]) - (fill[1] if fill[0] == high else 0)
            distinct = np.unique(scan.sampled_pixels[i][~np.isnan(scan.sampled_pixels[i])]).size
            if distinct and at_high > max(SATURATED, PILED / distinct) * count:
                saturated.append((at_high / count, band, high, path))
    found = []
    for band, paths in constant.items():
        files = list(dict.fromkeys(map(str, paths)))
        text = (
            f"band {band} has one value in {len(files)} of {len(examined.scenes)} scenes: "
            f"{join_some(files)}; "
            "look whether the band is there"
        )
        found.append(Issue("warning", "values", text, paths[0]))
    if saturated:
        share, band, high, path = max(saturated)
        bands = list(dict.fromkeys(case[1] for case in saturated))
        text = (
            f"{path}: {share:.1%} of band {band} hold its highest value {high:g}; saturated are "
            f"{join_some(bands, 20)}, in {len({case[3] for case in saturated})} of "
            f"{len(examined.scenes)} scenes: were they clipped when they were converted?"
        )
        found.append(Issue("warning", "values", text, path))
    for value, edges in filled.items():
        share, path = max(edges)
        text = (
            f"{path}: {share:.1%} of its pixels hold {value:g} in every band"
            + (f", and so it is in {pluralize(len(edges) - 1, 'more scene')}" if edges[1:] else "")
            + f"; where that means no data set data.nodata: {value:g}"
        )
        found.append(Issue("warning", "values", text, path))
    return found
