"""Open scenes (`data.kind: scenes`): images found by pattern or listed in a table, with labels.

`chips.py` opens a folder of images and a folder of masks.
"""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NoReturn

from geotune.data.issues import ErrorCollector, Issue
from geotune.data.labels.base import LabelReader
from geotune.data.labels.vector_io import label_exists
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource
from geotune.data.scenes.entry import SceneEntry
from geotune.data.scenes.find import (
    Names,
    Patterns,
    find_scenes,
    first_file,
    images_in_other_case,
    readable_path,
)
from geotune.data.scenes.patterns import NOT_FOUND, explain_no_match, format_pattern
from geotune.data.scenes.scene import Scene
from geotune.data.scenes.table import is_table, read_scene_table
from geotune.errors import GeotuneError
from geotune.utils.remote import to_path
from geotune.utils.text import join_some, pluralize


def open_scenes(
    read: LabelReader,
    *,
    scenes: Patterns,
    labels: str | None = None,
    bands: Names | None = None,
    wanted_bands: Sequence[str] | None = None,
    nodata: float | None = None,
    resolution: float | None = None,
    missing_labels: Literal["refuse", "empty"] = "refuse",
    errors: ErrorCollector | None = None,
) -> list[Scene]:
    """Open the scenes of patterns or tables with their labels.

    Args:
        read: opens a label file; with `missing_labels="empty"` also one that does not exist.
        scenes: patterns of images, or tables. A file that is the label of another scene is not a
            scene.
        labels: pattern of the label files, with `{stem}` or `{scene}` for the scene's name, or the
            fields of `scenes`; a table may state them instead.
        bands: as for `open_raster`, like `wanted_bands`, `nodata` and `resolution`.
        missing_labels: whether a scene without a label file is an error or has no labels.
        errors: may collect errors about single files.

    Raises `GeotuneError` for patterns without a match, missing labels, unreadable files, and if no
    label lies in any scene.
    """
    errors = errors or ErrorCollector()
    entries = list_scenes(scenes, bands=bands, wanted_bands=wanted_bands, errors=errors)
    label_files = label_files_of(entries, labels)
    entries = without_label_files(entries, label_files)
    unlabelled = [name for name in entries if not label_exists(label_files[name])]
    required = missing_labels == "refuse"
    if entries and (
        len(unlabelled) == len(entries) or (unlabelled and required and not errors.keep)
    ):
        raise_missing_labels(unlabelled, label_files)
    opened = []
    for name, entry in entries.items():
        with errors.catch(name, first_file(entry.files)):
            if required and name in unlabelled:
                raise_missing_labels([name], label_files)
            raster = _open_entry(entry, bands, wanted_bands, nodata, resolution)
            scene = Scene(name, raster, read(label_files[name], raster), group=name)
            opened.append(with_attributes(scene, entry))
    opened = drop_inconsistent_bands(opened, errors)
    require_overlap(opened, errors)
    return opened


def by_modality(scenes: Sequence[str]) -> Patterns:
    """Patterns by modality for `S2L2A=s2/*.tif S1GRD=s1/*.tif`; otherwise the patterns."""
    pairs = [text.partition("=") for text in scenes]
    if all(sign and name.isidentifier() for name, sign, _ in pairs):
        return {name: pattern for name, _, pattern in pairs}
    return list(scenes)


def open_rasters(
    scenes: Patterns,
    *,
    bands: Names | None = None,
    wanted_bands: Sequence[str] | None = None,
    nodata: float | None = None,
    resolution: float | None = None,
) -> dict[str, RasterSource]:
    """Open the images of patterns or tables, by scene name, without labels."""
    entries = list_scenes(scenes, bands=bands, wanted_bands=wanted_bands)
    return open_entries(entries, ErrorCollector(), bands, wanted_bands, nodata, resolution)


def open_entries(
    entries: Mapping[str, SceneEntry],
    errors: ErrorCollector,
    bands: Names | None = None,
    wanted_bands: Sequence[str] | None = None,
    nodata: float | None = None,
    resolution: float | None = None,
) -> dict[str, RasterSource]:
    """Open the images of scenes, by name."""
    opened = {}
    for name, entry in entries.items():
        with errors.catch(name, first_file(entry.files)):
            opened[name] = _open_entry(entry, bands, wanted_bands, nodata, resolution)
    return opened


def _open_entry(
    entry: SceneEntry,
    bands: Names | None,
    wanted_bands: Sequence[str] | None,
    nodata: float | None,
    resolution: float | None,
) -> RasterSource:
    raster = open_raster(
        entry.files, bands=bands, wanted_bands=wanted_bands, nodata=nodata, resolution=resolution
    )
    return raster if entry.acquired is None else replace(raster, acquired=entry.acquired)


def list_scenes(
    scenes: Patterns,
    *,
    bands: Names | None = None,
    wanted_bands: Sequence[str] | None = None,
    errors: ErrorCollector | None = None,
) -> dict[str, SceneEntry]:
    """List the scenes of patterns (`find_files`) and tables (`read_scene_table`) by name.

    Raises `GeotuneError` if there are none, and for two scenes with the same name.
    """
    errors = errors or ErrorCollector()
    if isinstance(scenes, Mapping):
        by_modality = find_scenes(scenes, bands=bands, wanted_bands=wanted_bands)
        return {name: SceneEntry(f.files, fields=f.fields) for name, f in by_modality.items()}
    paths = [scenes] if isinstance(scenes, str) else list(scenes)
    patterns = [path for path in paths if not is_table(path)]
    entries = {
        name: SceneEntry(found.files, fields=found.fields)
        for name, found in find_scenes(patterns, bands=bands, wanted_bands=wanted_bands).items()
    }
    for path in (Path(each) for each in paths if is_table(each)):
        for name, entry in read_scene_table(path, bands, wanted_bands, errors).items():
            if name in entries:
                raise GeotuneError(
                    f"{path}: scene {name} is already in data.scenes; remove one",
                    code="scene-duplicate",
                    key="data.scenes",
                    file=path,
                )
            entries[name] = entry
    return entries


def missed_images(
    scenes: Patterns, opened: Sequence[Scene] = (), *, key: str | None = "data.scenes"
) -> list[Issue]:
    """A warning if patterns of scenes miss images by upper and lower case alone.

    Labels of the `opened` scenes are no images; `key` is that of the patterns.
    """
    paths = [scenes] if isinstance(scenes, str) else scenes
    patterns = [*(paths.values() if isinstance(paths, Mapping) else paths)]
    used = {scene.labels.path.absolute() for scene in opened}
    others = images_in_other_case([path for path in patterns if not is_table(path)])
    missed = [path for path in others if path.absolute() not in used]
    if not missed:
        return []
    text = (
        f"{key or 'scenes'}: {pluralize(len(missed), 'image')} match in another case only, not "
        f"used: {join_some([*map(str, missed)])}; add a pattern in their case, or rename them"
    )
    return [Issue("warning", "files", text, missed[0], key=key)]


def with_attributes(scene: Scene, entry: SceneEntry) -> Scene:
    """The scene with the split and attributes that its table or pattern states."""
    return replace(scene, split=entry.split, attributes=entry.attributes or entry.fields)


def label_files_of(entries: Mapping[str, SceneEntry], labels: str | None) -> dict[str, Path]:
    """The label file of each scene. Raises `GeotuneError` if it is not stated."""
    files = {}
    for name, entry in entries.items():
        if entry.label is None and labels is None:
            reason = "its table states no label file" if entry.attributes else "has no label file"
            path = first_file(entry.files)
            raise GeotuneError(
                f"{path}: {reason}; set data.labels, a pattern with {{stem}} for the scene's name",
                code="labels-missing",
                key="data.labels",
                file=path,
            )
        files[name] = entry.label or label_file(str(labels), name, entry.fields)
    return files


def raise_missing_labels(
    missing: Sequence[str], label_files: Mapping[str, Path], advice: str = ""
) -> NoReturn:
    """Raise `GeotuneError` for scenes whose label files do not exist."""
    path = label_files[missing[0]]
    reason = explain_no_match(glob.escape(str(path)))
    raise GeotuneError(
        f"{path}: label file of scene {missing[0]} not found"
        + ("" if reason == NOT_FOUND else f": {reason}")
        + (f" (also missing for {join_some(missing[1:])})" if missing[1:] else "")
        + "; check data.labels, or data.scenes if it matches too much"
        + advice,
        code="labels-missing",
        key="data.labels",
        file=path,
    )


def label_file(labels: str, name: str, fields: Mapping[str, str] | None = None) -> Path:
    """The label file of a scene by the pattern `labels`, whether or not it exists.

    The pattern may contain `{stem}` and `{scene}` for the scene's name, and `fields`.
    """
    fields = {"stem": name, **(fields or {}), "scene": name}
    paths = format_pattern(readable_path(labels), fields)
    if not paths:
        return to_path(re.sub(r"\{(\w+)\}", lambda match: fields[match[1]], labels))
    if len(paths) > 1:
        raise GeotuneError(
            f"{labels}: matches several files for scene {name} ({paths[0]}, {paths[1]}); make it "
            "narrower",
            code="pattern-invalid",
            key="data.labels",
        )
    return paths[0]


def without_label_files(
    entries: Mapping[str, SceneEntry], label_files: Mapping[str, Path]
) -> dict[str, SceneEntry]:
    """The scenes without those that are the label of another; `label_files` by scene."""
    owner = {path.absolute(): name for name, path in label_files.items() if label_exists(path)}
    return {
        name: entry
        for name, entry in entries.items()
        if not isinstance(entry.files, Path) or owner.get(entry.files.absolute(), name) == name
    }


def drop_inconsistent_bands(scenes: Sequence[Scene], errors: ErrorCollector) -> list[Scene]:
    """Keep the scenes whose bands are those of the majority.

    Raises `GeotuneError` for the others, unless `errors` collects it.
    """
    if not scenes:
        return []
    common, _ = Counter(scene.raster.bands for scene in scenes).most_common(1)[0]
    first = next(scene.raster for scene in scenes if scene.raster.bands == common)
    consistent = []
    for scene in scenes:
        path = scene.raster.path
        with errors.catch(scene.name, path):
            if scene.raster.bands != common:
                raise GeotuneError(
                    f"{first.path} has the bands {', '.join(common)}, but {path} has "
                    f"{', '.join(scene.raster.bands)}; select common bands with backbone.bands",
                    code="bands-inconsistent",
                    key="backbone.bands",
                    file=path,
                )
            consistent.append(scene)
    return consistent


def placement_advice(path: Path) -> str:
    """What to check if no label of a file lies in its scene."""
    if path.suffix.lower() in (".csv", ".txt"):
        return (
            "check that its numbers are pixels of the image (to count objects, data.points: "
            "coordinates reads x and y in the image's CRS)"
        )
    return "check that its coordinates are in its CRS, and the CRS of the image"


def require_overlap(scenes: Sequence[Scene], errors: ErrorCollector) -> None:
    """Raise `GeotuneError` if no label lies in any scene, unless `errors` collects it."""
    labelled = [scene for scene in scenes if scene.labels.overlaps is not None]
    if labelled and not any(scene.labels.overlaps for scene in labelled):
        first, *others = labelled
        path = first.labels.path
        with errors.catch(None, path):
            raise GeotuneError(
                f"{path}: none of its labels lies in its scene {first.raster.path}"
                + (f" (the same in {pluralize(len(others), 'other scene')})" if others else "")
                + f"; {placement_advice(path)}",
                code="labels-outside",
                key="data.labels",
                file=path,
            )
