"""A scene: an image with its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from geotune.data.labels.base import Labels
from geotune.data.raster.source import Image, RasterSource, has_data
from geotune.data.raster.warp import AffineCrop, warp_bilinear
from geotune.data.raster.windows import Window, blocks
from geotune.types import Target

BLOCK = 512
"""Side in pixels of the blocks that are read at a time."""


@dataclass(frozen=True)
class Scene:
    """An image with its labels.

    Attributes:
        group: scenes of one group stay in one split; by default the scene's name.
        split: train, val or test, if the data states it.
        attributes: the scene's row in a table of scenes, by column.
    """

    name: str
    raster: RasterSource
    labels: Labels
    group: str
    split: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.raster.shape

    def read(self, window: Window) -> tuple[Image, Target]:
        """Read the image `(C, h, w)`, NaN where there is no data, and the target of its pixels."""
        pixels = self.raster.read_block(window)
        return pixels.image, self.read_labels(window).masked(pixels.valid)

    def read_labels(self, window: Window) -> Target:
        """Read the target, whatever pixels have data."""
        return self.labels.read(self.raster.to_grid(window))

    def read_crop(self, crop: AffineCrop) -> tuple[Image, Target]:
        """Read a rotated and scaled crop, as `read`."""
        source, target = self.read(crop.window)
        image = warp_bilinear(source, crop.transform, crop.shape)
        return image, target.warp(crop.transform, crop.shape).masked(has_data(image))

    def read_target(self) -> Target:
        """Read the target of the whole scene, holding one block of its image at a time."""
        valid = np.zeros(self.shape, dtype=np.bool_)
        whole = Window(0, 0, *self.shape)
        for block in blocks(self.shape, BLOCK):
            valid[block.slices_in(whole)] = self.raster.read_block(block).valid
        return self.read_labels(whole).masked(valid)
