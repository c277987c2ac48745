"""Polygons and points in vector files: their classes, and the task that they are for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray

from geotune.api.init.classes import (
    ONE_CLASS,
    Request,
    class_names,
    list_counts,
    requested_names,
    require_task,
    set_class_values,
    set_object_classes,
    set_point_task,
)
from geotune.api.init.draft import Draft
from geotune.api.init.layout import PAGES, Layout
from geotune.data.labels.unread_attributes import possible_classes, unread_attributes
from geotune.data.labels.vector_io import (
    attribute_columns,
    class_column,
    class_values,
    read_features,
)
from geotune.errors import GeotuneError
from geotune.utils.colors import is_background
from geotune.utils.text import pluralize

CLASS_FIELD_WORDS = ("class", "label", "type", "species", "category", "kind", "code", "name")
"""Words in the name of a field that holds the class, the likeliest first."""

ONE_CLASS_FIELDS = CLASS_FIELD_WORDS[:-2]
"""Fields that name the class also if it is the only one; a code or name may be anything."""

RECTANGULAR = 0.98
"""Share of its smallest rectangle that a box covers."""

ORIENTED = 0.05
"""Share of boxes at an angle above which boxes are oriented."""

DEFAULT_POINT_PX = 16


def describe_features(draft: Draft, layout: Layout, request: Request) -> str:
    """Set the task and the classes of polygons or points. Returns a summary."""
    files = layout.label_files
    frames = [read_features(path) for path in files]
    shapes = np.concatenate([np.asarray(frame.geometry.array, dtype=object) for frame in frames])
    shapes = shapes[~(shapely.is_missing(shapes) | shapely.is_empty(shapes))]
    if not len(shapes):
        raise GeotuneError(
            f"{files[0]}: found no feature with a geometry in {pluralize(len(files), 'label file')}"
            f"; expected polygons or points; see {PAGES['scenes']}",
            code="labels-missing",
            key="data.labels",
            file=files[0],
        )
    column = _class_field(draft, layout, request)
    counts: Counter[Any] = Counter()
    for frame in frames:
        if column is None:
            counts[None] += len(frame)
        else:
            counts.update(value for value in class_values(frame, column))
    names = class_names(counts)
    if (shapely.get_dimensions(shapes) == 0).all():
        set_point_task(draft, request, names, DEFAULT_POINT_PX)
        return list_counts({name: counts[value] for name, value in names.items()}, "point")
    boxes = _rectangle_kind(shapes)
    task = require_task(
        request, "polygons", *(("detect", "segment") if boxes else ("segment", "detect"))
    )
    other = "segment" if task == "detect" else "detect"
    reason = "every polygon is a rectangle" if boxes else "outlines of areas"
    aim = "the class of each pixel" if other == "segment" else "boxes around objects"
    draft.set("task.kind", task, "" if request.task else f"{reason}; for {aim}: --task {other}")
    listing = list_counts({name: counts[value] for name, value in names.items()}, "polygon")
    if task == "detect":
        draft.set("task.boxes", boxes or "oriented")
        set_object_classes(draft, names, request)
        return listing
    _segment_polygons(draft, names, request)
    return listing


def _class_field(draft: Draft, layout: Layout, request: Request) -> str | None:
    """The field with the class: the requested, the usual, or the likeliest one."""
    files = layout.label_files
    frames = [(path, frame) for path in files if len(frame := read_features(path))]
    path, frame = frames[0]
    column = class_column(path, frame, request.class_field)
    if column is not None or request.class_field is not None:
        if request.class_field is not None:
            draft.set("data.class_field", request.class_field)
        return column
    candidates = possible_classes(
        [unread_attributes(path) for path in files], request.classes or ()
    )
    if not candidates:
        return _field_of_one_class(draft, frames)

    def rank(name: str) -> tuple[int, int]:
        words = [i for i, word in enumerate(CLASS_FIELD_WORDS) if word in name.lower()]
        return min(words, default=len(CLASS_FIELD_WORDS)), len(candidates[name])

    best, *rest = sorted(candidates, key=rank)
    others = f" (or {', '.join(rest)})" if rest else ""
    text = f'the attribute that looks like the class{others}; "" if all features are of one class'
    draft.set("data.class_field", best, text)
    return best


def _field_of_one_class(
    draft: Draft, frames: Sequence[tuple[Path, geopandas.GeoDataFrame]]
) -> str | None:
    """The field that names the only class, if one has a usual name and one text everywhere."""
    for name in attribute_columns(frames[0][1]):
        if name.lower() not in ONE_CLASS_FIELDS:
            continue
        if any(name not in attribute_columns(frame) for _, frame in frames):
            continue
        values = {str(v).strip() for _, frame in frames for v in class_values(frame, name)}
        text = next(iter(values)) if len(values) == 1 else ""
        if any(letter.isalpha() for letter in text):
            comment = f'all features have the value {text} in this attribute; "" if it is no class'
            draft.set("data.class_field", name, comment)
            return name
    return None


def _segment_polygons(draft: Draft, names: Mapping[str, Any], request: Request) -> None:
    """Set the classes of polygons, and what pixels outside them are."""
    labelled = any(is_background(name) for name in names)
    wanted = request.classes and [name for name in request.classes if not is_background(name)]
    added = not labelled and wanted is not None and len(wanted) < len(request.classes or ())
    if not labelled:
        request = replace(request, classes=wanted)
    chosen = requested_names(request, names)
    classes = sorted(chosen, key=lambda name: not is_background(name))
    comment = ""
    if added or (len(chosen) < 3 and not labelled):
        classes = ["background", *chosen]
        comment = (
            "pixels outside the polygons are background; if they are unknown, set "
            "data.unlabelled: ignore"
        )
        if [*chosen] == [ONE_CLASS]:
            comment = f"the labels state no class: rename {ONE_CLASS}. {comment}"
    else:
        draft.set(
            "data.unlabelled",
            "ignore",
            "pixels outside the polygons have no label; if they are background, remove this line "
            "and put a class background first in task.classes",
        )
    draft.set("task.classes", classes, comment)
    if None not in chosen.values():
        set_class_values(draft, {name: chosen.get(name, name) for name in classes})


def _rectangle_kind(shapes: NDArray[np.object_]) -> str | None:
    """`horizontal` or `oriented` if the polygons are rectangles; None if not."""
    areas = shapely.area(shapes)
    rectangles = shapely.area(shapely.minimum_rotated_rectangle(shapes))
    corners = shapely.get_num_coordinates(shapes) == 5
    if not (corners & (areas > RECTANGULAR * rectangles)).mean() > 0.95:
        return None
    left, bottom, right, top = shapely.bounds(shapes).T
    upright = areas > RECTANGULAR * (right - left) * (top - bottom)
    return "horizontal" if (~upright).mean() < ORIENTED else "oriented"
