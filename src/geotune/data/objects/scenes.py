"""Finding scenes and the files with their objects."""

from __future__ import annotations

import glob
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from geotune.data.findings import Faults
from geotune.data.objects.annotations import Found, Remarks, listed, usable
from geotune.data.objects.catalog import FORMATS, Format, guess
from geotune.data.objects.labels import ObjectLabels
from geotune.data.objects.options import Options
from geotune.data.raster import RasterSource
from geotune.data.scene import Scene
from geotune.data.scenes import (
    label_file,
    open_rasters,
    refuse_missing,
    require_overlap,
    same_bands,
)
from geotune.data.splits import Parts
from geotune.data.values import ClassValues


def open_object_scenes(
    *,
    scenes: str | Sequence[str],
    labels: str,
    classes: Sequence[str],
    options: Options,
    format: str = "auto",
    missing: Literal["refuse", "empty"] = "refuse",
    class_values: Mapping[str, int] | None = None,
    bands: Sequence[str] | None = None,
    wanted_bands: Sequence[str] | None = None,
    nodata: float | None = None,
    faults: Faults | None = None,
) -> list[Scene]:
    """Scenes of the patterns `scenes` with the objects in the files that `labels` names.

    Args:
        scenes: files or patterns, as `scenes.find_files` takes them.
        labels: one file for all, or a pattern with `{stem}` or `{scene}` for the scene's name.
        classes: names, in the order of their indices.
        options: how objects are read.
        format: a name in `catalog.FORMATS`, or `auto`.
        missing: whether a scene without a label file is a fault, or has no object.
        class_values: class name to the number that stands for it; by default the class's index.
        bands: as `open_raster` takes them, like `wanted_bands` and `nodata`.
        faults: may keep what is wrong with single files.

    Raises `GeotuneError` for files that are missing or not as they should be, and where no object
    lies in its scene.
    """
    faults = faults or Faults()
    rasters = open_rasters(
        scenes, bands=bands, wanted_bands=wanted_bands, nodata=nodata, faults=faults
    )
    files = {name: label_file(labels, name) for name in rasters}
    there = list(dict.fromkeys(file for file in files.values() if file.is_file()))
    gone = [name for name, file in files.items() if not file.is_file()]
    refused = missing == "refuse"
    otherwise = "; say data.missing: empty where that means no object"
    if rasters and (not there or (gone and refused and not faults.keep)):
        refuse_missing(gone, files, otherwise)
    if not rasters:
        return []
    named = guess(there) if format == "auto" else format
    chosen = FORMATS[named]
    values = ClassValues.of(classes, class_values, ())
    remarks = Remarks()
    opened: dict[str, ObjectLabels] = {}
    for name, raster in rasters.items():
        with faults.of(name, raster.path):
            if refused and name in gone:
                refuse_missing([name], files, otherwise)
            said = chosen.read(files[name], raster, options) if files[name].is_file() else Found([])
            kept = usable(said, files[name], raster.shape, values, options, remarks)
            held = len(said.annotations) + said.elsewhere
            opened[name] = ObjectLabels(
                path=files[name],
                classes=values.classes,
                shape=raster.shape,
                boxes=kept[0],
                indices=kept[1],
                difficult=kept[2],
                visible=options.visible,
                overlaps=bool(len(kept[0])) if held else None,
            )
    notes = [f"{labels}: read as {named}; data.format says another"] if format == "auto" else []
    if gone and not refused:
        notes.append(
            f"{labels}: {len(gone)} scenes without a file, so without object: {listed(gone)}"
        )
    listing = {files[name] for name in opened if files[name].is_file()}
    if without := _without_image(labels, files, listing, rasters, chosen):
        notes.append(f"{labels}: {len(without)} without an image: {listed(without)}")
    notes += remarks.notes()
    found = [
        Scene(name, rasters[name], replace(label, notes=tuple(notes)), group=name)
        for name, label in opened.items()
    ]
    found = same_bands(found, faults)
    require_overlap(found, faults)
    return found


def _without_image(
    labels: str,
    files: Mapping[str, Path],
    listing: Collection[Path],
    rasters: Mapping[str, RasterSource],
    chosen: Format,
) -> list[str]:
    """Label files, or images that those which could be read list, for which there is no scene."""
    if chosen.images is not None:
        there = {raster.path.stem for raster in rasters.values()}
        names = {name for file in listing for name in chosen.images(file)}
        return sorted(names - there)
    pattern = re.sub(r"\{\w+\}", "*", labels)
    if pattern == labels:
        return []
    used = {file.absolute() for file in files.values()}
    return [str(p) for p in map(Path, sorted(glob.glob(pattern))) if p.absolute() not in used]


def cut_notes(parts: Parts, window: int) -> list[str]:
    """What the windows of `val` and `test` do to the objects there."""
    notes = []
    for part in ("val", "test"):
        areas = [
            s.labels if s.area is None else s.labels.within(s.area)
            for s in parts[part]
            if isinstance(s.labels, ObjectLabels)
        ]
        cut = sum(labels.cut(window) for labels in areas)
        if cut:
            total = sum(int((~labels.difficult).sum()) for labels in areas)
            notes.append(
                f"{cut} of {total} objects in the {part} scenes are so cut by the grid of {window} "
                "pixels or the scene's edge that no window shows data.visible of them: none judges "
                "them"
            )
    return notes
