"""Checks of pixel values: constant or clipped bands, undeclared nodata, units, consistency."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from geotune.data.checks.scan import SceneScan
from geotune.data.checks.scanned import ScannedData
from geotune.data.issues import Issue, Severity
from geotune.data.raster.viewer_notes import viewer_notes
from geotune.data.scenes.scene import Scene
from geotune.utils.text import join_some, pluralize

MIN_SATURATED = 0.01
"""Fraction of a band's pixels at its maximum that indicates clipping."""

SATURATION_FACTOR = 4.0
"""A clipped band has at least this many times the mean count of a value at its maximum."""

MIN_SATURATED_SCENES = 0.05
"""Fraction of scenes with a clipped band that is reported; clouds and roofs clip a few anywhere."""

MIN_FILL = 0.01
"""Fraction of pixels with one value in all bands that indicates undeclared nodata."""

MIN_INNER_FILL = 0.1
"""The same for a value between those of the scene, which may be the grey of water or a road."""

UNIT_FACTOR = 30.0
"""Values larger or smaller than those of other scenes by this factor are in other units."""

MIN_SCENES = 5
"""Minimum number of scenes to detect swapped bands."""

SWAP_DISTANCE = 4.0
"""Minimum distance of swapped bands from their median, in spreads between scenes and relative to
the distance after the swap."""


def check_band_values(scanned: ScannedData) -> list[Issue]:
    """Warnings for constant bands, clipped bands, undeclared nodata at borders, and palettes."""
    constant: dict[str, list[Path]] = defaultdict(list)
    saturated: list[tuple[float, str, float, Path]] = []
    filled: dict[tuple[float, bool], list[tuple[float, Path]]] = defaultdict(list)
    for _, scene, scan in scanned.scenes:
        path = scene.raster.path
        fill = scan.fill if scan.pixels and scan.fill else (0.0, 0)
        inner = scan.minima.min() < fill[0] < scan.maxima.max()
        least = (MIN_INNER_FILL if inner else MIN_FILL) * scan.pixels
        if fill[1] > least and (scan.maxima > scan.minima).any():
            stated = any(file.nodata is not None for file in scene.raster.band_files)
            filled[fill[0], stated].append((fill[1] / scan.pixels, path))
        for i, band in enumerate(scene.raster.bands):
            count, maximum = int(scan.counts[i]), float(scan.maxima[i])
            if count < 2:
                continue
            if scan.minima[i] == maximum:
                constant[band].append(path)
                continue
            # a filled border is not clipping
            at_maximum = int(scan.at_maximum[i]) - (fill[1] if fill[0] == maximum else 0)
            sample = scan.sampled_pixels[i]
            distinct = np.unique(sample[~np.isnan(sample)]).size
            if distinct and at_maximum > max(MIN_SATURATED, SATURATION_FACTOR / distinct) * count:
                saturated.append((at_maximum / count, band, maximum, path))
    issues = []
    total = len(scanned.scenes)
    for band, paths in constant.items():
        files = list(dict.fromkeys(map(str, paths)))
        text = (
            f"band {band} is constant in {len(files)} of {total} scenes: {join_some(files)}; check "
            "that the band has data"
        )
        issues.append(Issue("warning", "values", text, paths[0]))
    clipped = len({path for *_, path in saturated})
    if clipped and clipped >= MIN_SATURATED_SCENES * total:
        fraction, band, maximum, path = max(saturated)
        bands = list(dict.fromkeys(band for _, band, _, _ in saturated))
        text = (
            f"{path}: {fraction:.1%} of the pixels of band {band} have its maximum value "
            f"{maximum:g}; clipped bands: {join_some(bands, 20)}, in "
            f"{clipped} of {total} scenes; check whether values were "
            "clipped in conversion"
        )
        issues.append(Issue("warning", "values", text, path))
    for (value, stated), edges in filled.items():
        fraction, path = max(edges)
        others = f", as in {pluralize(len(edges) - 1, 'other scene')}" if edges[1:] else ""
        number = _exact(value)
        advice = (  # data.nodata is for files that state none
            f"make it the file's nodata value (gdal_edit.py -a_nodata {number})"
            if stated
            else f"set data.nodata: {number}"
        )
        text = (
            f"{path}: {fraction:.1%} of its pixels have the value {number} in every band{others}; "
            f"if that means nodata, {advice}"
        )
        issues.append(Issue("warning", "values", text, path))
    rasters = [scene.raster for _, scene, _ in scanned.scenes]
    issues.extend(Issue("warning", "values", *note) for note in viewer_notes(rasters))
    return issues


def _exact(value: float) -> str:
    """A number of float32, in six digits if these give it back."""
    text = f"{value:g}"
    return text if np.float32(text) == np.float32(value) else repr(value)


def check_units(scanned: ScannedData) -> list[Issue]:
    """Warnings for single scenes in other units than the rest, and with swapped bands."""
    rows = [(scene, scan) for _, scene, scan in scanned.scenes if (scan.counts > 0).all()]
    if len(rows) < 2:
        return []
    means = np.array([scan.means for _, scan in rows])
    magnitudes = np.abs(means).mean(axis=1)
    median = float(np.median(magnitudes))
    issues = []
    outliers = [
        f"{scene.raster.path} (mean {magnitude:.4g})"
        for (scene, _), magnitude in zip(rows, magnitudes, strict=True)
        if median > 0 and not 1 / UNIT_FACTOR < magnitude / median < UNIT_FACTOR
    ]
    if outliers:
        text = (
            f"{join_some(outliers)}: probably in other units than the rest, with a mean of about "
            f"{median:.4g}; rescale them"
        )
        issues.append(Issue("warning", "units", text))
    if len(rows) >= MIN_SCENES:
        for (scene, _), swap in zip(rows, _swaps(means, rows[0][0].raster.bands), strict=True):
            if swap:
                text = (
                    f"{scene.raster.path}: its bands may be swapped: {swap}, compared with other "
                    "scenes; check the band order of the file"
                )
                issues.append(Issue("warning", "units", text, scene.raster.path))
    return issues


def _swaps(means: NDArray[np.float64], bands: tuple[str, ...]) -> list[str]:
    """For each scene, which bands resemble which others; empty if none is swapped."""
    median = np.median(means, axis=0)
    deviation = 1.5 * np.median(np.abs(means - median), axis=0)
    spread = np.maximum(deviation, 1e-6 * np.abs(median) + 1e-9)
    swaps = []
    for row in means:
        # of band i of the scene from the median of band j
        distances = np.abs(row[:, None] - median[None]) / spread[None]
        _, best = linear_sum_assignment(distances**2)
        moved = [i for i, j in enumerate(best) if i != j]
        swapped = moved and all(
            distances[i, i] > SWAP_DISTANCE * max(1.0, distances[i, best[i]]) for i in moved
        )
        swaps.append(
            ", ".join(f"{bands[i]} resembles {bands[best[i]]}" for i in moved) if swapped else ""
        )
    return swaps


Property = Callable[[Scene, SceneScan], Hashable]


def _crs(scene: Scene, scan: SceneScan) -> str:
    crs = scene.raster.crs
    return "none" if crs is None else crs.to_string() if crs.to_epsg() else crs.to_wkt()[:60]


def _pixel_size(scene: Scene, scan: SceneScan) -> str:
    """Rounded to two digits: in degrees or Mercator it varies with the latitude."""
    side = scene.raster.gsd_m
    return "unknown" if side is None else f"{side:.2g} m"


def _shape(scene: Scene, scan: SceneScan) -> str:
    return "x".join(map(str, scene.shape))


def _dtype(scene: Scene, scan: SceneScan) -> str:
    return ", ".join(scan.dtypes)


def _nodata(scene: Scene, scan: SceneScan) -> str:
    return ", ".join(sorted({str(file.nodata) for file in scene.raster.band_files}))


def _scaling(scene: Scene, scan: SceneScan) -> str:
    stated = [f"{scale:g} and {offset:g}" for scale, offset in scan.scalings]
    return "none" if stated == ["1 and 0"] else ", ".join(stated)


PROPERTIES: dict[str, tuple[Property, Severity]] = {
    "data type": (_dtype, "warning"),
    "nodata value": (_nodata, "warning"),
    "scale and offset": (_scaling, "warning"),  # not applied, so that values are in other units
    "pixel size": (_pixel_size, "warning"),
    "CRS": (_crs, "note"),  # different UTM zones are compatible
    "size": (_shape, "note"),  # smaller scenes are padded
}
ADVICE = {"pixel size": "; data.resolution resamples all to one size, such as 10 m"}


def check_consistency(scanned: ScannedData) -> list[Issue]:
    """An issue for each property in which some scenes differ from the majority."""
    scenes = scanned.scenes
    issues = []
    for name, (read, severity) in PROPERTIES.items():
        values = [read(scene, scan) for _, scene, scan in scenes]
        if name == "size" and len(set(values)) == len(values):
            continue  # uncut scenes, each of another size
        paths = [scene.raster.path for _, scene, _ in scenes]
        common, count = Counter(values).most_common(1)[0]
        others = [(path, v) for path, v in zip(paths, values, strict=True) if v != common]
        if not others:
            continue
        if count * 2 > len(scenes):
            listed = join_some([f"{path} ({value})" for path, value in others])
            text = f"the {name} is {common} in {count} of {len(scenes)} scenes, but not in {listed}"
        else:
            examples = dict(zip(values, paths, strict=True))
            listed = join_some([f"{value} ({path})" for value, path in examples.items()])
            text = f"the {name} differs between the {len(scenes)} scenes: {listed}"
        advice = ADVICE.get(name, "")
        issues.append(Issue(severity, "consistency", text + advice, others[0][0]))
    return issues
