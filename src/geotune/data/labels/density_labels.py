"""Labels for counting: each object is a Gaussian over the pixels around it that sums to one.

An object at column x, row y is the product of two Gaussians, truncated at `TRUNCATE` standard
deviations, each divided by its sum over the pixels of the scene:

    d(r, c) = g(r - y) / sum_r' g(r' - y) * g(c - x) / sum_c' g(c' - x)

so the map of a scene sums to its number of objects, including those at its edges. A window is cut
out of that map: it contains the part of each object that lies in it, and the windows of a grid
together sum to the scene. Objects outside the scene are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from geotune.config.data_options import LabelledDataOptions
from geotune.config.task_options import DensityOptions
from geotune.data.labels.base import LabelReader
from geotune.data.labels.points import Points, read_points
from geotune.data.labels.targets import ObjectDensity
from geotune.data.labels.unread_attributes import Attributes, unread_attributes
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.errors import GeotuneError

TRUNCATE = 4.0
"""Standard deviations at which an object ends; beyond lie 0.006 % of it along an axis."""

MIN_SIGMA = 0.2
"""Pixels; a narrower object lies in one pixel, or in two if it is between them."""


@dataclass(frozen=True)
class DensityLabels:
    """Objects of a scene as a density map.

    Attributes:
        path: the file.
        classes: the name of the objects.
        shape: (H, W) of the scene.
        points: `(N, 2)`, column and row in pixels of the objects in the scene.
        sigma: standard deviation in pixels.
        overlaps: whether an object lies in the scene; None for a file without any.
        notes: how the file was interpreted.
        unread: attributes of the file, none of which is read.
    """

    path: Path
    classes: tuple[str, ...]
    shape: tuple[int, int]
    points: Points
    sigma: float
    overlaps: bool | None
    notes: tuple[str, ...]
    unread: Attributes = field(default_factory=dict)

    label_unit: ClassVar[str] = "object"
    image_level: ClassVar[bool] = False

    def read(self, window: Window) -> ObjectDensity:
        """Compute the density in objects per pixel; NaN outside the scene."""
        values = np.full((window.height, window.width), np.nan, dtype=np.float32)
        counts = np.zeros(values.shape, dtype=np.int64)
        inner = window.clip(self.shape)
        if inner is None:
            return ObjectDensity(values, counts)
        near = self.points[self._near(inner)]
        rows = _axis_weights(near[:, 1], self.sigma, self.shape[0], inner.row, inner.height)
        cols = _axis_weights(near[:, 0], self.sigma, self.shape[1], inner.col, inner.width)
        values[inner.slices_in(window)] = rows.T @ cols
        col, row = np.floor(near).astype(np.int64).T
        col, row = col - window.col, row - window.row
        inside = (row >= 0) & (row < window.height) & (col >= 0) & (col < window.width)
        np.add.at(counts, (row[inside], col[inside]), 1)
        return ObjectDensity(values, counts)

    def check(self, windows: Iterable[Window]) -> None:
        """Nothing to check: points were checked when the file was opened."""

    def _near(self, window: Window) -> NDArray[np.bool_]:
        margin = TRUNCATE * self.sigma + 1
        x, y = self.points.T
        near: NDArray[np.bool_] = (
            (x > window.col - margin)
            & (x < window.col + window.width + margin)
            & (y > window.row - margin)
            & (y < window.row + window.height + margin)
        )
        return near


def _axis_weights(
    centres: NDArray[np.float64], sigma: float, length: int, start: int, count: int
) -> NDArray[np.float64]:
    """The weight of each object `(N,)` in `count` pixels from `start` along an axis, `(N, count)`.

    Weights sum to one over the whole `length` of the scene.
    """

    def gaussian(pixels: NDArray[np.int64]) -> NDArray[np.float64]:
        distance = (pixels + 0.5 - centres[:, None]) / sigma
        inside = (pixels >= 0) & (pixels < length)
        # the pixel that contains the object always counts
        near = (np.abs(distance) <= TRUNCATE) | (pixels == np.floor(centres)[:, None])
        return np.where(inside & near, np.exp(-0.5 * distance**2), 0.0)

    margin = math.ceil(TRUNCATE * sigma) + 1
    around = np.floor(centres).astype(np.int64)[:, None] + np.arange(-margin, margin + 1)
    total = gaussian(around).sum(axis=1, keepdims=True)
    weights: NDArray[np.float64] = gaussian(np.arange(start, start + count)[None]) / total
    return weights


def open_density_labels(
    path: Path,
    raster: RasterSource,
    *,
    objects: str,
    sigma: str = "3 px",
    xy: Literal["pixels", "coordinates"] = "pixels",
    class_field: str | None = None,
    by_pixel: bool = False,
) -> DensityLabels:
    """Open the points of objects in the scene `raster` (`read_points`) as a density map.

    Args:
        path: the file; one that does not exist has no objects.
        raster: the image of the scene.
        objects: the name of the objects.
        sigma: standard deviation of an object, such as `3 px` or `2 m`.
        xy: whether the columns of a CSV are pixels or coordinates.
        class_field: `""` states that all points are such objects, whatever their attributes.
        by_pixel: not used.

    Raises `GeotuneError` as `read_points` does, and for `sigma` in metres if the pixel size is
    unknown.
    """
    del by_pixel
    sigma_pixels = max(_in_pixels(sigma, raster), MIN_SIGMA)
    points = read_points(path, raster, xy) if path.exists() else np.zeros((0, 2))
    height, width = raster.shape
    x, y = points.T
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    notes = []
    if len(points) and not inside.all():
        notes.append(
            f"{path}: ignored {int((~inside).sum())} of {len(points)} points, which lie outside "
            f"{raster.path}"
        )
    return DensityLabels(
        path=path,
        classes=(objects,),
        shape=raster.shape,
        points=points[inside],
        sigma=sigma_pixels,
        overlaps=bool(inside.any()) if len(points) else None,
        notes=tuple(notes),
        unread=unread_attributes(path) if len(points) and class_field is None else {},
    )


def _in_pixels(sigma: str, raster: RasterSource) -> float:
    number, unit = float(sigma.rstrip(" pxm")), "m" if sigma.endswith("m") else "px"
    if unit == "px":
        return number
    if raster.gsd_m is None:
        raise GeotuneError(
            f"{raster.path}: its pixel size in metres is unknown, but data.sigma {sigma!r} needs "
            "it; give data.sigma in pixels, such as 3 px",
            code="metadata-missing",
            key="data.sigma",
            file=raster.path,
        )
    return number / raster.gsd_m


def density_label_reader(data: LabelledDataOptions, task: DensityOptions) -> LabelReader:
    """The reader of labels for density estimation."""
    return partial(
        open_density_labels,
        objects=task.objects,
        sigma=data.sigma,
        xy=data.points,
        class_field=getattr(data, "class_field", None),
    )
