"""Masks of clouds or of quality: pixels of an image that are not to be learnt from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from geotune.data.labels.raster_labels import align_to_grid
from geotune.data.raster.io import Grid, open_dataset, raster_errors, warped
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.data.scenes.open_scenes import label_file
from geotune.errors import GeotuneError


@dataclass(frozen=True)
class QARule:
    """Which values of a mask flag a pixel.

    Attributes:
        values: such as 3, 8, 9 and 10 of Sentinel-2's scene classification.
        bits: that are set, counted from 0, such as 3 (cloud) and 4 (shadow) of Landsat's QA_PIXEL.
        band: of the mask's file, from 1.
        hide: whether the image has no data where it is flagged; else only the labels have none.
    """

    values: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()
    band: int = 1
    mask_image: bool = False

    def masks(self, raw: NDArray[Any]) -> NDArray[np.bool_]:
        """Which of a mask's values, whole numbers, flag their pixel."""
        flagged: NDArray[np.bool_] = np.isin(raw, self.values)
        if self.bits:
            flagged |= (raw.astype(np.int64) & sum(1 << bit for bit in self.bits)) != 0
        return flagged


@dataclass(frozen=True)
class Quality:
    """The mask of one image, on its grid or brought to it by nearest pixel.

    Attributes:
        path: the file.
        rule: which of its values flag a pixel.
        shape: the image's (H, W).
        grid: the image's grid where the file has another, else None.
    """

    path: Path
    rule: QARule
    shape: tuple[int, int]
    grid: Grid | None

    def flagged(self, window: Window) -> NDArray[np.bool_]:
        """The flagged pixels `(h, w)` of a window; none beyond the edges of image and mask."""
        found = np.zeros((window.height, window.width), dtype=np.bool_)
        inner = window.clip(self.shape)
        if inner is None:
            return found
        where = RasterioWindow(inner.col, inner.row, inner.width, inner.height)
        with raster_errors(self.path):
            source = (
                open_dataset(self.path)
                if self.grid is None
                else warped(self.path, self.grid, self._clear)
            )
            raw = source.read(self.rule.band, window=where)
        found[inner.within(window)] = self.rule.masks(raw)
        return found

    @property
    def _clear(self) -> int:
        """A value that flags nothing, for what lies beyond the mask."""
        values = np.arange(128, dtype=np.uint8)
        return int(values[~self.rule.masks(values)][0])


def with_quality(
    sources: dict[str, RasterSource], pattern: str, rule: QARule
) -> dict[str, RasterSource]:
    """The images with the masks that `pattern` names by `{stem}`, the scene's name.

    Raises `GeotuneError` for a mask that is missing, that holds no whole numbers, or that does not
    fit its image.
    """
    return {
        name: replace(source, quality=open_quality(label_file(pattern, name), source, rule))
        for name, source in sources.items()
    }


def open_quality(path: Path, raster: RasterSource, rule: QARule) -> Quality:
    """The mask of the image `raster`; see `with_quality`."""
    if not path.is_file():
        raise GeotuneError(
            f"{path}: there is no such mask for {raster.path}; mend data.quality.pattern"
        )
    handle = open_dataset(path, anew=True)
    if rule.band > handle.count:
        raise GeotuneError(
            f"{path}: has {handle.count} bands, but data.quality.band is {rule.band}"
        )
    dtype = np.dtype(handle.dtypes[rule.band - 1])
    if dtype.kind not in "ui":
        raise GeotuneError(
            f"{path}: holds {dtype} values; expected whole numbers, as data.quality compares them"
        )
    most = max(rule.bits, default=0)
    if most >= 8 * dtype.itemsize - (dtype.kind == "i"):
        raise GeotuneError(
            f"{path}: holds {dtype} values, which have no bit {most}; mend data.quality.bits"
        )
    grid, _, _ = align_to_grid(path, raster, handle)
    return Quality(path, rule, raster.shape, grid)
