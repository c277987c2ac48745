"""Scenes: images found by pattern or in a list, each with its labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NoReturn

from geotune.data.issues import ErrorCollector
from geotune.data.labels.base import LabelReader
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource
from geotune.data.scenes.find import Names, Patterns, find_files, first_file
from geotune.data.scenes.patterns import format_pattern
from geotune.data.scenes.scene import Scene
from geotune.data.scenes.table import SceneEntry, is_table, read_scene_table
from geotune.errors import GeotuneError


def open_scenes(
    read: LabelReader,
    *,
    scenes: Patterns,
    labels: str | None = None,
    bands: Names | None = None,
    wanted_bands: Sequence[str] | None = None,
    nodata: float | None = None,
    resolution: float | None = None,
    missing: Literal["refuse", "empty"] = "refuse",
    faults: ErrorCollector | None = None,
) -> list[Scene]:
    """Scenes of the patterns or lists `scenes`, with their labels.

    A list may say a scene's label file; else the pattern `labels` does, in which `{stem}` or
    `{scene}` is the scene's name. `read` opens what it finds, and with `missing="empty"` what is
    not there, too. A file that is another scene's label is no scene. Raises `GeotuneError` where
    nothing is found, labels are missing, a file is unreadable, or no label lies in any scene;
    `faults` may keep what is wrong with single files.
    """
    faults = faults or ErrorCollector()
    found = list_scenes(scenes, bands=bands, wanted_bands=wanted_bands, faults=faults)
    label_files = label_files_of(found, labels)
    found = _without_labels(found, label_files)
    gone = [name for name in found if not label_files[name].is_file()]
    refused = missing == "refuse"
    if found and (len(gone) == len(found) or (gone and refused and not faults.keep)):
        raise_missing_labels(gone, label_files)
    opened = []
    for name, said in found.items():
        with faults.catch(name, first_file(said.files)):
            if refused and name in gone:
                raise_missing_labels([name], label_files)
            raster = _raster(said, bands, wanted_bands, nodata, resolution)
            scene = Scene(name, raster, read(label_files[name], raster), group=name)
            opened.append(with_attributes(scene, said))
    opened = drop_inconsistent_bands(opened, faults)
    require_overlap(opened, faults)
    return opened


def open_rasters(
    scenes: Patterns,
    *,
    bands: Names | None = None,
    wanted_bands: Sequence[str] | None = None,
    nodata: float | None = None,
    resolution: float | None = None,
) -> dict[str, RasterSource]:
    """The images of the patterns or lists `scenes` by name, without labels."""
    found = list_scenes(scenes, bands=bands, wanted_bands=wanted_bands)
    return open_entries(found, ErrorCollector(), bands, wanted_bands, nodata, resolution)


def open_entries(
    found: Mapping[str, SceneEntry],
    faults: ErrorCollector,
    bands: Names | None = None,
    wanted_bands: Sequence[str] | None = None,
    nodata: float | None = None,
    resolution: float | None = None,
) -> dict[str, RasterSource]:
    """The images of scenes that were found, by name."""
    opened = {}
    for name, said in found.items():
        with faults.catch(name, first_file(said.files)):
            opened[name] = _raster(said, bands, wanted_bands, nodata, resolution)
    return opened


def _raster(
    said: SceneEntry,
    bands: Names | None,
    wanted_bands: Sequence[str] | None,
    nodata: float | None,
    resolution: float | None,
) -> RasterSource:
    raster = open_raster(
        said.files, bands=bands, wanted_bands=wanted_bands, nodata=nodata, resolution=resolution
    )
    return raster if said.acquired is None else replace(raster, acquired=said.acquired)


def list_scenes(
    scenes: Patterns,
    *,
    bands: Names | None = None,
    wanted_bands: Sequence[str] | None = None,
    faults: ErrorCollector | None = None,
) -> dict[str, SceneEntry]:
    """What is known of each scene before it is opened, by its name.

    `scenes` are patterns, as `find_files` takes them, and lists, as `read_scene_table` does. Raises
    `GeotuneError` where nothing is found, and for two scenes of one name.
    """
    faults = faults or ErrorCollector()
    if isinstance(scenes, Mapping):
        files = find_files(scenes, bands=bands, wanted_bands=wanted_bands)
        return {name: SceneEntry(each) for name, each in files.items()}
    every = [scenes] if isinstance(scenes, str) else list(scenes)
    patterns = [each for each in every if not is_table(each)]
    found = {
        name: SceneEntry(files)
        for name, files in find_files(patterns, bands=bands, wanted_bands=wanted_bands).items()
    }
    for path in (Path(each) for each in every if is_table(each)):
        for name, said in read_scene_table(path, bands, wanted_bands, faults).items():
            if name in found:
                raise GeotuneError(f"{path}: names the scene {name} again; leave it out of one")
            found[name] = said
    return found


def with_attributes(scene: Scene, said: SceneEntry) -> Scene:
    """The scene with what its list says of it."""
    return replace(scene, split=said.split, attributes=said.attributes)


def label_files_of(found: Mapping[str, SceneEntry], labels: str | None) -> dict[str, Path]:
    """The label file of each scene. Raises `GeotuneError` where nothing says it."""
    files = {}
    for name, said in found.items():
        if said.label is None and labels is None:
            lacking = "its list says no label file" if said.attributes else "has no label file"
            raise GeotuneError(
                f"{first_file(said.files)}: {lacking}; give data.labels, a pattern with {{stem}} "
                "for the scene's name"
            )
        files[name] = said.label or label_file(str(labels), name)
    return files


def raise_missing_labels(
    missing: Sequence[str], label_files: Mapping[str, Path], otherwise: str = ""
) -> NoReturn:
    """Raise `GeotuneError` for scenes of which the label files are not there."""
    raise GeotuneError(
        f"{label_files[missing[0]]}: there is no such label file for scene {missing[0]}"
        + (f", nor one for {', '.join(missing[1:6])}" if missing[1:] else "")
        + "; mend data.labels, or data.scenes where it takes in too much"
        + otherwise
    )


def label_file(labels: str, name: str) -> Path:
    """The label file of a scene, which may not be there, by the pattern `labels`."""
    found = format_pattern(labels, {"stem": name, "scene": name})
    if not found:
        return Path(labels.replace("{stem}", name).replace("{scene}", name))
    if len(found) > 1:
        raise GeotuneError(
            f"{labels}: matches more than one file for scene {name} "
            f"({found[0]}, {found[1]}); make data.labels narrower"
        )
    return found[0]


def _without_labels(
    found: Mapping[str, SceneEntry], label_files: Mapping[str, Path]
) -> dict[str, SceneEntry]:
    """The scenes without those that are the label of another."""
    owner = {path.absolute(): name for name, path in label_files.items() if path.is_file()}
    return {
        name: said
        for name, said in found.items()
        if not isinstance(said.files, Path) or owner.get(said.files.absolute(), name) == name
    }


def drop_inconsistent_bands(scenes: Sequence[Scene], faults: ErrorCollector) -> list[Scene]:
    """The scenes that have the bands, and the names for them, that most have.

    Raises `GeotuneError` for the others, unless `faults` keep it.
    """
    if not scenes:
        return []
    usual, _ = Counter(scene.raster.bands for scene in scenes).most_common(1)[0]
    first = next(scene.raster for scene in scenes if scene.raster.bands == usual)
    kept = []
    for scene in scenes:
        with faults.catch(scene.name, scene.raster.path):
            if scene.raster.bands != usual:
                raise GeotuneError(
                    f"{first.path} has the bands {', '.join(usual)}, but {scene.raster.path} "
                    f"has {', '.join(scene.raster.bands)}; say which to use with backbone.bands"
                )
            kept.append(scene)
    return kept


def require_overlap(scenes: Sequence[Scene], faults: ErrorCollector) -> None:
    """Raise `GeotuneError` where no label lies in any scene, unless `faults` keep it."""
    held = [scene for scene in scenes if scene.labels.overlaps is not None]
    if held and not any(scene.labels.overlaps for scene in held):
        first = held[0]
        with faults.catch(None, first.labels.path):
            raise GeotuneError(
                f"{first.labels.path}: none of its labels lies in its scene {first.raster.path}"
                + (f", nor any of the other {len(held) - 1} files' in theirs" if held[1:] else "")
                + "; look whether the coordinates are in the CRS that the file states"
            )
