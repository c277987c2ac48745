"""Scan of all scenes before training: statistics, class counts and positions, invalid pixels."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geotune.data.issues import ErrorCollector
from geotune.data.raster.io import open_dataset
from geotune.data.raster.scaling import stated_scaling
from geotune.data.raster.source import Image
from geotune.data.raster.windows import Window, blocks
from geotune.data.scenes.scene import BLOCK, Scene
from geotune.errors import GeotuneError
from geotune.types import BandStatistics

MAX_POSITIONS = 2048
"""Maximum number of positions stored per class and scene."""

SAMPLED_PIXELS = 200_000
"""Number of pixels sampled from all scenes together, for histograms."""

GREY = 0.5
"""Fraction of the pixels without the fill value that are equal in all bands in grey pictures."""

MAX_FILL_CANDIDATES = 64
"""Per block, the number of most frequent values (equal in all bands) that are counted."""


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
        label_extremes: the lowest and the highest regression label, each with its count; empty
            without any.
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
    label_extremes: tuple[tuple[float, int], ...]
    minima: NDArray[np.float32]
    maxima: NDArray[np.float32]
    at_maximum: NDArray[np.int64]
    fill: tuple[float, int] | None
    sampled_pixels: Image
    digest: str
    dtypes: tuple[str, ...]
    scalings: tuple[tuple[float, float], ...]


class ScanStore(Protocol):
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

    def scan(scene: Scene) -> tuple[SceneScan | None, ErrorCollector]:
        # a collector per scene keeps the errors in the order of the scenes
        scene_errors, result = ErrorCollector(errors.keep), None
        with scene_errors.catch(scene.name, scene.raster.path):
            key = store.key(scene, window, num_sampled) if store else None
            result = store.get(key) if store else None
            if result is None:
                result = scan_scene(scene, window, num_sampled)
                if store:
                    store.put(key, result)
        if progress is not None:
            progress(scene)
        return result, scene_errors

    results = []
    with ThreadPoolExecutor(threads or min(4, os.cpu_count() or 1)) as pool:
        for result, scene_errors in pool.map(scan, scenes):
            results.append(result)
            errors.issues += scene_errors.issues
    return results


def scan_scene(scene: Scene, window: int, num_sampled: int = SAMPLED_PIXELS) -> SceneScan:
    """Read one scene block by block and sample about `num_sampled` of its pixels."""
    num_bands, num_classes = len(scene.raster.bands), len(scene.labels.classes)
    moments, label_moments = RunningMoments(num_bands), RunningMoments(1)
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
        label_moments=(
            int(label_moments.counts[0]),
            float(label_moments.means[0]),
            float(label_moments.sq_deviations[0]),
        ),
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
                f"{scenes[0].raster.path}: no training scene has a valid pixel in band {band}; "
                "check data.nodata",
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


class RunningMoments:
    """Count, mean and squared deviations by band, merged block by block (Chan et al., 1983).

    A sum of squares would lose the variance of large values that differ little.
    """

    def __init__(self, num_bands: int) -> None:
        self.counts = np.zeros(num_bands, dtype=np.int64)
        self.means = np.zeros(num_bands)
        self.sq_deviations = np.zeros(num_bands)

    def add(self, image: Image) -> None:
        """Add the pixels `(C, ...)` that are not NaN."""
        counts = np.zeros_like(self.counts)
        means, sq_deviations = np.zeros_like(self.means), np.zeros_like(self.sq_deviations)
        for i, band in enumerate(image):
            values = band[~np.isnan(band)].astype(np.float64)
            if values.size:
                counts[i], means[i] = values.size, values.mean()
                sq_deviations[i] = np.square(values - means[i]).sum()
        self.merge(counts, means, sq_deviations)

    def merge(
        self,
        counts: NDArray[np.int64],
        means: NDArray[np.float64],
        sq_deviations: NDArray[np.float64],
    ) -> None:
        """Add the moments of other pixels."""
        total = self.counts + counts
        weight = counts / np.maximum(total, 1)
        delta = means - self.means
        self.sq_deviations = self.sq_deviations + sq_deviations + delta**2 * self.counts * weight
        self.means = self.means + delta * weight
        self.counts = total


class ValueSummary:
    """Range, most frequent value, digest and a sample of a scene's pixels; see `SceneScan`."""

    def __init__(self, num_bands: int, shape: tuple[int, int], num_sampled: int) -> None:
        self.minima = np.full(num_bands, np.inf, dtype=np.float32)
        self.maxima = np.full(num_bands, -np.inf, dtype=np.float32)
        self.at_maximum = np.zeros(num_bands, dtype=np.int64)
        self.fill_counts: Counter[float] = Counter()
        self.equal = self.pixels = 0
        self.step = max(1, shape[0] * shape[1] // num_sampled)
        self.samples: list[Image] = []
        self.digest = hashlib.blake2b(repr((num_bands, shape)).encode(), digest_size=16)

    def add(self, image: Image) -> None:
        """Add a block `(C, ..., H, W)`."""
        self.digest.update(np.ascontiguousarray(image).data)
        flat = image.reshape(len(image), -1)
        self.samples.append(flat[:, self.step // 2 :: self.step].copy())
        for i, band in enumerate(flat):
            maximum = np.fmax.reduce(band)
            if np.isnan(maximum):
                continue
            if maximum >= self.maxima[i]:
                previous = self.at_maximum[i] if maximum == self.maxima[i] else 0
                self.maxima[i] = maximum
                self.at_maximum[i] = previous + np.count_nonzero(band == maximum)
            self.minima[i] = min(self.minima[i], np.fmin.reduce(band))
        if len(flat) > 1:
            equal = flat[0][(flat[1:] == flat[0]).all(axis=0)]
            self.equal += equal.size
            self.pixels += int((~np.isnan(flat[0])).sum())
            values, counts = np.unique(equal, return_counts=True)
            top = np.argsort(counts)[-MAX_FILL_CANDIDATES:]
            self.fill_counts.update(
                dict(zip(values[top].tolist(), counts[top].tolist(), strict=True))
            )

    @property
    def fill(self) -> tuple[float, int] | None:
        """The most frequent value among pixels that are equal in all bands, and its count."""
        if not self.fill_counts:
            return None
        [(value, count)] = self.fill_counts.most_common(1)
        grey = self.equal - count > GREY * (self.pixels - count)
        return None if grey else (value, count)


class PositionReservoir:
    """A uniform random sample of up to `MAX_POSITIONS` positions of a class."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.num_seen = 0
        self.positions = np.zeros((0, 2), dtype=np.int64)

    def add(self, indices: NDArray[np.int64], block: Window) -> None:
        """Add positions, given as indices into the flattened block."""
        size = len(self.positions)
        new = min(len(indices), MAX_POSITIONS) if size == 0 else self._num_new(len(indices))
        drawn = self.rng.choice(indices, new, replace=False) if new < len(indices) else indices
        old = self.positions
        if size + new > MAX_POSITIONS:
            old = old[self.rng.choice(size, MAX_POSITIONS - new, replace=False)]
        rows, cols = np.divmod(drawn, block.width)
        added = np.stack([rows + block.row, cols + block.col], axis=1)
        self.positions = np.concatenate([old, added])
        self.num_seen += len(indices)

    def _num_new(self, count: int) -> int:
        """How many of the sample come from `count` new positions, drawn at random."""
        if self.num_seen + count <= MAX_POSITIONS:
            return count
        if self.num_seen >= 10**9:  # numpy's limit; here the draws are practically independent
            return int(self.rng.binomial(MAX_POSITIONS, count / (self.num_seen + count)))
        return int(self.rng.hypergeometric(count, self.num_seen, MAX_POSITIONS))


class InvalidPixels:
    """NaN and infinite pixels that are not nodata: their number and first position by band."""

    def __init__(self, num_bands: int) -> None:
        self.counts = np.zeros(num_bands, dtype=np.int64)
        self.first: list[tuple[int, int] | None] = [None] * num_bands

    def add(self, invalid: NDArray[np.bool_], block: Window) -> None:
        """Count the invalid pixels `(C, ..., H, W)` of a block."""
        for i in np.flatnonzero(invalid.reshape(len(invalid), -1).any(axis=1)):
            self.counts[i] += int(invalid[i].sum())
            *_, row, col = np.argwhere(invalid[i])[0]
            position = (int(row) + block.row, int(col) + block.col)
            first = self.first[i]
            self.first[i] = position if first is None else min(first, position)

    def raise_on_any(self, scene: Scene) -> None:
        """Raise `GeotuneError` for the first band with an invalid pixel."""
        for i in np.flatnonzero(self.counts):
            file = scene.raster.band_files[i * scene.raster.num_dates]
            row, col = self.first[i] or (0, 0)
            nodata, advice = (
                ("has no nodata value", "set data.nodata: .nan")
                if file.nodata is None
                else (f"nodata is {file.nodata:g}", "give them the nodata value")
            )
            raise GeotuneError(
                f"{file.path}: band {scene.raster.bands[i]} has {self.counts[i]} NaN or infinite "
                f"pixels that are not nodata ({nodata}), first at row {row}, column {col}; if "
                f"they mean nodata, {advice}, otherwise correct the file",
                code="pixels-invalid",
                key="data.nodata",
                file=file.path,
            )


def windows_with_labels(
    labelled: NDArray[np.bool_], block: Window, window: int
) -> set[tuple[int, int]]:
    """(row, col) of the grid windows that contain a labelled pixel `(H, W)` of the block."""
    rows = _grid_starts(block.row, block.height, window)
    cols = _grid_starts(block.col, block.width, window)
    found = np.logical_or.reduceat(np.logical_or.reduceat(labelled, rows, axis=0), cols, axis=1)
    return {
        (
            (block.row + int(rows[i])) // window * window,
            (block.col + int(cols[j])) // window * window,
        )
        for i, j in np.argwhere(found)
    }


def _grid_starts(offset: int, length: int, window: int) -> NDArray[np.int64]:
    """Where grid windows start in `length` pixels from `offset`, after the first pixel itself."""
    first = -offset % window
    inner = np.arange(first, length, window)
    return inner if first == 0 else np.concatenate([[0], inner])
