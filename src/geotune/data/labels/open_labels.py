"""Opening labels for segmentation from a raster or vector file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from geotune.config.data_options import LabelledDataOptions, ScenesOptions
from geotune.config.task_options import SegmentOptions
from geotune.data.labels.base import LabelReader, Labels
from geotune.data.labels.class_mapping import ClassMapping, ClassValueSpec
from geotune.data.labels.polygon_labels import open_polygon_labels
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
    ignore_values: Sequence[int] | None = None,
    unlabelled: Literal["background", "ignore"] | None = None,
    by_pixel: bool = False,
) -> Labels:
    """Open the labels of the scene `raster`.

    Args:
        path: the label file.
        raster: the image of the scene.
        classes: names, in the order of their indices.
        class_values: the value or values of each class; by default the class's index.
        class_field: field of vector labels with the class; `""` if there is none and every polygon
            has the one class that is not background.
        ignore_values: values that are neither trained on nor counted; by default 255, and none in
            colour masks.
        unlabelled: whether pixels outside vector labels have the first class (`background`) or are
            ignored; by default the first class if it is named background.
        by_pixel: match pixels of a label raster by row and column, whatever its georeference.

    Raises `GeotuneError` for a file that is missing, unreadable or does not fit the scene.
    """
    mapping = ClassMapping.from_spec(classes, class_values, ignore_values)
    if not is_vector(path):
        return open_raster_labels(path, raster, mapping, by_pixel=by_pixel)
    if unlabelled is None:
        unlabelled = "background" if classes[0].casefold() == "background" else "ignore"
    return open_polygon_labels(
        path,
        raster,
        mapping,
        class_field=class_field,
        outside=0 if unlabelled == "background" else IGNORE,
    )


def class_label_reader(data: LabelledDataOptions, task: SegmentOptions) -> LabelReader:
    """The reader of labels for segmentation."""
    vector = {}
    if isinstance(data, ScenesOptions):
        vector = {"class_field": data.class_field, "unlabelled": data.unlabelled}
    return partial(
        open_labels,
        classes=task.classes,
        class_values=data.class_values,
        ignore_values=data.ignore_values,
        **vector,  # type: ignore[arg-type]
    )
