"""Labels of images as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from geotune.data.labels.targets import ImageClass, ImageClasses, ImageValue
from geotune.data.raster.windows import Window

ImageTarget = ImageClass | ImageClasses | ImageValue


@dataclass(frozen=True)
class ImageLabels:
    """The label of one image.

    Attributes:
        path: the file that states it, or the image's folder.
        classes: names, in the order of the indices.
        target: the label.
    """

    path: Path
    classes: tuple[str, ...]
    target: ImageTarget

    label_unit: ClassVar[str] = "image"
    image_level: ClassVar[bool] = True
    overlaps: ClassVar[bool | None] = True
    notes: ClassVar[tuple[str, ...]] = ()

    def read(self, window: Window) -> ImageTarget:
        """The same target for every window."""
        del window
        return self.target

    def check(self, windows: Iterable[Window]) -> None:
        """Nothing to check: labels were checked when they were opened."""
