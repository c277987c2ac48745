"""What labels are to a scene, whatever file they are in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from geotune.data.labels.class_mapping import ClassMapping, ClassValueSpec
from geotune.data.labels.polygon_labels import open_vector_labels
from geotune.data.labels.raster_labels import open_raster_labels
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.types import IGNORE, Target

VECTOR_SUFFIXES = (".geojson", ".json", ".gpkg", ".shp", ".fgb", ".parquet", ".kml", ".gml")


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


def is_vector(path: Path) -> bool:
    """Whether a file's name says that it holds vector labels."""
    return path.suffix.lower() in VECTOR_SUFFIXES


def open_labels(
    path: Path,
    raster: RasterSource,
    *,
    classes: Sequence[str],
    class_values: ClassValueSpec | None = None,
    class_field: str | None = None,
    ignore_values: Sequence[int] = (IGNORE,),
    unlabelled: Literal["background", "ignore"] | None = None,
    by_pixel: bool = False,
) -> Labels:
    """Labels of the scene `raster`, from a raster or vector file.

    Args:
        path: the label file.
        raster: the scene.
        classes: names, in the order of their indices.
        class_values: class name to its value or values; by default the class's index.
        class_field: attribute of vector labels with the class; `""`: none, every polygon is of
            the one class that is not background.
        ignore_values: values that are not counted.
        unlabelled: pixels outside vector labels are the first class (`background`) or not
            counted; by default the first class where it is called background.
        by_pixel: a raster's pixels are the scene's whatever georeference it has.

    Raises `GeotuneError` for a file that is missing, unreadable or does not fit the scene.
    """
    values = ClassMapping.of(classes, class_values, ignore_values)
    if not is_vector(path):
        return open_raster_labels(path, raster, values, by_pixel=by_pixel)
    if unlabelled is None:
        unlabelled = "background" if classes[0].casefold() == "background" else "ignore"
    return open_vector_labels(
        path,
        raster,
        values,
        class_field=class_field,
        outside=0 if unlabelled == "background" else IGNORE,
    )
