"""What labels are to a scene, whatever file they are in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.types import Target


class Labels(Protocol):
    """Labels of one scene.

    Attributes:
        path: the file.
        classes: names, in the order of the indices that `read` gives.
        label_unit: what is counted of each class: `pixel`, `object`, `image`.
        image_level: whether they are about the image as a whole, so that no window may cut it.
        overlaps: whether any label lies in the scene; None where the file holds no label at all.
        notes: what a user should know about how the file was understood; what is true of all files
            of a dataset is in the notes of each, and shown once.
    """

    @property
    def path(self) -> Path: ...  # noqa: D102
    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def label_unit(self) -> str: ...  # noqa: D102
    @property
    def image_level(self) -> bool: ...  # noqa: D102
    @property
    def overlaps(self) -> bool | None: ...  # noqa: D102
    @property
    def notes(self) -> tuple[str, ...]: ...  # noqa: D102

    def read(self, window: Window) -> Target:
        """What is said of a window, which may reach out of the scene.

        Raises `GeotuneError` for a value that stands for no class.
        """

    def check(self, windows: Iterable[Window]) -> None:
        """Raise `GeotuneError` with every value in `windows` that stands for no class."""


class LabelReader(Protocol):
    """Opens the labels of a scene, of one kind or another.

    `by_pixel`: a raster's pixels are the scene's whatever georeference it has. Raises
    `GeotuneError` for a file that is missing, unreadable or does not fit the scene.
    """

    def __call__(  # noqa: D102
        self, path: Path, raster: RasterSource, *, by_pixel: bool = False
    ) -> Labels: ...
