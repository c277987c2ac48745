"""Statistics of a scene that are accumulated block by block; see `scan.py`."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from geotune.data.raster.source import Image
from geotune.data.raster.windows import Window
from geotune.data.scenes.scene import Scene
from geotune.errors import GeotuneError

MAX_POSITIONS = 2048
"""Maximum number of positions stored per class and scene."""

GREY = 0.5
"""Fraction of the pixels without the fill value that are equal in all bands in grey pictures."""

MAX_FILL_CANDIDATES = 64
"""Per block, the number of most frequent values (equal in all bands) that are counted."""


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
