"""Scan of all scenes before training: statistics, class counts and positions, invalid pixels."""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geotune.data.checks.accumulators import (
    InvalidPixels,
    PositionReservoir,
    RunningMoments,
    ValueSummary,
    windows_with_labels,
)
from geotune.data.issues import ErrorCollector
from geotune.data.labels.regression_labels import RegressionLabels
from geotune.data.raster.header import HeaderCache
from geotune.data.raster.io import open_dataset
from geotune.data.raster.scaling import stated_scaling
from geotune.data.raster.source import Image
from geotune.data.raster.windows import blocks
from geotune.data.scenes.scene import BLOCK, Scene
from geotune.errors import GeotuneError
from geotune.types import BandStatistics
from geotune.utils.text import pluralize

SAMPLED_PIXELS = 200_000
"""Number of pixels sampled from all scenes together, for histograms."""


@dataclass(frozen=True)
class SceneScan:
    """Statistics of one scene.

    Attributes:
        pixels: number of pixels with data in any band.
        counts: valid pixels of each band, `(C,)`.
        means: mean of each band, `(C,)`.
        sq_deviations: sum of squared deviations from the mean of each band, `(C,)`.
        class_counts: valid labels (pixels, objects or images) of each class, `(K,)`.
        positions: for each class a uniform sample of up to `MAX_POSITIONS` of its labels, `(n, 2)`
            as (row, col).
        labelled_windows: (row, col) of the grid windows that contain a label.
        label_moments: count, mean and sum of squared deviations of regression labels.
        stored_moments: as `label_moments`, of the numbers of the file: of labels on another grid,
            the nearest ones.
        label_extremes: the lowest and the highest of these, each with its count; empty without any.
        minima: minimum of each band, `(C,)`; infinity without data.
        maxima: maximum of each band, `(C,)`; minus infinity without data.
        at_maximum: number of pixels of each band at its maximum, `(C,)`.
        fill: the most frequent value among pixels that are equal in all bands, and its count;
            None for a single band, for grey pictures in several bands, or without such a pixel.
        sampled_pixels: evenly spaced pixels, `(C, n)`, NaN without data.
        digest: hash of all pixels; equal for identical images.
        dtypes: data types of the files, without repeats.
        scalings: scale and offset that the files state for each band, without repeats.
    """

    pixels: int
    counts: NDArray[np.int64]
    means: NDArray[np.float64]
    sq_deviations: NDArray[np.float64]
    class_counts: NDArray[np.int64]
    positions: tuple[NDArray[np.int64], ...]
    labelled_windows: tuple[tuple[int, int], ...]
    label_moments: tuple[int, float, float]
    stored_moments: tuple[int, float, float]
    label_extremes: tuple[tuple[float, int], ...]
    minima: NDArray[np.float32]
    maxima: NDArray[np.float32]
    at_maximum: NDArray[np.int64]
    fill: tuple[float, int] | None
    sampled_pixels: Image
    digest: str
    dtypes: tuple[str, ...]
    scalings: tuple[tuple[float, float], ...]


class ScanStore(HeaderCache, Protocol):
    """Results of earlier scans; see `ScanCache`."""

    def key(self, scene: Scene, *options: object) -> str | None:
        """The key of a scan with these options."""

    def get(self, key: str | None) -> SceneScan | None:
        """The stored result."""

    def put(self, key: str | None, scan: SceneScan) -> None:
        """Store a result."""


def scan_scenes(
    scenes: Sequence[Scene],
    window: int,
    *,
    store: ScanStore | None = None,
    threads: int | None = None,
    progress: Callable[[Scene], None] | None = None,
    errors: ErrorCollector | None = None,
) -> list[SceneScan | None]:
    """Read all scenes; `window` is the window size of the grid of `labelled_windows`.

    Scenes whose result is in `store` are not read.

    Raises `GeotuneError` for unreadable files, NaN or infinite pixels that are not nodata, and
    unknown class values. If `errors` collects them, the scene's result is None. The results do not
    depend on `threads`.
    """
    errors = errors or ErrorCollector()
    num_sampled = max(64, SAMPLED_PIXELS // max(1, len(scenes)))

    results: list[SceneScan | None] = [None] * len(scenes)
    keys: list[str | None] = [None] * len(scenes)
    unread = []
    for i, scene in enumerate(scenes):
        if store:
            keys[i] = store.key(scene, window, num_sampled)
            results[i] = store.get(keys[i])
        if results[i] is None:
            unread.append(i)
        elif progress is not None:
            progress(scene)

    def scan(i: int) -> tuple[SceneScan | None, ErrorCollector]:
        # a collector per scene keeps the errors in the order of the scenes
        scene, result, scene_errors = scenes[i], None, ErrorCollector(errors.keep)
        with scene_errors.catch(scene.name, scene.raster.path):
            result = scan_scene(scene, window, num_sampled)
            if store:
                store.put(keys[i], result)
        if progress is not None:
            progress(scene)
        return result, scene_errors

    pool = ThreadPoolExecutor(threads or min(4, os.cpu_count() or 1))
    waits = True
    try:
        for i, (result, scene_errors) in zip(unread, pool.map(scan, unread), strict=True):
            results[i] = result
            errors.issues += scene_errors.issues
    except KeyboardInterrupt:  # a large scene takes minutes
        waits = False
        raise
    finally:
        pool.shutdown(wait=waits, cancel_futures=True)
    return results


def scan_scene(scene: Scene, window: int, num_sampled: int = SAMPLED_PIXELS) -> SceneScan:
    """Read one scene block by block and sample about `num_sampled` of its pixels."""
    num_bands, num_classes = len(scene.raster.bands), len(scene.labels.classes)
    moments, label_moments, stored_moments = map(RunningMoments, (num_bands, 1, 1))
    stored = _with_stored_labels(scene)
    rng = np.random.default_rng(zlib.crc32(scene.name.encode()))
    reservoirs = [PositionReservoir(rng) for _ in range(num_classes)]
    labelled: set[tuple[int, int]] = set()
    extremes: Counter[float] = Counter()
    invalid = InvalidPixels(num_bands)
    num_valid = 0
    # image-level labels count once
    side = max(scene.shape) if scene.labels.image_level else BLOCK
    summary = ValueSummary(num_bands, scene.shape, num_sampled)
    for block in blocks(scene.shape, side):
        pixels = scene.raster.read_block(block)
        invalid.add(pixels.invalid, scene.raster.to_grid(block))
        moments.add(pixels.image)
        summary.add(pixels.image)
        try:
            target = scene.read_labels(block).masked(pixels.valid)
        except GeotuneError:
            # reports every unknown value of the file
            scene.labels.check(map(scene.raster.to_grid, blocks(scene.shape, side)))
            raise
        num_valid += int(pixels.valid.sum())
        values = target.regression_values()
        label_moments.add(values[None])
        if stored is not scene:
            values = stored.read_labels(block).masked(pixels.valid).regression_values()
        stored_moments.add(values[None])
        if values.size:
            # of the whole scene, the extremes are those of every block that has them
            for end in {float(values.min()), float(values.max())}:
                extremes[end] += int((values == end).sum())
        for index, positions in target.class_positions():
            reservoirs[index].add(positions, block)
        labelled |= windows_with_labels(target.label_mask(pixels.valid), block, window)
    invalid.raise_on_any(scene)
    ends = sorted({min(extremes), max(extremes)}) if extremes else []
    dtypes = {dtype: None for path in scene.raster.paths for dtype in open_dataset(path).dtypes}
    return SceneScan(
        pixels=num_valid,
        counts=moments.counts,
        means=moments.means,
        sq_deviations=moments.sq_deviations,
        class_counts=np.array([r.num_seen for r in reservoirs], dtype=np.int64),
        positions=tuple(r.positions for r in reservoirs),
        labelled_windows=tuple(sorted(labelled)),
        label_moments=_of_one_band(label_moments),
        stored_moments=_of_one_band(stored_moments),
        label_extremes=tuple((end, extremes[end]) for end in ends),
        minima=summary.minima,
        maxima=summary.maxima,
        at_maximum=summary.at_maximum,
        fill=summary.fill,
        sampled_pixels=np.concatenate(summary.samples, axis=1),
        digest=summary.digest.hexdigest(),
        dtypes=tuple(dtypes),
        scalings=tuple(sorted({stated_scaling(file) for file in scene.raster.band_files})),
    )


def band_statistics(scenes: Sequence[Scene], scans: Sequence[SceneScan]) -> BandStatistics:
    """Mean and standard deviation of each band over all valid pixels of `scenes`.

    Raises `GeotuneError` for a band without any valid pixel.
    """
    bands = scenes[0].raster.bands
    total = RunningMoments(len(bands))
    for scan in scans:
        total.merge(scan.counts, scan.means, scan.sq_deviations)
    for band, count in zip(bands, total.counts, strict=True):
        if count == 0:
            raise GeotuneError(
                f"{scenes[0].raster.path}: of {pluralize(len(scenes), 'training scene')}, none has "
                f"a valid pixel in band {band}; check data.nodata and data.quality",
                code="band-empty",
                key="data.nodata",
                file=scenes[0].raster.path,
            )
    std = np.sqrt(total.sq_deviations / total.counts)
    return BandStatistics(
        bands=bands,
        mean=tuple(float(value) for value in total.means),
        std=tuple(float(value) for value in std),
        pixels=sum(scan.pixels for scan in scans),
    )


def label_statistics(scans: Sequence[SceneScan]) -> tuple[float, float] | None:
    """Mean and standard deviation of all regression labels; None for other labels."""
    total = RunningMoments(1)
    for count, mean, sq_deviation in (scan.label_moments for scan in scans):
        total.merge(np.array([count]), np.array([mean]), np.array([sq_deviation]))
    if not total.counts[0]:
        return None
    return float(total.means[0]), float(np.sqrt(total.sq_deviations[0] / total.counts[0]))


def _with_stored_labels(scene: Scene) -> Scene:
    """The scene with the numbers of its labels as they are in their file."""
    labels = scene.labels
    if not isinstance(labels, RegressionLabels) or labels.grid is None:
        return scene
    return replace(scene, labels=replace(labels, nearest=True))


def _of_one_band(moments: RunningMoments) -> tuple[int, float, float]:
    counts, means, sq_deviations = moments.counts, moments.means, moments.sq_deviations
    return int(counts[0]), float(means[0]), float(sq_deviations[0])
