"""Compare the images of a prediction with those of the training: units, type, pixel size, scaling.

A model gives a confident map of any numbers. Scenes differ, so only large differences are noted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from geotune.adapter_config import TrainingImages
from geotune.data.datamodule import DataModule
from geotune.data.raster.crs import metres_per_pixel
from geotune.data.raster.io import open_dataset
from geotune.data.raster.scaling import stated_scaling
from geotune.data.raster.source import RasterSource
from geotune.data.raster.viewer_notes import viewer_notes
from geotune.data.raster.windows import Window
from geotune.normalization import MAX_MEAN_SHIFT, known_factor
from geotune.types import BandStatistics
from geotune.utils.text import join_some

MAX_PIXEL_RATIO = 1.25
"""Pixel sizes that differ by less are alike."""
MAX_LEVEL_RATIO = 20.0
"""Values are in other units if most bands differ by more than this factor."""
MAX_LEVEL_RATIO_OF_TYPES = 2.0
"""The same for files of another data type."""
MAX_BAND_RATIO = 1000.0
"""The same for a single band; the near infrared over water may be a hundredth of that over land."""
SAMPLES = 16
"""Number of windows that are read of a scene, or of all images of a table."""
SAMPLE_SIDE = 256
MAX_PIXELS = 1 << 16
"""Pixels of an array that are compared."""

T = TypeVar("T")


def training_images(data: DataModule) -> TrainingImages:
    """What the images of a training are like; with the pixel sizes that its augmentation shows."""
    sources = [scene.raster for scene in data.train.scenes]
    gsds_m = [size for size in map(_pixel_m, sources) if size is not None]
    low, high = data.train.augment.scale
    return TrainingImages(
        mean=list(data.statistics.mean),
        std=list(data.statistics.std),
        dtypes=sorted(_dtypes(_evenly(sources, SAMPLES))),
        scalings=sorted(_scalings(_evenly(sources, SAMPLES))),
        pixel_m=(min(gsds_m) / high, max(gsds_m) / low) if gsds_m else None,
    )


def compare_images(sources: Mapping[str, RasterSource], trained: TrainingImages) -> list[str]:
    """Notes on images that are unlike those of the training; reads a few windows of them.

    Args:
        sources: one scene, or all images of a table; with the bands of the model.
        trained: the images of the training.
    """
    rasters = sources.values()
    notes = [
        *(text for text, _ in viewer_notes(rasters)),
        _pixel_size_note(list(sources.values()), trained),
    ]
    sampled = _evenly(list(sources.values()), SAMPLES)
    notes.append(_scaling_note(sampled, trained))
    statistics = _sample_statistics(sampled)
    if statistics is not None:
        name, dtypes = str(sampled[0].path), _dtypes(sampled)
        notes.append(_units_note(name, dtypes, statistics, trained))
    return [note for note in notes if note is not None]


def compare_pixels(
    pixels: NDArray[np.float32], dtype: str, bands: Sequence[str], trained: TrainingImages
) -> str | None:
    """A note on an array `(B, C, ...)` in other units than the images of the training.

    `dtype` is what it was before; files of any type may have been read as floats, so only a type of
    integers is compared.
    """
    step = max(1, math.ceil(math.sqrt(pixels[:, 0].size / MAX_PIXELS)))
    values = np.moveaxis(pixels[..., ::step, ::step], 1, 0).reshape(len(bands), -1)
    statistics = _statistics(bands, _sums(values))
    dtypes = {dtype} if dtype.startswith(("int", "uint")) else set(trained.dtypes)
    return None if statistics is None else _units_note("pixels", dtypes, statistics, trained)


def _pixel_size_note(sources: Sequence[RasterSource], trained: TrainingImages) -> str | None:
    if trained.pixel_m is None:
        return None
    low, high = trained.pixel_m
    sizes = [(source, _pixel_m(source)) for source in sources]
    unlike = [
        (source, size)
        for source, size in sizes
        if size is not None and not low / MAX_PIXEL_RATIO <= size <= high * MAX_PIXEL_RATIO
    ]
    if not unlike:
        return None
    source, size = unlike[0]
    factor = f"{size / high:.3g} times larger" if size > high else f"{low / size:.3g} times smaller"
    usual = f"{low:.3g} m" if high < low * 1.01 else f"{low:.3g} to {high:.3g} m"
    nearest = high if size > high else low
    more = f" (and of {len(unlike) - 1} more images)" if unlike[1:] else ""
    return (
        f"{source.path}: its pixels{more} have {size:.3g} m, but those of the training {usual}: "
        f"{factor}; use images of about {nearest:.3g} m"
    )


def _pixel_m(source: RasterSource) -> float | None:
    """Side of a pixel in metres; of images that are resampled to finer pixels, before that."""
    gsd_m = source.gsd_m
    if gsd_m is None or any(file.grid is None for file in source.band_files):
        return gsd_m
    handles = [open_dataset(path) for path in source.paths]
    native = [metres_per_pixel(file.crs, file.transform, file.shape) for file in handles]
    return max(gsd_m, min((size for size in native if size is not None), default=gsd_m))


def _scaling_note(sources: Sequence[RasterSource], trained: TrainingImages) -> str | None:
    unlike = sorted(_scalings(sources) - set(trained.scalings))
    if not trained.scalings or not unlike:
        return None
    found, known = (
        join_some([f"scale {scale:g} and offset {offset:g}" for scale, offset in scalings])
        for scalings in (unlike, trained.scalings)
    )
    return (
        f"{sources[0].path}: the files state {found}, but those of the training {known}, and "
        "neither is applied; convert the images to the units of the training"
    )


def _units_note(
    name: str, found: set[str], statistics: BandStatistics, trained: TrainingImages
) -> str | None:
    reference = BandStatistics(statistics.bands, tuple(trained.mean), tuple(trained.std), pixels=0)
    levels = zip(_levels(statistics), _levels(reference), strict=True)
    ratios = [level / known if min(level, known) > 0 else 1.0 for level, known in levels]
    means = zip(statistics.mean, reference.mean, reference.std, strict=True)
    shifts = [abs(mean - known) / std if std > 0 else 0.0 for mean, known, std in means]
    same_types = found <= set(trained.dtypes)
    order = sorted(range(len(ratios)), key=lambda i: abs(math.log(ratios[i])))
    middle, extreme = order[(len(order) - 1) // 2], order[-1]
    shifted = max(range(len(shifts)), key=shifts.__getitem__)
    if abs(math.log(ratios[middle])) > math.log(
        MAX_LEVEL_RATIO if same_types else MAX_LEVEL_RATIO_OF_TYPES
    ):
        band = middle
    elif abs(math.log(ratios[extreme])) > math.log(MAX_BAND_RATIO):
        band = extreme
    elif shifts[shifted] > MAX_MEAN_SHIFT:
        band = shifted
    else:
        return None
    types = "" if same_types else f" ({', '.join(sorted(found))} values)"
    of_training = "" if same_types else f" ({', '.join(trained.dtypes)} values)"
    factor = known_factor(statistics, reference)
    if not factor and statistics.mean[band] * reference.mean[band] > 0:
        ratio = statistics.mean[band] / reference.mean[band]
        factor = f", {max(ratio, 1 / ratio):.3g} times {'larger' if ratio > 1 else 'smaller'}"
    return (
        f"{name}: band {statistics.bands[band]} has mean {statistics.mean[band]:.4g} "
        f"and standard deviation {statistics.std[band]:.4g}{types}, but the model was trained on "
        f"{reference.mean[band]:.4g} and {reference.std[band]:.4g}{of_training}: other units, or a "
        f"scene unlike those of the training{factor}; the prediction is unreliable"
    )


def _levels(statistics: BandStatistics) -> list[float]:
    """The root mean square of each band."""
    return [math.hypot(*pair) for pair in zip(statistics.mean, statistics.std, strict=True)]


def _sample_statistics(sources: Sequence[RasterSource]) -> BandStatistics | None:
    """Band statistics of some windows, evenly spaced; None if they hold no data."""
    bands = sources[0].bands
    sums = np.zeros((3, len(bands)))
    per_side = max(1, round(math.sqrt(SAMPLES / len(sources))))
    for source in sources:
        height, width = (min(side, SAMPLE_SIDE) for side in source.shape)
        for row in _starts(source.shape[0], height, per_side):
            for col in _starts(source.shape[1], width, per_side):
                values = source.read(Window(row, col, height, width)).reshape(len(bands), -1)
                sums += _sums(values)
    return _statistics(bands, sums)


def _sums(values: NDArray[Any]) -> NDArray[np.float64]:
    """Number, sum and sum of squares `(3, C)` of the values `(C, N)` that are not NaN."""
    present = ~np.isnan(values)
    filled = np.where(present, values, 0).astype(np.float64)
    return np.array([present.sum(1), filled.sum(1), (filled**2).sum(1)], dtype=np.float64)


def _statistics(bands: Sequence[str], sums: NDArray[np.float64]) -> BandStatistics | None:
    """Band statistics from `_sums`; None if a band has no data."""
    count, total, squares = sums
    if not count.all():
        return None
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return BandStatistics(tuple(bands), tuple(mean.tolist()), tuple(std.tolist()), int(count.max()))


def _starts(length: int, window: int, count: int) -> list[int]:
    """Evenly spaced first pixels of up to `count` windows along an axis, without overlap."""
    count = min(count, -(-length // window))
    return sorted({round(start) for start in np.linspace(0, length - window, count)})


def _dtypes(sources: Iterable[RasterSource]) -> set[str]:
    """Data types of the files."""
    return {
        str(open_dataset(file.path).dtypes[file.index - 1])
        for source in sources
        for file in source.band_files
    }


def _scalings(sources: Iterable[RasterSource]) -> set[tuple[float, float]]:
    """Scale and offset that the files state for their bands."""
    return {stated_scaling(file) for source in sources for file in source.band_files}


def _evenly(items: Sequence[T], count: int) -> list[T]:
    """Up to `count` items, evenly spaced."""
    if len(items) <= count:
        return list(items)
    return [items[len(items) * i // count] for i in range(count)]
