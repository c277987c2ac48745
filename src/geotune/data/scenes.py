"""Finding scenes and their labels by path patterns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NoReturn

from geotune.data.findings import Faults
from geotune.data.labels import LabelReader
from geotune.data.patterns import Match, fill, find
from geotune.data.raster import RasterSource, open_raster
from geotune.data.scene import Scene
from geotune.types import GeotuneError

Files = Path | dict[str, Path]
"""A multi-band file, or the file of each band."""

RASTER_SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg", ".bmp")


def open_scenes(
    read: LabelReader,
    *,
    scenes: str | Sequence[str],
    labels: str,
    bands: Sequence[str] | None = None,
    wanted_bands: Sequence[str] | None = None,
    nodata: float | None = None,
    missing: Literal["refuse", "empty"] = "refuse",
    faults: Faults | None = None,
) -> list[Scene]:
    """Scenes of the patterns `scenes` with the labels that the pattern `labels` names.

    `{stem}` or `{scene}` in `labels` is the scene's name; `read` opens what it finds, and with
    `missing="empty"` what is not there, too. A file that is another scene's label is no scene.
    Raises `GeotuneError` where nothing is found, labels are missing, a file is unreadable, or no
    label lies in any scene; `faults` may keep what is wrong with single files.
    """
    faults = faults or Faults()
    found = find_files(scenes, bands=bands, wanted_bands=wanted_bands)
    label_files = {name: label_file(labels, name) for name in found}
    found = _without_labels(found, label_files)
    gone = [name for name in found if not label_files[name].is_file()]
    refused = missing == "refuse"
    if len(gone) == len(found) or (gone and refused and not faults.keep):
        refuse_missing(gone, label_files)
    opened = []
    for name, files in found.items():
        with faults.of(name, first_file(files)):
            if refused and name in gone:
                refuse_missing([name], label_files)
            raster = open_raster(files, bands=bands, wanted_bands=wanted_bands, nodata=nodata)
            opened.append(Scene(name, raster, read(label_files[name], raster), group=name))
    opened = same_bands(opened, faults)
    require_overlap(opened, faults)
    return opened


def open_rasters(
    scenes: str | Sequence[str],
    *,
    bands: Sequence[str] | None = None,
    wanted_bands: Sequence[str] | None = None,
    nodata: float | None = None,
    faults: Faults | None = None,
) -> dict[str, RasterSource]:
    """Scenes of the patterns by name, without labels."""
    faults = faults or Faults()
    opened = {}
    for name, files in find_files(scenes, bands=bands, wanted_bands=wanted_bands).items():
        with faults.of(name, first_file(files)):
            opened[name] = open_raster(files, bands=bands, wanted_bands=wanted_bands, nodata=nodata)
    return opened


def find_files(
    scenes: str | Sequence[str],
    *,
    bands: Sequence[str] | None = None,
    wanted_bands: Sequence[str] | None = None,
) -> dict[str, Files]:
    """Files of each scene by the scene's name, in the patterns' order.

    A scene's name is what stands for `{scene}`, else the file's stem without its band, else
    (where the stem is only the band) the folder's name. Raises `GeotuneError` for a pattern that
    finds nothing and for two scenes of one name.
    """
    found: dict[str, Files] = {}
    for pattern in [scenes] if isinstance(scenes, str) else scenes:
        matches = _matches(pattern, [*(wanted_bands or ()), *(bands or ())])
        if not matches:
            kind = "no file matches" if "*" in pattern or "{" in pattern else "there is no file"
            raise GeotuneError(f"{pattern}: {kind} (looked from {Path.cwd()}); mend data.scenes")
        for name, files in _group(pattern, matches).items():
            if name in found and found[name] != files:
                raise GeotuneError(
                    f"{first_file(found[name])} and {first_file(files)}: two scenes are called "
                    f"{name}; put {{scene}} in data.scenes where their paths differ"
                )
            found[name] = files
    return found


def _matches(pattern: str, bands: Sequence[str]) -> list[Match]:
    known = find(pattern, bands)
    if "{band}" not in pattern or not bands:
        return known
    # a band without any file must show which ones there are
    present = {match.names["band"] for match in known}
    return known if present >= set(bands) else find(pattern)


def _group(pattern: str, matches: Sequence[Match]) -> dict[str, Files]:
    """Files by scene."""
    if "{band}" not in pattern:
        scenes: dict[str, Files] = {}
        for match in matches:
            if "*" in pattern and match.path.suffix.lower() not in RASTER_SUFFIXES:
                continue  # side files: x.tif.aux.xml, x.geojson
            name = match.names.get("scene", match.path.stem)
            if name in scenes:
                raise GeotuneError(
                    f"{first_file(scenes[name])} and {match.path}: two scenes are called {name}; "
                    "put {scene} in data.scenes where their paths differ, and only there"
                )
            scenes[name] = match.path
        return scenes
    by_path: dict[str, dict[str, Path]] = {}
    for match in matches:
        by_path.setdefault(match.without_band, {})[match.names["band"]] = match.path
    grouped: dict[str, Files] = {}
    for files in by_path.values():
        first = next(match for match in matches if match.path == next(iter(files.values())))
        name = first.names.get("scene") or _name_of(first)
        if name in grouped:
            raise GeotuneError(
                f"{first_file(grouped[name])} and {first.path}: two scenes are called {name}; "
                "put {scene} in data.scenes where their paths differ"
            )
        grouped[name] = files
    return grouped


def _name_of(match: Match) -> str:
    rest = Path(match.without_band)
    if match.path.name == rest.name:  # the band stands in a folder's name
        return match.path.stem
    stem = rest.name.removesuffix(match.path.suffix)
    return stem.strip("_-. ") or match.path.absolute().parent.name


def first_file(files: Files) -> Path:
    """The file, or the first of the files."""
    return files if isinstance(files, Path) else next(iter(files.values()))


def refuse_missing(
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
    found = fill(labels, {"stem": name, "scene": name})
    if not found:
        return Path(labels.replace("{stem}", name).replace("{scene}", name))
    if len(found) > 1:
        raise GeotuneError(
            f"{labels}: matches more than one file for scene {name} "
            f"({found[0]}, {found[1]}); make data.labels narrower"
        )
    return found[0]


def _without_labels(found: dict[str, Files], label_files: dict[str, Path]) -> dict[str, Files]:
    """The scenes without those that are the label of another."""
    owner = {path.absolute(): name for name, path in label_files.items() if path.is_file()}
    return {
        name: files
        for name, files in found.items()
        if not isinstance(files, Path) or owner.get(files.absolute(), name) == name
    }


def same_bands(scenes: Sequence[Scene], faults: Faults) -> list[Scene]:
    """The scenes that have the bands, and the names for them, that most have.

    Raises `GeotuneError` for the others, unless `faults` keep it.
    """
    if not scenes:
        return []
    usual, _ = Counter(scene.raster.bands for scene in scenes).most_common(1)[0]
    first = next(scene.raster for scene in scenes if scene.raster.bands == usual)
    kept = []
    for scene in scenes:
        with faults.of(scene.name, scene.raster.path):
            if scene.raster.bands != usual:
                raise GeotuneError(
                    f"{first.path} has the bands {', '.join(usual)}, but {scene.raster.path} "
                    f"has {', '.join(scene.raster.bands)}; say which to use with backbone.bands"
                )
            kept.append(scene)
    return kept


def require_overlap(scenes: Sequence[Scene], faults: Faults) -> None:
    """Raise `GeotuneError` where no label lies in any scene, unless `faults` keep it."""
    held = [scene for scene in scenes if scene.labels.overlaps is not None]
    if held and not any(scene.labels.overlaps for scene in held):
        first = held[0]
        with faults.of(None, first.labels.path):
            raise GeotuneError(
                f"{first.labels.path}: none of its labels lies in its scene {first.raster.path}"
                + (f", nor any of the other {len(held) - 1} files' in theirs" if held[1:] else "")
                + "; look whether the coordinates are in the CRS that the file states"
            )
