"""A scene: an image with its labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geotune.data.labels import Labels
from geotune.data.raster import Image, RasterSource
from geotune.data.view import View, blended
from geotune.data.windows import Window, grid
from geotune.types import Target

BLOCK = 512
"""Side of the blocks that are read at a time, in pixels."""


@dataclass(frozen=True)
class Scene:
    """An image with its labels.

    Attributes:
        group: what a split keeps together, by default the scene.
        part: train, val or test, where the labels say it.
    """

    name: str
    raster: RasterSource
    labels: Labels
    group: str
    part: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.raster.shape

    def read(self, window: Window) -> tuple[Image, Target]:
        """Image `(C, h, w)`, NaN where there is no data, and the target without what lies there."""
        image = self.raster.read(window)
        usable = has_data(image) & self.raster.clear(window)
        return image, self.labels.read(window).shown(usable)

    def view(self, view: View) -> tuple[Image, Target]:
        """As `read`, at any angle and scale."""
        image = blended(self.raster.read(view.window), view.to, view.shape)
        target = self.labels.read(view.window).shown(self.raster.clear(view.window))
        return image, target.placed(view.to, view.shape).shown(has_data(image))

    def target(self) -> Target:
        """The target of the whole scene, whose image is read a piece at a time."""
        valid = np.zeros(self.shape, dtype=np.bool_)
        whole = Window(0, 0, *self.shape)
        for block in filter(None, (piece.clip(self.shape) for piece in grid(self.shape, BLOCK))):
            usable = has_data(self.raster.read(block)) & self.raster.clear(block)
            valid[block.within(whole)] = usable
        return self.labels.read(whole).shown(valid)


def has_data(image: Image) -> NDArray[np.bool_]:
    """Where any band of an image `(C, ..., h, w)` has data at any date, `(h, w)`."""
    return np.asarray(~np.isnan(image).all(axis=tuple(range(image.ndim - 2))))
