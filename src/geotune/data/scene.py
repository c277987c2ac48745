"""A scene: an image with its labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geotune.data.labels import Labels
from geotune.data.raster import Image, RasterSource
from geotune.data.values import Mask
from geotune.data.windows import Window
from geotune.types import IGNORE


@dataclass(frozen=True)
class Scene:
    """An image, its labels and the group that a split keeps together (by default the scene)."""

    name: str
    raster: RasterSource
    labels: Labels
    group: str

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.raster.shape

    def read(self, window: Window) -> tuple[Image, Mask]:
        """Image `(C, h, w)` with NaN and mask `(h, w)` with `IGNORE` where there is no data."""
        image = self.raster.read(window)
        return image, hide(self.labels.read(window), image)


def hide(mask: Mask, image: Image) -> Mask:
    """The mask with `IGNORE` where no band of the image has data."""
    mask[np.isnan(image).all(axis=0)] = IGNORE
    return mask
