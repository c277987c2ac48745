"""A label for the image as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from geotune.data.labels.targets import ImageClass, ImageClasses, ImageValue
from geotune.data.raster.windows import Window

Said = ImageClass | ImageClasses | ImageValue


@dataclass(frozen=True)
class ImageLabels:
    """What is said of one image.

    Attributes:
        path: the file that says it, or the image's own folder.
        classes: names, in the order of the indices.
        target: what it says.
    """

    path: Path
    classes: tuple[str, ...]
    target: Said

    label_unit: ClassVar[str] = "image"
    image_level: ClassVar[bool] = True
    overlaps: ClassVar[bool | None] = True
    notes: ClassVar[tuple[str, ...]] = ()

    def read(self, window: Window) -> Said:
        """The same for every window."""
        del window
        return self.target

    def check(self, windows: Iterable[Window]) -> None:
        """Nothing is left to check: every row was looked at when the file was opened."""
