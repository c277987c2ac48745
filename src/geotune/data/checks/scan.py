"""Reading every scene once before training: errors, statistics, and where each class is."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geotune.data.issues import ErrorCollector
from geotune.data.raster.io import open_dataset
from geotune.data.raster.source import Image
from geotune.data.raster.windows import Window, blocks
from geotune.data.scenes.scene import BLOCK, Scene
from geotune.errors import GeotuneError
from geotune.types import BandStatistics

MAX_POSITIONS = 2048
"""Maximum number of positions kept per class and scene."""

SAMPLED_PIXELS = 200_000
"""Number of pixels sampled from all scenes together, for histograms."""


ALIKE = 64
"""Values that are counted in a block, of those that pixels hold in all bands alike."""


@dataclass(frozen=True)
class SceneScan:
    """What one scene holds.

    Attributes:
        pixels: pixels with data in any band.
        counts: pixels with data of each band, `(C,)`.
        means: mean of each band over them.
        squares: sum of squared distances from the mean.
        class_counts: what is marked of each class where there is data, `(K,)`: its pixels
            or objects.
        positions: for each class up to `KEPT` of its marks, `(n, 2)` as (row, col), each of them
            equally likely.
        labelled: (row, col) of those windows of the scene's grid that hold a labelled pixel.
        numbers: count, mean and sum of squared distances from it of the numbers in the labels.
        lows: least value of each band, `(C,)`; infinite where there is none.
        highs: the highest.
        at_high: pixels of each band that hold its highest value, `(C,)`.
        fill: the value that most pixels hold in all bands alike, and how many; None where there
            is one band or no such pixel.
        sample: some of the pixels, evenly spread, `(C, n)` with NaN where there is no data.
        digest: of all pixels: two scenes with the same one hold the same.
        dtypes: of the files' values, each once.
    """

    pixels: int
    counts: NDArray[np.int64]
    means: NDArray[np.float64]
    sq_deviations: NDArray[np.float64]
    class_counts: NDArray[np.int64]
    positions: tuple[NDArray[np.int64], ...]
    labelled_windows: tuple[tuple[int, int], ...]
    label_moments: tuple[int, float, float]
    minima: NDArray[np.float32]
    maxima: NDArray[np.float32]
    at_maximum: NDArray[np.int64]
    fill: tuple[float, int] | None
    sampled_pixels: Image
    digest: str
    dtypes: tuple[str, ...]


def scan_scenes(
    scenes: Sequence[Scene],
    window: int,
    *,
    threads: int | None = None,
    progress: Callable[[Scene], None] | None = None,
    errors: ErrorCollector | None = None,
) -> list[SceneScan | None]:
    """Read all scenes; `window` is the side of the grid that `labelled` is about.

    Raises `GeotuneError` for a file that cannot be read to its end, NaN or infinite pixels
    outside nodata, and class values that are not in the list; where `errors` keep it, the scene's
    place in the result is None. The result does not depend on `threads`.
    """
    errors = errors or ErrorCollector()
    sampled = max(64, SAMPLED_PIXELS // max(1, len(scenes)))

    def one(scene: Scene) -> tuple[SceneScan | None, ErrorCollector]:
        own, result = (
            ErrorCollector(errors.keep),
            None,
        )  # in the scenes' order, whichever is ready first
        with own.catch(scene.name, scene.raster.path):
            result = scan_scene(scene, window, sampled)
        if progress is not None:
            progress(scene)
        return result, own

    results = []
    with ThreadPoolExecutor(threads or min(4, os.cpu_count() or 1)) as pool:
        for result, own in pool.map(one, scenes):
            results.append(result)
            errors.issues += own.issues
    return results


def scan_scene(scene: Scene, window: int, sampled: int = SAMPLED_PIXELS) -> SceneScan:
    """Read one scene block by block, and keep about so many pixels of it."""
    bands, classes = len(scene.raster.bands), len(scene.labels.classes)
    moments, numbers = _Moments(bands), _Moments(1)
    rng = np.random.default_rng(zlib.crc32(scene.name.encode()))
    reservoirs = [_Reservoir(rng) for _ in range(classes)]
    labelled: set[tuple[int, int]] = set()
    errors = _Faults(bands)
    num_valid = 0
    # image-level labels count once
    side = max(scene.shape) if scene.labels.image_level else BLOCK
    looks = _Looks(bands, scene.shape, sampled)
    for block in blocks(scene.shape, side):
        pixels = scene.raster.read_block(block)
        errors.add(pixels.invalid, scene.raster.to_grid(block))
        moments.add(pixels.image)
        looks.add(pixels.image)
        valid = pixels.valid
        try:
            target = scene.read_labels(block).masked(valid)
        except GeotuneError:
            # reports every unknown value of the file
            scene.labels.check(map(scene.raster.to_grid, blocks(scene.shape, side)))
            raise
        num_valid += int(valid.sum())
        numbers.add(target.regression_values()[None])
        for index, where in target.class_positions():
            reservoirs[index].add(where, block)
        labelled |= _cells(target.label_mask(valid), block, window)
    errors.refuse(scene)
    return SceneScan(
        pixels=num_valid,
        counts=moments.counts,
        means=moments.means,
        sq_deviations=moments.squares,
        class_counts=np.array([r.seen for r in reservoirs], dtype=np.int64),
        positions=tuple(r.positions for r in reservoirs),
        labelled_windows=tuple(sorted(labelled)),
        label_moments=(int(numbers.counts[0]), float(numbers.means[0]), float(numbers.squares[0])),
        minima=looks.lows,
        maxima=looks.highs,
        at_maximum=looks.at_high,
        fill=looks.fill,
        sampled_pixels=np.concatenate(looks.kept, axis=1),
        digest=looks.digest.hexdigest(),
        dtypes=tuple(
            {place: None for path in scene.raster.paths for place in open_dataset(path).dtypes}
        ),
    )


def band_statistics(scenes: Sequence[Scene], scans: Sequence[SceneScan]) -> BandStatistics:
    """Mean and standard deviation of each band over all valid pixels of `scenes`.

    Raises `GeotuneError` for a band without any valid pixel.
    """
    total = _Moments(len(scenes[0].raster.bands))
    for result in scans:
        total.merge(result.counts, result.means, result.sq_deviations)
    bands = scenes[0].raster.bands
    for band, count in zip(bands, total.counts, strict=True):
        if count == 0:
            raise GeotuneError(
                f"{scenes[0].raster.path}: no training scene has a valid pixel in band {band}; "
                "check data.nodata",
                code="band-empty",
                key="data.nodata",
                file=scenes[0].raster.path,
            )
    std = np.sqrt(total.squares / total.counts)
    return BandStatistics(
        bands=bands,
        mean=tuple(float(value) for value in total.means),
        std=tuple(float(value) for value in std),
        pixels=sum(result.pixels for result in scans),
    )


def label_statistics(scans: Sequence[SceneScan]) -> tuple[float, float] | None:
    """Mean and standard deviation of the numbers in all labels; None where there are none."""
    total = _Moments(1)
    for count, mean, squares in (result.label_moments for result in scans):
        total.merge(np.array([count]), np.array([mean]), np.array([squares]))
    if not total.counts[0]:
        return None
    return float(total.means[0]), float(np.sqrt(total.squares[0] / total.counts[0]))


class _Moments:
    """Count, mean and squared distances by band, merged block by block (Chan et al., 1983).

    A plain sum of squares loses the variance of large values that differ little.
    """

    def __init__(self, bands: int) -> None:
        self.counts = np.zeros(bands, dtype=np.int64)
        self.means = np.zeros(bands)
        self.squares = np.zeros(bands)

    def add(self, image: Image) -> None:
        counts = np.zeros_like(self.counts)
        means, squares = np.zeros_like(self.means), np.zeros_like(self.squares)
        for i, band in enumerate(image):
            values = band[~np.isnan(band)].astype(np.float64)
            if values.size:
                counts[i], means[i] = values.size, values.mean()
                squares[i] = np.square(values - means[i]).sum()
        self.merge(counts, means, squares)

    def merge(
        self,
        counts: NDArray[np.int64],
        means: NDArray[np.float64],
        squares: NDArray[np.float64],
    ) -> None:
        total = self.counts + counts
        share = counts / np.maximum(total, 1)
        distance = means - self.means
        self.squares = self.squares + squares + distance**2 * self.counts * share
        self.means = self.means + distance * share
        self.counts = total


class _Looks:
    """How the values of a scene look: their range, what many pixels hold, and some of them."""

    def __init__(self, bands: int, shape: tuple[int, int], sampled: int) -> None:
        self.lows = np.full(bands, np.inf, dtype=np.float32)
        self.highs = np.full(bands, -np.inf, dtype=np.float32)
        self.at_high = np.zeros(bands, dtype=np.int64)
        self.alike: Counter[float] = Counter()
        self.every = max(1, shape[0] * shape[1] // sampled)
        self.kept: list[Image] = []
        self.digest = hashlib.blake2b(repr((bands, shape)).encode(), digest_size=16)

    def add(self, image: Image) -> None:
        self.digest.update(np.ascontiguousarray(image).data)
        flat = image.reshape(len(image), -1)
        self.kept.append(flat[:, self.every // 2 :: self.every].copy())
        for i, band in enumerate(flat):
            high = np.fmax.reduce(band)
            if np.isnan(high):
                continue
            if high >= self.highs[i]:
                held = self.at_high[i] if high == self.highs[i] else 0
                self.highs[i], self.at_high[i] = high, held + np.count_nonzero(band == high)
            self.lows[i] = min(self.lows[i], np.fmin.reduce(band))
        if len(flat) > 1:
            alike = flat[0][(flat[1:] == flat[0]).all(axis=0)]
            values, counts = np.unique(alike, return_counts=True)
            most = np.argsort(counts)[-ALIKE:]
            self.alike.update(dict(zip(values[most].tolist(), counts[most].tolist(), strict=True)))

    @property
    def fill(self) -> tuple[float, int] | None:
        """The value that most pixels hold in all bands alike."""
        return self.alike.most_common(1)[0] if self.alike else None


class _Reservoir:
    """A uniform sample of a class's marks, whatever their number."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.seen = 0
        self.positions = np.zeros((0, 2), dtype=np.int64)

    def add(self, where: NDArray[np.int64], block: Window) -> None:
        kept = len(self.positions)
        new = min(len(where), MAX_POSITIONS) if kept == 0 else self._share_of(len(where))
        flat = self.rng.choice(where, new, replace=False) if new < len(where) else where
        old = self.positions
        if kept + new > MAX_POSITIONS:
            old = old[self.rng.choice(kept, MAX_POSITIONS - new, replace=False)]
        rows, cols = np.divmod(flat, block.width)
        fresh = np.stack([rows + block.row, cols + block.col], axis=1)
        self.positions = np.concatenate([old, fresh])
        self.seen += len(where)

    def _share_of(self, count: int) -> int:
        """How many of a sample of the pixels seen so far and `count` more are among the latter."""
        if self.seen + count <= MAX_POSITIONS:
            return count
        if self.seen >= 10**9:  # numpy's limit; at this size the draws are as good as independent
            return int(self.rng.binomial(MAX_POSITIONS, count / (self.seen + count)))
        return int(self.rng.hypergeometric(count, self.seen, MAX_POSITIONS))


class _Faults:
    """NaN and infinite pixels outside nodata."""

    def __init__(self, bands: int) -> None:
        self.counts = np.zeros(bands, dtype=np.int64)
        self.first: list[tuple[int, int] | None] = [None] * bands

    def add(self, wrong: NDArray[np.bool_], block: Window) -> None:
        for i in np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1)):
            self.counts[i] += int(wrong[i].sum())
            *_, row, col = np.argwhere(wrong[i])[0]
            here = (int(row) + block.row, int(col) + block.col)
            first = self.first[i]
            self.first[i] = here if first is None else min(first, here)

    def refuse(self, scene: Scene) -> None:
        for i in np.flatnonzero(self.counts):
            place = scene.raster.band_files[i * scene.raster.num_dates]
            row, col = self.first[i] or (0, 0)
            has = "has no nodata value" if place.nodata is None else f"nodata is {place.nodata:g}"
            raise GeotuneError(
                f"{place.path}: band {scene.raster.bands[i]} has {self.counts[i]} NaN or infinite "
                f"pixels that are not nodata ({has}), first at row {row}, column {col}; if "
                "they mean nodata, set data.nodata: .nan (or the file's nodata), otherwise correct "
                "the file",
                code="pixels-invalid",
                key="data.nodata",
                file=place.path,
            )


def _cells(there: NDArray[np.bool_], block: Window, window: int) -> set[tuple[int, int]]:
    """(row, col) of the grid's windows of which the block holds a labelled pixel."""
    rows = _starts(block.row, block.height, window)
    cols = _starts(block.col, block.width, window)
    found = np.logical_or.reduceat(np.logical_or.reduceat(there, rows, axis=0), cols, axis=1)
    return {
        (
            (block.row + int(rows[i])) // window * window,
            (block.col + int(cols[j])) // window * window,
        )
        for i, j in np.argwhere(found)
    }


def _starts(offset: int, length: int, window: int) -> NDArray[np.int64]:
    """Where windows of the grid begin in a stretch of pixels; its own begin first."""
    first = -offset % window
    inner = np.arange(first, length, window)
    return inner if first == 0 else np.concatenate([[0], inner])
