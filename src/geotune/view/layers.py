"""Layers of a scene: rasters drawn as tiles, and shapes drawn by the browser."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.view.map_grid import TILE, MapGrid, Tile
from geotune.view.styles import Rgba, Row, Style, Values

Role = Literal["image", "labels", "prediction", "confidence"]
"""What a layer shows, from bottom to top."""

ReadFn = Callable[[Window, int], Values]
"""Reads every `step`-th pixel of a window inside the scene: `(C, h / step, w / step)`, rounded up,
NaN without data."""

MAX_STEP = 64
"""Files are read from the zoom level on at which a pixel of a tile spans this many of theirs."""

MAX_READ_STEP = 16
"""The same for labels, of which every pixel has to be read."""


@dataclass(frozen=True)
class RasterLayer:
    """A raster on a scene's grid.

    Attributes:
        title: in the list of layers.
        role: what it shows.
        read: its values.
        style: its colours.
        max_step: see `MAX_STEP`.
        visible: whether it is shown at first.
        answers: whether a click shows its values.
        read_details: the values that a click shows; by default those of `read`.
        grid: of its pixels, if it is not the scene's.
    """

    title: str
    role: Role
    read: ReadFn
    style: Style
    max_step: int = MAX_STEP
    visible: bool = True
    answers: bool = True
    read_details: ReadFn | None = None
    grid: MapGrid | None = None

    def tile(self, grid: MapGrid, tile: Tile) -> Rgba | None:
        """The tile as colours `(TILE, TILE, 4)`; None if it does not show the layer.

        Raises `GeotuneError` for a file that cannot be read.
        """
        grid = self.grid or grid
        if tile.z < grid.min_zoom(self.max_step):
            return None
        values = resample_to_tile(self.read, grid, tile)
        return None if values is None else self.style.colors(values)

    def describe(self, grid: MapGrid, lon: float, lat: float) -> list[Row]:
        """Name and value of the layer at a place. Raises `GeotuneError` as `tile`."""
        pixel = (self.grid or grid).pixel_at(lon, lat)
        if pixel is None:
            return []
        values = (self.read_details or self.read)(Window(pixel[1], pixel[0], 1, 1), 1)
        return self.style.describe(values[:, 0, 0])


@dataclass(frozen=True)
class FeatureLayer:
    """Shapes with properties.

    Attributes:
        title: in the list of layers.
        role: what it shows.
        features: a GeoJSON FeatureCollection of the shapes on a grid, in degrees; its member
            `note` says what is not shown. Properties `class` and `score` are shown on a click.
        classes: names, for the legend.
        geometry: how the shapes are drawn.
        visible: whether it is shown at first.
        colored_as: names that the colours are those of, if `classes` is a part of them.
    """

    title: str
    role: Role
    features: Callable[[MapGrid], dict[str, Any]]
    classes: tuple[str, ...]
    geometry: Literal["polygon", "point"] = "polygon"
    visible: bool = True
    colored_as: tuple[str, ...] = ()


@dataclass(frozen=True)
class SceneLayers:
    """The layers of a scene on the map.

    Attributes:
        grid: where it lies.
        layers: from bottom to top.
        facts: names and values that hold for the whole scene.
        notes: messages for the user, such as a file that is not shown.
        version: differs from that of the scene's earlier layers.
    """

    grid: MapGrid
    layers: tuple[RasterLayer | FeatureLayer, ...]
    facts: Sequence[Row] = field(default=())
    notes: Sequence[str] = field(default=())
    version: int = 0


def resample_to_tile(read: ReadFn, grid: MapGrid, tile: Tile) -> Values | None:
    """The values of a raster at the pixels of a tile, `(C, TILE, TILE)`; None outside the raster.

    Each pixel has the value of the nearest one of the raster, or of its overview.
    """
    cols, rows = grid.pixels_of_tile(tile)
    height, width = grid.shape
    with np.errstate(invalid="ignore"):
        inside = (cols >= 0) & (cols < width) & (rows >= 0) & (rows < height)
    if not inside.any():
        return None
    step = _step(cols, rows)
    of_cols = np.where(inside, cols, np.nan)
    of_rows = np.where(inside, rows, np.nan)
    left, top = (int(np.nanmin(v)) // step * step for v in (of_cols, of_rows))
    right, bottom = (int(np.nanmax(v)) + 1 for v in (of_cols, of_rows))
    right = min(left + math.ceil((right - left) / step) * step, width)
    bottom = min(top + math.ceil((bottom - top) / step) * step, height)
    block = read(Window(top, left, bottom - top, right - left), step)
    values = np.full((len(block), TILE, TILE), np.nan, dtype=np.float32)
    at_rows = (rows[inside].astype(np.int64) - top) // step
    at_cols = (cols[inside].astype(np.int64) - left) // step
    values[:, inside] = block[:, at_rows, at_cols]
    return values


def _step(cols: NDArray[np.float64], rows: NDArray[np.float64]) -> int:
    """Pixels of the raster per pixel of the tile, at least 1."""
    with np.errstate(invalid="ignore"):
        moves = [np.hypot(np.diff(cols, axis=axis), np.diff(rows, axis=axis)) for axis in (0, 1)]
    finite = [move[np.isfinite(move)] for move in moves]
    sides = [float(np.median(move)) for move in finite if move.size]
    return max(1, round(min(sides))) if sides else 1


def raster_reader(source: RasterSource) -> ReadFn:
    """Reads the bands of an image; of several dates the last."""

    def read(window: Window, step: int) -> Values:
        cropped = source.crop(window)
        image = (
            cropped.read(Window(0, 0, *window[2:])) if step == 1 else cropped.read_overview(step)
        )
        return image[:, -1] if image.ndim == 4 else image

    return read
