"""One table of all scenes: the pooled features of each window, with its outline (GeoParquet)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import torch
import torch.nn.functional as F
from rasterio.crs import CRS
from torch import Tensor

from geotune.data.raster.crs import WGS84, transformer
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.inference.geoparquet import GeoParquetWriter
from geotune.inference.sliding_window import OnWindows


def pooled_mean(features: Tensor, images: Tensor) -> Tensor:
    """The mean of features `(B, D, h, w)` over cells with data in images `(B, C, ..., H, W)`.

    Returns `(B, D)`; zeros for an image without data.
    """
    valid = ~torch.isnan(images).flatten(1, -3).all(dim=1, keepdim=True)
    cells = F.adaptive_max_pool2d(valid.float(), features.shape[-2:])
    return (features * cells).sum(dim=(2, 3)) / cells.sum(dim=(2, 3)).clamp(min=1)


class PooledTable(AbstractContextManager["PooledTable"]):
    """Writes the windows of scenes to one GeoParquet.

    Columns: `scene`, `window` (`row-col` of the first pixel), `row`, `col`, `height`, `width` (the
    part of the window in the scene), `features` (a list of numbers) and `geometry`, in the CRS of
    the scenes if they share one, else in longitude and latitude; in pixels if no scene has a CRS.

    Args:
        path: of the file.
        sources: all scenes by name.
    """

    def __init__(self, path: Path, sources: Mapping[str, RasterSource]) -> None:
        self.path = path
        self.windows = 0
        systems = [source.crs for source in sources.values()]
        self.crs: CRS | None = systems[0]
        if any(crs != self.crs for crs in systems):
            self.crs = WGS84
        self._writer = GeoParquetWriter(path, geometry_type="Polygon", crs=self.crs)

    def __enter__(self) -> PooledTable:
        self._writer.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)

    def of_scene(self, name: str, source: RasterSource) -> OnWindows:
        """What adds the windows of a scene."""
        return partial(self._add, name, source)

    def _add(
        self,
        name: str,
        source: RasterSource,
        windows: Sequence[Window],
        images: Tensor,
        features: Tensor,
    ) -> None:
        inside = [window.clip(source.shape) or window for window in windows]
        pooled = pooled_mean(features, images).float().numpy(force=True)
        fields = {
            "scene": np.array([name] * len(windows), dtype=object),
            "window": np.array([f"{w.row}-{w.col}" for w in inside], dtype=object),
            **{
                key: np.array([getattr(w, key) for w in inside], dtype=np.int64)
                for key in ("row", "col", "height", "width")
            },
            "features": pooled,
        }
        outlines = np.array([self._outline(source, window) for window in inside], dtype=object)
        self._writer.write((outlines, fields))
        self.windows += len(windows)

    def _outline(self, source: RasterSource, window: Window) -> Any:
        """The outline of a window; None where its coordinates are unknown."""
        if source.crs is None and self.crs is not None:
            return None
        left, top, right, bottom = (
            window.col,
            window.row,
            window.col + window.width,
            window.row + window.height,
        )
        corners = [(left, top), (left, bottom), (right, bottom), (right, top)]
        points = np.array([source.transform @ corner for corner in corners])
        if source.crs is not None and self.crs is not None and source.crs != self.crs:
            points = np.stack(transformer(source.crs, self.crs).transform(*points.T), axis=1)
        return shapely.Polygon(points)
