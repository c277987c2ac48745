"""A scene: an image with its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from geotune.data.labels.base import Labels
from geotune.data.raster.source import Image, RasterSource
from geotune.data.raster.warp import AffineCrop, warp_bilinear
from geotune.data.raster.windows import Window, grid
from geotune.types import Target

BLOCK = 512
"""Side of the blocks that are read at a time, in pixels."""


@dataclass(frozen=True)
class Scene:
    """An image with its labels.

    Attributes:
        group: what a split keeps together, by default the scene.
        part: train, val or test, where the labels say it.
        attributes: what a table of the scenes says of it, by column.
        area: where in its files the scene is; None: all of them.
    """

    name: str
    raster: RasterSource
    labels: Labels
    group: str
    part: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    area: Window | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.raster.shape if self.area is None else self.area[2:]

    def place(self, window: Window) -> Window:
        """A window of the scene in pixels of its files."""
        if self.area is None:
            return window
        return window._replace(row=window.row + self.area.row, col=window.col + self.area.col)

    def inspect(self, window: Window) -> tuple[Image, NDArray[np.bool_]]:
        """As `RasterSource.inspect`, of the scene's own pixels only."""
        if self.area is None:
            return self.raster.inspect(window)
        dates = (self.raster.num_dates,) if self.raster.dates else ()
        shape = len(self.raster.bands), *dates, window.height, window.width
        image, wrong = np.full(shape, np.nan, np.float32), np.zeros(shape, np.bool_)
        inner = window.clip(self.shape)
        if inner is not None:
            rows, cols = inner.within(window)
            there = self.raster.inspect(self.place(inner))
            image[..., rows, cols], wrong[..., rows, cols] = there
        return image, wrong

    def clear(self, window: Window) -> NDArray[np.bool_]:
        """The pixels `(h, w)` of a window that no mask of quality flags."""
        return self.raster.clear(self.place(window))

    def read(self, window: Window) -> tuple[Image, Target]:
        """Image `(C, h, w)`, NaN where there is no data, and the target without what lies there."""
        image, _ = self.inspect(window)
        usable = has_data(image) & self.clear(window)
        return image, self.labels.read(self.place(window)).shown(usable)

    def view(self, view: AffineCrop) -> tuple[Image, Target]:
        """As `read`, at any angle and scale."""
        around, target = self.read(view.window)
        image = warp_bilinear(around, view.transform, view.shape)
        return image, target.placed(view.transform, view.shape).shown(has_data(image))

    def target(self) -> Target:
        """The target of the whole scene, whose image is read a piece at a time."""
        valid = np.zeros(self.shape, dtype=np.bool_)
        whole = Window(0, 0, *self.shape)
        for block in filter(None, (piece.clip(self.shape) for piece in grid(self.shape, BLOCK))):
            usable = has_data(self.inspect(block)[0]) & self.clear(block)
            valid[block.within(whole)] = usable
        return self.labels.read(self.place(whole)).shown(valid)


def has_data(image: Image) -> NDArray[np.bool_]:
    """Where any band of an image `(C, ..., h, w)` has data at any date, `(h, w)`."""
    first, *others = image.reshape(-1, *image.shape[-2:])
    found = ~np.isnan(first)
    for layer in others:
        if found.all():  # mostly the first says it of all
            break
        found |= ~np.isnan(layer)
    return np.asarray(found)
