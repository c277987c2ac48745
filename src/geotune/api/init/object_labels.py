"""Object labels in any format: their classes, and the boxes that they describe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geotune.api.init.classes import (
    Request,
    class_names,
    list_counts,
    require_task,
    set_object_classes,
    set_point_task,
)
from geotune.api.init.draft import Draft
from geotune.api.init.layout import PAGES, Layout
from geotune.api.init.vector_labels import DEFAULT_POINT_PX, ORIENTED, RECTANGULAR
from geotune.config.loader import read_values
from geotune.data.annotations.base import AnnotationOptions, ParsedAnnotations
from geotune.data.annotations.formats import annotation_format, detect_format
from geotune.data.raster.file_pixels import as_stored
from geotune.data.raster.source import RasterSource
from geotune.data.text_io import read_words
from geotune.errors import GeotuneError
from geotune.utils.paths import files_below
from geotune.utils.text import join_some, pluralize

NAME_FILES = ("classes.txt", "obj.names", "data.yaml", "dataset.yaml")
"""Files of YOLO's tools that name the classes."""


def describe_objects(
    draft: Draft,
    folder: Path,
    layout: Layout,
    rasters: Mapping[Path, RasterSource],
    request: Request,
) -> str:
    """Set the task and the classes of objects. Returns a summary."""
    name = detect_format(layout.label_files)
    known = annotation_format(name)
    options = AnnotationOptions(oriented=name != "coco", point_size="2 px")
    labelled = {image: label for image, label in layout.labels.items() if label is not None}
    parsed = [
        known.read(label, as_stored(rasters[image]), options) for image, label in labelled.items()
    ]
    annotations = [item for each in parsed for item in each.annotations]
    counts = Counter(item.class_name for item in annotations)
    if not annotations:
        raise GeotuneError(
            f"{folder}: found {pluralize(len(layout.label_files), 'label file')}, read as {name}, "
            f"but no object in them; see {PAGES['objects']}",
            code="labels-missing",
            key="data.labels",
            file=folder,
        )
    without = [image for image, label in layout.labels.items() if label is None]
    if without:
        draft.set(
            "data.missing_labels",
            "empty",
            f"{pluralize(len(without), 'image')} without a label file, read as without objects; "
            "if their labels are missing, remove the images",
        )
    found = class_names(counts)
    totals = {text: counts[value] for text, value in found.items()}
    names = found
    if known.class_indices:
        names = _numbered(folder, counts)
        totals = {text: counts[i] for text, i in names.items() if counts[i]}
    if name == "points":
        if _in_coordinates(parsed, [rasters[image] for image in labelled]):
            request = replace(request, task=require_task(request, "points in a CRS", "density"))
            text = "x and y are in the CRS of the images; to find objects: points in a GeoPackage"
            draft.set("data.points", "coordinates", text)
        set_point_task(draft, request, names, _spacing(parsed))
    else:
        draft.set("task.kind", require_task(request, f"objects ({name})", "detect"))
        turned = np.mean([_turned(item.points) for item in annotations])
        oriented = name != "coco" and turned > ORIENTED
        draft.set(
            "task.boxes",
            "oriented" if oriented else "horizontal",
            f"{turned:.0%} of the boxes are at an angle" if oriented else "",
        )
        if known.class_indices and request.classes is None:
            draft.set("task.classes", [*names])
        else:
            set_object_classes(draft, names, request)
    return f"{list_counts(totals, 'object')}, read as {name}"


def _numbered(folder: Path, counts: Mapping[Any, int]) -> dict[str, int]:
    """Indices of classes that labels state by index, by names from a file that lists these."""
    highest = max(int(value) for value in counts)
    files = files_below(folder)
    for path in (path for name in NAME_FILES for path in files if path.name == name):
        names = _names_in(path)
        if names is None:
            continue
        if len(names) <= highest:
            raise GeotuneError(
                f"{path}: found {pluralize(len(names), 'name')} ({join_some(names, 5)}), but the "
                f"labels have class {highest}, which needs {highest + 1}; complete the names, or "
                "correct the labels",
                code="class-unknown",
                key="task.classes",
                file=path,
            )
        return {name: i for i, name in enumerate(names)}
    return {f"class_{i}": i for i in range(highest + 1)}


def _names_in(path: Path) -> list[str] | None:
    """Names of the classes by index in a file of YOLO's tools; None if it has none."""
    if path.suffix != ".yaml":
        return [" ".join(words) for _, words in read_words(path)]
    listed = read_values(path, "YOLO's description of the data", "names").get("names")
    if listed is None:
        return None
    if isinstance(listed, dict) and all(type(key) is int and key >= 0 for key in listed):
        listed = [listed.get(i, f"class_{i}") for i in range(max(listed, default=-1) + 1)]
    if not isinstance(listed, list):
        raise GeotuneError(
            f"{path}: names: found {listed!r}, expected a list such as [ship, crane], or names by "
            "number such as 0: ship",
            code="file-unreadable",
            key="task.classes",
            file=path,
        )
    return [str(name) for name in listed]


def _turned(points: NDArray[np.float64]) -> bool:
    """Whether four corners are those of a box at an angle."""
    if len(points) != 4:
        return False
    sides = np.ptp(points, axis=0)
    area = shapely.Polygon(points).area
    return bool(area < RECTANGULAR * sides.prod())


def _in_coordinates(parsed: Sequence[ParsedAnnotations], rasters: Sequence[RasterSource]) -> bool:
    """Whether most points are outside their georeferenced images, if read as pixels."""
    outside = [
        bool((item.points < 0).any() or (item.points > raster.shape[::-1]).any())
        for each, raster in zip(parsed, rasters, strict=True)
        for item in each.annotations
    ]
    return all(raster.georeferenced for raster in rasters) and float(np.mean(outside)) > 0.5


def _spacing(parsed: Sequence[ParsedAnnotations]) -> int:
    """The usual distance of a point from its nearest neighbour, in pixels."""
    distances = []
    for each in parsed:
        centres = np.array([item.points.mean(axis=0) for item in each.annotations])
        if len(centres) > 1:
            distances.append(cKDTree(centres).query(centres, k=2)[0][:, 1])
    if not distances:
        return DEFAULT_POINT_PX
    return int(np.clip(np.median(np.concatenate(distances)), 8, 32))
