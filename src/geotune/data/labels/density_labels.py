"""Labels for counting: each object spread over the pixels around it, so that they add up to one.

An object at column x, row y is the product of two Gaussians, cut off at `REACH` standard
deviations, each divided by its sum over the pixels of the scene:

    d(r, c) = g(r - y) / sum_r' g(r' - y) * g(c - x) / sum_c' g(c' - x)

so the map of a scene has the sum of its objects, also of those at its edges. A window is cut out
of that map: it holds the part of an object that lies in it, wherever the object stands, and the
windows of a grid have together what the scene has. Objects outside the scene are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from geotune.data.labels.points import Points, read_points
from geotune.data.labels.targets import ObjectDensity
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.errors import GeotuneError

REACH = 4.0
"""Standard deviations at which an object ends; 0.006 % of it would lie beyond along an axis."""
LEAST_SIGMA = 0.2
"""Pixels; a narrower object is in one pixel, or shared by two where it stands between them."""


@dataclass(frozen=True)
class DensityLabels:
    """Objects of a scene as a map of their density.

    Attributes:
        path: the file.
        classes: what the objects are called.
        shape: the scene's (H, W).
        points: `(N, 2)`, column and row of the objects in the scene, in pixels.
        sigma: standard deviation in pixels.
        overlaps: whether an object lies in the scene; None for a file without any.
        notes: how the file was understood.
    """

    path: Path
    classes: tuple[str, ...]
    shape: tuple[int, int]
    points: Points
    sigma: float
    overlaps: bool | None
    notes: tuple[str, ...]

    label_unit: ClassVar[str] = "object"
    image_level: ClassVar[bool] = False

    def read(self, window: Window) -> ObjectDensity:
        """The density in objects a pixel; NaN outside the scene."""
        values = np.full((window.height, window.width), np.nan, dtype=np.float32)
        places = np.zeros(values.shape, dtype=np.int64)
        inner = window.clip(self.shape)
        if inner is None:
            return ObjectDensity(values, places)
        near = self.points[self._near(inner)]
        rows = _shares(near[:, 1], self.sigma, self.shape[0], inner.row, inner.height)
        cols = _shares(near[:, 0], self.sigma, self.shape[1], inner.col, inner.width)
        values[inner.slices_in(window)] = rows.T @ cols
        col, row = np.floor(near).astype(np.int64).T
        col, row = col - window.col, row - window.row
        there = (row >= 0) & (row < window.height) & (col >= 0) & (col < window.width)
        np.add.at(places, (row[there], col[there]), 1)
        return ObjectDensity(values, places)

    def check(self, windows: Iterable[Window]) -> None:
        """Nothing is left to check: every row was looked at when the file was opened."""

    def _near(self, window: Window) -> NDArray[np.bool_]:
        reach = REACH * self.sigma + 1
        x, y = self.points.T
        near: NDArray[np.bool_] = (
            (x > window.col - reach)
            & (x < window.col + window.width + reach)
            & (y > window.row - reach)
            & (y < window.row + window.height + reach)
        )
        return near


def _shares(
    at: NDArray[np.float64], sigma: float, length: int, start: int, count: int
) -> NDArray[np.float64]:
    """Along one axis: the share of each object `(N,)` in each of `count` pixels, `(N, count)`.

    The pixels begin at `start`; over the whole `length` of the scene the shares sum to one.
    """

    def weights(pixels: NDArray[np.int64]) -> NDArray[np.float64]:
        distance = (pixels + 0.5 - at[:, None]) / sigma
        inside = (pixels >= 0) & (pixels < length)
        # the pixel that an object stands in always counts
        near = (np.abs(distance) <= REACH) | (pixels == np.floor(at)[:, None])
        return np.where(inside & near, np.exp(-0.5 * distance**2), 0.0)

    reach = math.ceil(REACH * sigma) + 1
    around = np.floor(at).astype(np.int64)[:, None] + np.arange(-reach, reach + 1)
    total = weights(around).sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = weights(np.arange(start, start + count)[None]) / total
    return shares


def open_density_labels(
    path: Path,
    raster: RasterSource,
    *,
    objects: str,
    sigma: str = "3 px",
    xy: Literal["pixels", "coordinates"] = "pixels",
    by_pixel: bool = False,
) -> DensityLabels:
    """The objects of the scene `raster`, from points as `read_points` reads them.

    Args:
        path: the file; one that is not there holds no object.
        raster: the scene.
        objects: what they are called.
        sigma: standard deviation of an object, such as `3 px` or `2 m`.
        xy: what the numbers of a CSV are.
        by_pixel: has no meaning here.

    Raises `GeotuneError` as `read_points` does, and for metres where a scene's pixels have none.
    """
    del by_pixel
    sigma_pixels = max(_in_pixels(sigma, raster), LEAST_SIGMA)
    points = read_points(path, raster, xy) if path.exists() else np.zeros((0, 2))
    height, width = raster.shape
    x, y = points.T
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    notes = []
    if len(points) and not inside.all():
        notes.append(
            f"{path}: {int((~inside).sum())} of {len(points)} points lie outside {raster.path} and "
            "are not counted"
        )
    return DensityLabels(
        path=path,
        classes=(objects,),
        shape=raster.shape,
        points=points[inside],
        sigma=sigma_pixels,
        overlaps=bool(inside.any()) if len(points) else None,
        notes=tuple(notes),
    )


def _in_pixels(sigma: str, raster: RasterSource) -> float:
    number, unit = float(sigma.rstrip(" pxm")), "m" if sigma.endswith("m") else "px"
    if unit == "px":
        return number
    if raster.gsd_m is None:
        raise GeotuneError(
            f"{raster.path}: does not say how many metres a pixel has, which data.sigma "
            f"{sigma!r} needs; give data.sigma in pixels, such as 3 px"
        )
    return number / raster.gsd_m
