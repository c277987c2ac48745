"""What labels hold, and the task that they are for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from geotune.api.init.classes import Request, list_counts, require_task
from geotune.api.init.draft import Draft
from geotune.api.init.layout import Layout
from geotune.api.init.mask_labels import describe_masks
from geotune.api.init.object_labels import describe_objects
from geotune.api.init.vector_labels import describe_features
from geotune.data.raster.source import RasterSource
from geotune.data.text_io import read_csv
from geotune.utils.progress import OnProgress
from geotune.utils.text import pluralize


def describe_labels(
    draft: Draft,
    folder: Path,
    layout: Layout,
    rasters: Mapping[Path, RasterSource],
    request: Request,
    on_progress: OnProgress,
) -> str:
    """Set the task and the keys of `data` that say how labels are read. Returns a summary.

    Raises `GeotuneError` for labels that cannot be read, or that are not for the task.
    """
    if layout.kind == "image":
        return _describe_images(draft, layout, request)
    if layout.kind == "raster":
        return describe_masks(draft, layout, request, on_progress)
    if layout.kind == "vector":
        return describe_features(draft, layout, request)
    return describe_objects(draft, folder, layout, rasters, request)


def _describe_images(draft: Draft, layout: Layout, request: Request) -> str:
    draft.set("task.kind", "classify")
    if not layout.columns:
        require_task(request, "folders", "classify")
        counts = Counter(path.name for path in layout.labels.values() if path is not None)
        draft.set("task.classes", list(request.classes or sorted(counts)))
        return list_counts(counts, "image")
    column = next(name for name in ("label", "labels", "value") if name in layout.columns)
    index = layout.columns.index(column)
    rows = [row for _, row in read_csv(layout.label_files[0])][1:]
    cells = [row[index].strip() for row in rows if len(row) > index]
    if column == "value":
        draft.set("task.kind", require_task(request, "numbers", "regress"))
        draft.set("task.level", "image")
        return f"{pluralize(len(cells), 'image')} with a number each"
    require_task(request, "classes of images", "classify")
    names = Counter(
        name for cell in cells for name in cell.split(";" if column == "labels" else "\0")
    )
    names.pop("", None)
    draft.set("task.classes", list(request.classes or sorted(names)))
    if column == "labels":
        draft.set("task.multilabel", True, "the column `labels` lists any number of classes")
    return list_counts(names, "image")
