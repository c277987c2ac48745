"""The novelty of a scene's windows, collected while the scene is predicted, as a map."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geotune.data.raster.source import RasterSource, has_data
from geotune.data.raster.windows import Window, blocks
from geotune.errors import GeotuneError
from geotune.inference.blend import window_weights
from geotune.inference.geotiff import NODATA, PROBABILITY_SCALE, GeoTiffWriter, bounded_gdal_cache
from geotune.inference.novelty import NoveltyReference, window_features
from geotune.inference.qgis import MapLayer, value_style
from geotune.types import FeatureMaps

BANDS = ("percentile", "distance")
MAX_DISTANCE = 4.0
"""Largest value of the band `distance`, in distances of the farthest validation window."""
_BLOCK = 512
_PART = 64
"""Side of the parts in which a damaged scene is read, in pixels."""

Distances = Sequence[tuple[int, int, float]]
"""First row, first column and distance of windows."""


class NoveltyTracker:
    """Receives the features of each forward pass, and keeps the distances of a scene's windows.

    Args:
        reference: of the training.
        stem_maps: number of maps of the stem, which come first.

    Attributes:
        last: distances `(B,)` of the last batch.
    """

    def __init__(self, reference: NoveltyReference, stem_maps: int) -> None:
        self.reference = reference
        self.stem_maps = stem_maps
        self.last = torch.zeros(0)
        self._open = False
        self._expected: Sequence[Window] = ()
        self._distances: dict[tuple[int, int], dict[Window, float]] = {}
        self._lost: Sequence[Window] = ()

    def wrap(self, model: Callable[..., Any]) -> Callable[..., Any]:
        """A model that lets `observe` see the first forward pass of each call."""

        def answer(images: Tensor, **known: Tensor) -> Any:
            self._open = True
            return model(images, **known)

        return answer

    def expect(self, windows: Sequence[Window]) -> None:
        """Take note of the windows of the next batch."""
        self._expected = windows

    def observe(self, maps: FeatureMaps, images: Tensor) -> None:
        """Receive the encoder's maps of a batch; those of other orientations are ignored."""
        if not self._open:
            return
        self._open = False
        features = window_features(maps, images, self.stem_maps)
        self.last = self.reference.distances(features).cpu()
        if self._expected:
            for window, distance in zip(self._expected, self.last.tolist(), strict=True):
                self._keep(window, distance)

    def start(self, lost: Sequence[Window] = ()) -> None:
        """Forget the windows of the scene before.

        `lost` are parts of the scene that could not be predicted. The map has no data there, nor
        where such a scene cannot be read.
        """
        self._distances, self._expected, self._lost = {}, (), lost

    @property
    def distances(self) -> Distances:
        """Those of the scene's windows since `start`, from top to bottom."""
        found = {w: d for windows in self._distances.values() for w, d in windows.items()}
        return [(window.row, window.col, found[window]) for window in sorted(found)]

    def restore(self, distances: Distances, side: int) -> None:
        """Add windows of a side in pixels whose distances were computed before."""
        for row, col, distance in distances:
            self._keep(Window(row, col, side, side), distance)

    def _keep(self, window: Window, distance: float) -> None:
        for key in _tiles(window):
            self._distances.setdefault(key, {})[window] = distance

    def columns(self) -> list[dict[str, str | float]]:
        """Columns of a table of images, for the last batch."""
        distances = self.last.numpy()
        shares = self.reference.percentile(distances)
        relative = distances / self.reference.farthest
        return [
            {"novelty": float(share), "novelty_distance": float(distance)}
            for share, distance in zip(shares, relative, strict=True)
        ]

    def blended(self, area: Window) -> NDArray[np.float32]:
        """Distances `(h, w)` in an area, blended as predictions are; NaN without a window."""
        sums, weights = (np.zeros((area.height, area.width), np.float32) for _ in range(2))
        touching = {
            window: distance
            for key in _tiles(area)
            for window, distance in self._distances.get(key, {}).items()
        }
        for window, distance in sorted(touching.items()):  # sums in one order round alike
            inner = _intersection(window, area)
            if inner is None:
                continue
            own = _weights(window.height)[inner.slices_in(window)]
            inside = inner.slices_in(area)
            sums[inside] += own * distance
            weights[inside] += own
        with np.errstate(invalid="ignore"):
            return np.where(weights > 0, sums / weights, np.nan).astype(np.float32)

    def at(self, points: NDArray[Any]) -> NDArray[np.float32]:
        """The percentile at points `(N, 2)`, x before y in pixels; NaN without a window."""
        values = [
            float(self.blended(Window(int(np.floor(y)), int(np.floor(x)), 1, 1))[0, 0])
            for x, y in points
        ]
        return self.reference.percentile(np.array(values, dtype=np.float32))

    def write(self, folder: Path, name: str, source: RasterSource) -> Path:
        """Write `<name>_novelty.tif` of the predicted scene to a folder; returns its path."""
        path = folder / f"{name}_novelty.tif"
        with bounded_gdal_cache(), GeoTiffWriter.for_scene(path, source, BANDS) as file:
            file.dataset.scales = (1 / PROBABILITY_SCALE, MAX_DISTANCE / PROBABILITY_SCALE)
            file.dataset.update_tags(
                percentile=f"value / {PROBABILITY_SCALE}: share of validation windows that are "
                "nearer to the training",
                distance=f"value * {MAX_DISTANCE:g} / {PROBABILITY_SCALE}: 1 is the distance of "
                f"the farthest of {self.reference.windows[1]} validation windows",
            )
            for area in blocks(source.shape, _BLOCK):
                distances = self.blended(area)
                valid = self._with_data(source, area) & ~np.isnan(distances)
                shares = self.reference.percentile(np.nan_to_num(distances))
                relative = np.nan_to_num(distances) / self.reference.farthest / MAX_DISTANCE
                levels = np.stack([shares, relative.clip(0, 1)]) * PROBABILITY_SCALE
                stored = np.where(valid, levels.round(), NODATA).astype(np.uint8)
                file.write(area.row, area.col, stored)
            file.finish("AVERAGE")
        return path

    def _with_data(self, source: RasterSource, area: Window) -> NDArray[np.bool_]:
        """Which pixels `(h, w)` of an area have data."""
        if not self._lost:
            return has_data(source.read(area))
        valid = np.zeros((area.height, area.width), np.bool_)
        for inside in blocks(valid.shape, _PART):
            part = inside._replace(row=area.row + inside.row, col=area.col + inside.col)
            if any(_intersection(part, each) for each in self._lost):
                continue
            try:
                valid[part.slices_in(area)] = has_data(source.read(part))
            except GeotuneError as error:
                if error.code != "file-unreadable":
                    raise
        return valid

    def layer(self, path: Path) -> MapLayer:
        """The layer of a QGIS project."""
        return MapLayer(path, "novelty", value_style(0, 1), visible=False)


def _tiles(area: Window) -> Iterator[tuple[int, int]]:
    """The squares of a grid that an area touches, by which windows are found."""
    for row in range(area.row // _BLOCK, (area.row + area.height - 1) // _BLOCK + 1):
        for col in range(area.col // _BLOCK, (area.col + area.width - 1) // _BLOCK + 1):
            yield row, col


@cache
def _weights(window: int) -> NDArray[np.float32]:
    weights: NDArray[np.float32] = window_weights(window).numpy()
    return weights


def _intersection(window: Window, area: Window) -> Window | None:
    moved = window._replace(row=window.row - area.row, col=window.col - area.col)
    inner = moved.clip((area.height, area.width))
    if inner is None:
        return None
    return inner._replace(row=inner.row + area.row, col=inner.col + area.col)
