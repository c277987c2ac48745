"""Finding scenes and the files with their objects."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from geotune.data.annotations.annotation_options import AnnotationOptions
from geotune.data.annotations.base import AnnotationFormat, Notes, ParsedAnnotations, filter_valid
from geotune.data.annotations.formats import annotation_format, detect_format
from geotune.data.annotations.object_labels import ObjectLabels
from geotune.data.issues import ErrorCollector
from geotune.data.labels.class_mapping import ClassMapping, ClassValueSpec
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
from geotune.utils.text import join_some, pluralize


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
    """Scenes of the patterns `scenes` with the objects in the files that `labels` names.

    Args:
        scenes: patterns or lists, as `scenes.list_scenes` takes them.
        labels: one file for all, or a pattern with `{stem}` or `{scene}` for the scene's name; a
            list may say it itself.
        classes: names, in the order of their indices.
        options: how objects are read.
        format: a name in `registry.ANNOTATION_FORMATS`, or `auto`.
        missing: whether a scene without a label file is a fault, or has no object.
        class_values: class name to what stands for it in the files; by default the class's index.
        bands: as `open_raster` takes them, like `wanted_bands`, `nodata` and `resolution`.
        errors: may keep what is wrong with single files.

    Raises `GeotuneError` for files that are missing or not as they should be, and where no object
    lies in its scene.
    """
    errors = errors or ErrorCollector()
    origin = labels or "the labels that data.scenes lists"
    found = list_scenes(scenes, bands=bands, wanted_bands=wanted_bands, errors=errors)
    rasters = open_entries(found, errors, bands, wanted_bands, nodata, resolution)
    every = label_files_of(found, labels)
    files = {name: every[name] for name in rasters}
    there = list(dict.fromkeys(file for file in files.values() if file.is_file()))
    gone = [name for name, file in files.items() if not file.is_file()]
    refused = missing_labels == "refuse"
    otherwise = "; say data.missing_labels: empty where that means no object"
    if rasters and (not there or (gone and refused and not errors.keep)):
        raise_missing_labels(gone, files, otherwise)
    if not rasters:
        return []
    chosen = detect_format(there) if format == "auto" else format
    notes = [f"{origin}: read as {chosen}; data.format says another"] if format == "auto" else []
    if refused:
        for name in gone:
            with errors.catch(name, rasters.pop(name).path):
                raise_missing_labels([name], files, otherwise)
    elif gone:
        notes.append(
            f"{origin}: {pluralize(len(gone), 'scene')} without a file, so without object: "
            f"{join_some(gone, 3)}"
        )
    values = ClassMapping.from_spec(classes, class_values, ())
    opened, remarks = _open_labels(rasters, files, values, options, chosen, errors)
    listing = {files[name] for name in opened if files[name].is_file()}
    if without := _without_image(labels or "", files, listing, rasters, annotation_format(chosen)):
        notes.append(f"{origin}: {len(without)} without an image: {join_some(without, 3)}")
    opened_scenes = _scenes(rasters, opened, [*notes, *remarks], errors)
    return [with_attributes(scene, found[scene.name]) for scene in opened_scenes]


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
    """Images with the objects in their label files, by name.

    A file that is not there means no object. `notes` are said of all. Raises `GeotuneError` for
    files that are not as they should be, and where no object lies in its image; `errors` may keep
    what is wrong with single files.
    """
    errors = errors or ErrorCollector()
    values = ClassMapping.from_spec(classes, class_values, ())
    opened, remarks = _open_labels(rasters, files, values, options, format, errors)
    return _scenes(rasters, opened, [*notes, *remarks], errors)


def _open_labels(
    rasters: Mapping[str, RasterSource],
    files: Mapping[str, Path],
    values: ClassMapping,
    options: AnnotationOptions,
    format: str,
    errors: ErrorCollector,
) -> tuple[dict[str, ObjectLabels], tuple[str, ...]]:
    """The labels of each image that can be read, and what was remarked of them."""
    read = annotation_format(format).read
    remarks = Notes()
    opened: dict[str, ObjectLabels] = {}
    images = Counter(files.values())
    for name, raster in rasters.items():
        with errors.catch(name, raster.path):
            said = (
                read(files[name], raster, options)
                if files[name].is_file()
                else ParsedAnnotations([])
            )
            shared = images[files[name]] > 1
            kept = filter_valid(
                said, files[name], raster.shape, values, options, remarks, shared=shared
            )
            held = len(said.annotations) + len(said.distant_features)
            opened[name] = ObjectLabels(
                path=files[name],
                classes=values.classes,
                shape=raster.shape,
                boxes=kept[0],
                indices=kept[1],
                difficult=kept[2],
                min_visibility=options.min_visibility,
                overlaps=bool(len(kept[0])) if held else None,
            )
    return opened, remarks.notes()


def _scenes(
    rasters: Mapping[str, RasterSource],
    opened: Mapping[str, ObjectLabels],
    notes: Sequence[str],
    errors: ErrorCollector,
) -> list[Scene]:
    found = [
        Scene(name, rasters[name], replace(label, notes=tuple(notes)), group=name)
        for name, label in opened.items()
    ]
    found = drop_inconsistent_bands(found, errors)
    require_overlap(found, errors)
    return found


def _without_image(
    labels: str,
    files: Mapping[str, Path],
    listing: Collection[Path],
    rasters: Mapping[str, RasterSource],
    chosen: AnnotationFormat,
) -> list[str]:
    """Label files, or images that those which could be read list, for which there is no scene."""
    if chosen.list_images is not None:
        there = {raster.path.stem for raster in rasters.values()}
        names = {name for file in listing for name in chosen.list_images(file)}
        return sorted(names - there)
    pattern = re.sub(r"\{\w+\}", "*", labels)
    if pattern == labels:
        return []
    used = {file.absolute() for file in files.values()}
    return [str(p) for p in map(Path, sorted(glob.glob(pattern))) if p.absolute() not in used]


def uncounted_object_notes(splits: Splits, window: int) -> list[str]:
    """What the windows of `val` and `test` do to the objects there."""
    notes = []
    for part in ("val", "test"):
        areas = [
            s.labels if s.raster.area is None else s.labels.within(s.raster.area)
            for s in splits[part]
            if isinstance(s.labels, ObjectLabels)
        ]
        cut = sum(labels.num_uncounted(window) for labels in areas)
        if cut:
            total = sum(int((~labels.difficult).sum()) for labels in areas)
            notes.append(
                f"{cut} of {total} objects in the {part} scenes are so cut by the grid of {window} "
                "pixels or the scene's edge that no window shows data.min_visibility of them: none judges "
                "them"
            )
    return notes
