"""Opening scenes with their object annotations."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from geotune.data.annotations.base import (
    AnnotationFormat,
    AnnotationOptions,
    Notes,
    ParsedAnnotations,
    filter_valid,
)
from geotune.data.annotations.formats import annotation_format, detect_format
from geotune.data.annotations.object_labels import ObjectLabels
from geotune.data.issues import ErrorCollector
from geotune.data.labels.class_mapping import ClassMapping, ClassValueSpec
from geotune.data.labels.vector_io import label_exists
from geotune.data.raster.file_pixels import as_stored, from_file_pixels
from geotune.data.raster.source import RasterSource
from geotune.data.scenes.find import Names, Patterns
from geotune.data.scenes.open_scenes import (
    drop_inconsistent_bands,
    label_files_of,
    list_scenes,
    open_entries,
    raise_missing_labels,
    require_overlap,
    with_attributes,
)
from geotune.data.scenes.scene import Scene
from geotune.data.splits.base import Splits
from geotune.errors import GeotuneError
from geotune.utils.text import join_some, nfc, pluralize


def open_annotated_scenes(
    *,
    scenes: Patterns,
    labels: str | None = None,
    classes: Sequence[str],
    options: AnnotationOptions,
    format: str = "auto",
    missing_labels: Literal["refuse", "empty"] = "refuse",
    class_values: ClassValueSpec | None = None,
    bands: Names | None = None,
    wanted_bands: Sequence[str] | None = None,
    nodata: float | None = None,
    resolution: float | None = None,
    errors: ErrorCollector | None = None,
) -> list[Scene]:
    """Open the scenes of patterns or tables with their annotations.

    Args:
        scenes: patterns of images, or tables.
        labels: a file for all scenes, or a pattern with `{stem}` or `{scene}` for the scene's name;
            a table may state them instead.
        classes: names, in the order of their indices.
        options: how annotations are read.
        format: a name in `registry.ANNOTATION_FORMATS`, or `auto`.
        missing_labels: whether a scene without a label file is an error, or has no objects.
        class_values: class name to its value or values in the files; by default the class index.
        bands: as for `open_raster`, like `wanted_bands`, `nodata` and `resolution`.
        errors: may collect errors about single files.

    Raises `GeotuneError` for files that are missing or invalid, and if no object lies in its scene.
    """
    errors = errors or ErrorCollector()
    source = labels or "the labels in data.scenes"
    entries = list_scenes(scenes, bands=bands, wanted_bands=wanted_bands, errors=errors)
    rasters = open_entries(entries, errors, bands, wanted_bands, nodata, resolution)
    label_files = label_files_of(entries, labels)
    files = {name: label_files[name] for name in rasters}
    existing = list(dict.fromkeys(file for file in files.values() if label_exists(file)))
    missing = [name for name, file in files.items() if not label_exists(file)]
    required = missing_labels == "refuse"
    advice = "; set data.missing_labels: empty if they contain no objects"
    if rasters and (not existing or (missing and required and not errors.keep)):
        raise_missing_labels(missing, files, advice)
    if not rasters:
        return []
    notes = []
    if format == "auto":
        format = detect_format(existing)
        notes.append(f"{source}: read as {format}; set data.format to change this")
    if required:
        for name in missing:
            with errors.catch(name, rasters.pop(name).path):
                raise_missing_labels([name], files, advice)
    elif missing:
        notes.append(
            f"{source}: {pluralize(len(missing), 'scene')} without a label file, read as without "
            f"objects: {join_some(missing, 3)}"
        )
    mapping = _class_mapping(classes, class_values, format)
    opened, file_notes = _open_labels(rasters, files, mapping, options, format, errors)
    read_files = {files[name] for name in opened if label_exists(files[name])}
    if unused := _unused(labels or "", files, read_files, rasters, annotation_format(format)):
        notes.append(f"{source}: {len(unused)} without an image: {join_some(unused, 3)}")
    return [
        with_attributes(scene, entries[scene.name])
        for scene in _scenes(rasters, opened, [*notes, *file_notes], errors)
    ]


def build_annotated_scenes(
    rasters: Mapping[str, RasterSource],
    files: Mapping[str, Path],
    *,
    classes: Sequence[str],
    options: AnnotationOptions,
    format: str,
    class_values: ClassValueSpec | None = None,
    notes: Sequence[str] = (),
    errors: ErrorCollector | None = None,
) -> list[Scene]:
    """Combine images and label files by scene name.

    A label file that does not exist means no objects. `notes` apply to all scenes. Raises
    `GeotuneError` for invalid files, and if no object lies in its image; `errors` may collect
    errors about single files.
    """
    errors = errors or ErrorCollector()
    mapping = _class_mapping(classes, class_values, format)
    opened, file_notes = _open_labels(rasters, files, mapping, options, format, errors)
    return _scenes(rasters, opened, [*notes, *file_notes], errors)


def _class_mapping(
    classes: Sequence[str], class_values: ClassValueSpec | None, format: str
) -> ClassMapping:
    by_index = annotation_format(format).class_indices
    return ClassMapping.from_spec(classes, class_values, (), by_index=by_index)


def _open_labels(
    rasters: Mapping[str, RasterSource],
    files: Mapping[str, Path],
    mapping: ClassMapping,
    options: AnnotationOptions,
    format: str,
    errors: ErrorCollector,
) -> tuple[dict[str, ObjectLabels], tuple[str, ...]]:
    """The labels of each image with a valid label file, and notes about all files."""
    annotations = annotation_format(format)
    notes = Notes()
    opened: dict[str, ObjectLabels] = {}
    num_images = Counter(files.values())
    owners: dict[tuple[Path, object], RasterSource] = {}
    for name, raster in rasters.items():
        path = files[name]
        with errors.catch(name, raster.path):
            parsed = (
                _read(annotations, path, raster, options)
                if label_exists(path)
                else ParsedAnnotations([])
            )
            shared = num_images[path] > 1
            if parsed.image is not None:
                owner = owners.setdefault((path, parsed.image), raster)
                if owner is not raster:
                    raise GeotuneError(
                        f"{path}: lists one image for {owner.path} and {raster.path}; list both, "
                        "with their folders in file_name",
                        code="label-image",
                        key="data.labels",
                        file=path,
                    )
            boxes, indices, difficult, overlaps = filter_valid(
                parsed, path, raster.shape, mapping, options, notes, shared=shared
            )
            opened[name] = ObjectLabels(
                path=path,
                classes=mapping.classes,
                shape=raster.shape,
                boxes=boxes,
                indices=indices,
                difficult=difficult,
                min_visibility=options.min_visibility,
                overlaps=overlaps,
                unread=parsed.unread,
            )
    return opened, notes.texts()


def _read(
    format: AnnotationFormat, path: Path, raster: RasterSource, options: AnnotationOptions
) -> ParsedAnnotations:
    if not format.in_pixels:
        return format.read(path, raster, options)
    parsed = format.read(path, as_stored(raster), options)
    annotations = parsed.annotations
    if raster.file_grid is None or not annotations:
        return parsed
    points = from_file_pixels(raster, np.concatenate([a.points for a in annotations]))
    ends = np.cumsum([len(a.points) for a in annotations])[:-1]
    moved = zip(annotations, np.split(points, ends), strict=True)
    return replace(parsed, annotations=[a._replace(points=p) for a, p in moved])


def _scenes(
    rasters: Mapping[str, RasterSource],
    opened: Mapping[str, ObjectLabels],
    notes: Sequence[str],
    errors: ErrorCollector,
) -> list[Scene]:
    scenes = [
        Scene(name, rasters[name], replace(labels, notes=tuple(notes)), group=name)
        for name, labels in opened.items()
    ]
    scenes = drop_inconsistent_bands(scenes, errors)
    require_overlap(scenes, errors)
    return scenes


def _unused(
    labels: str,
    files: Mapping[str, Path],
    read_files: Collection[Path],
    rasters: Mapping[str, RasterSource],
    format: AnnotationFormat,
) -> list[str]:
    """Label files, or images listed in label files, without a scene."""
    if format.list_images is not None:
        stems = {nfc(raster.path.stem) for raster in rasters.values()}
        listed = {name for file in read_files for name in format.list_images(file)}
        return sorted(listed - stems)
    pattern = re.sub(r"\{\w+\}", "*", labels)
    if pattern == labels:
        return []
    used = {file.absolute() for file in files.values()}
    return [str(p) for p in map(Path, sorted(glob.glob(pattern))) if p.absolute() not in used]


def uncounted_object_notes(splits: Splits, window: int) -> list[str]:
    """Notes about objects in val and test that count in no window of the grid."""
    notes = []
    for split in ("val", "test"):
        labels = [
            s.labels if s.raster.area is None else s.labels.within(s.raster.area)
            for s in splits[split]
            if isinstance(s.labels, ObjectLabels)
        ]
        uncounted = sum(objects.num_uncounted(window) for objects in labels)
        if uncounted:
            total = sum(int((~objects.difficult).sum()) for objects in labels)
            notes.append(
                f"{uncounted} of {total} objects in the {split} split are not evaluated: the grid "
                f"of {window} pixels or the edge of the scene cuts them, so that no window shows "
                "data.min_visibility of them"
            )
    return notes
