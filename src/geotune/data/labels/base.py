"""The interface of labels, whatever file they come from."""

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
        classes: names, in the order of the indices in targets.
        label_unit: what class counts count: `pixel`, `object` or `image`.
        image_level: whether labels are about the whole image, so that windows must not cut it.
        overlaps: whether any label lies in the scene; None for a file without labels.
        notes: how the file was interpreted, for the user; notes about a whole data set are repeated
            in each of its files, and shown once.
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
        """Read the target of a window, which may extend beyond the scene.

        Raises `GeotuneError` for a value that maps to no class.
        """

    def check(self, windows: Iterable[Window]) -> None:
        """Raise `GeotuneError` with every value in `windows` that maps to no class."""


class LabelReader(Protocol):
    """Opens the label file of a scene.

    With `by_pixel`, the pixels of a label raster are matched by row and column, whatever its
    georeference. Raises `GeotuneError` for a file that is missing, unreadable or does not match
    the scene.
    """

    def __call__(  # noqa: D102
        self, path: Path, raster: RasterSource, *, by_pixel: bool = False
    ) -> Labels: ...
