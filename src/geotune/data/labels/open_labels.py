"""Opening the labels of a scene for segmentation, from a raster or vector file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from geotune.data.labels.base import Labels
from geotune.data.labels.class_mapping import ClassMapping, ClassValueSpec
from geotune.data.labels.polygon_labels import open_vector_labels
from geotune.data.labels.raster_labels import open_raster_labels
from geotune.data.labels.vector_io import is_vector
from geotune.data.raster.source import RasterSource
from geotune.types import IGNORE


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
