"""Finding the image files of scenes by path patterns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from geotune.data.raster.open_raster import ByDate, ByModality, Files
from geotune.data.raster.tags import find_date
from geotune.data.scenes.patterns import Match, match_files
from geotune.errors import GeotuneError

Patterns = str | Sequence[str] | Mapping[str, str]
"""Patterns of the images of scenes; by modality if there are several."""

Names = Sequence[str] | Mapping[str, Sequence[str]]
"""Names of a file's bands in file order; by modality if there are several."""

RASTER_SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg", ".bmp")


def find_files(
    scenes: Patterns,
    *,
    bands: Names | None = None,
    wanted_bands: Sequence[str] | None = None,
) -> dict[str, Files]:
    """Find the files of each scene, by the scene's name, in the order of the patterns.

    The name is the text of `{scene}`; else the file's stem without band and date; else, if nothing
    is left of the stem, the folder's name. Raises `GeotuneError` for a pattern without a match and
    for two scenes with the same name.
    """
    if isinstance(scenes, Mapping):
        return _by_modality(scenes, bands, wanted_bands)
    if isinstance(bands, Mapping):
        bands = [band for names in bands.values() for band in names]
    scene_files: dict[str, Files] = {}
    for pattern in map(local_path, [scenes] if isinstance(scenes, str) else scenes):
        matches = _matches(pattern, [*(wanted_bands or ()), *(bands or ())])
        if not matches:
            reason = "no file matches" if "*" in pattern or "{" in pattern else "file not found"
            raise GeotuneError(
                f"{pattern}: {reason} (in {Path.cwd()}); check data.scenes",
                code="scenes-missing",
                key="data.scenes",
            )
        for name, files in _group(pattern, matches).items():
            if name in scene_files and scene_files[name] != files:
                raise _duplicate(name, scene_files[name], files)
            scene_files[name] = files
    return scene_files


def local_path(path: str) -> str:
    """The path without `file://`. Raises `GeotuneError` for one on a server."""
    path = path.removeprefix("file://")
    if "://" in path:
        raise GeotuneError(
            f"{path}: not a local path; download the file and give its path", code="file-remote"
        )
    return path


def first_file(files: Files) -> Path:
    """The file, or the first of several."""
    return files if isinstance(files, Path) else first_file(next(iter(files.values())))


def _by_modality(
    scenes: Mapping[str, str], bands: Names | None, wanted_bands: Sequence[str] | None
) -> dict[str, Files]:
    """The files of each scene by modality. Raises `GeotuneError` for a missing modality."""
    named = bands if isinstance(bands, Mapping) else {}
    by_modality = {
        modality: find_files(
            pattern,
            bands=named.get(modality),
            wanted_bands=[band.rpartition(":")[2] for band in wanted_bands or ()],
        )
        for modality, pattern in scenes.items()
    }
    all_names = dict.fromkeys(name for files in by_modality.values() for name in files)
    for modality, files in by_modality.items():
        missing = [name for name in all_names if name not in files]
        if missing:
            raise GeotuneError(
                f"{scenes[modality]}: no {modality} file for scene {', '.join(missing[:5])}, "
                "which another modality has; a scene needs the same name in all: mark it with "
                "{scene} in data.scenes",
                code="scenes-missing",
                key="data.scenes",
            )
    return {
        name: ByModality({modality: files[name] for modality, files in by_modality.items()})  # type: ignore[misc]  # no modality has modalities
        for name in all_names
    }


def _matches(pattern: str, bands: Sequence[str]) -> list[Match]:
    known = match_files(pattern, bands)
    if "{band}" not in pattern or not bands:
        return known
    # if a band has no file, the message lists those that have one
    present = {match.fields["band"] for match in known}
    return known if present >= set(bands) else match_files(pattern)


def _group(pattern: str, matches: Sequence[Match]) -> dict[str, Files]:
    """Group matches by scene."""
    scenes: dict[str, Files] = {}
    by_path: dict[str, list[Match]] = {}
    several_files = "{band}" in pattern or "{date}" in pattern
    for match in matches:
        if not several_files and "*" in pattern and not _is_raster(match.path):
            continue  # side files: x.tif.aux.xml, x.geojson
        by_path.setdefault(match.scene_path, []).append(match)
    for members in by_path.values():
        first = members[0]
        if several_files:
            name = first.fields.get("scene") or _name_of(first)
            files = _by_date(members) if "{date}" in pattern else _by_band(members)
        else:
            name, files = first.fields.get("scene", first.path.stem), first.path
        if name in scenes:
            raise _duplicate(name, scenes[name], files)
        scenes[name] = files
    return scenes


def _is_raster(path: Path) -> bool:
    return path.suffix.lower() in RASTER_SUFFIXES


def _duplicate(name: str, one: Files, other: Files) -> GeotuneError:
    return GeotuneError(
        f"{first_file(one)} and {first_file(other)}: two scenes are named {name}; mark the part "
        "of the path that differs, and only that, with {scene} in data.scenes",
        code="scene-duplicate",
        key="data.scenes",
        file=first_file(other),
    )


def _by_date(matches: Sequence[Match]) -> ByDate:
    days: dict[date, list[Match]] = {}
    for match in matches:
        day = find_date(match.fields["date"])
        if day is None:
            raise GeotuneError(
                f"{match.path}: {match.fields['date']!r} at {{date}} is not a date; "
                "expected one such as 20181013, 2018-10-13 or 2018286",
                code="pattern-invalid",
                key="data.scenes",
                file=match.path,
            )
        days.setdefault(day, []).append(match)
    return ByDate({day: _by_band(members) for day, members in sorted(days.items())})


def _by_band(matches: Sequence[Match]) -> Path | dict[str, Path]:
    """The file of each band, or the one with all of them."""
    if "band" in matches[0].fields:
        return {match.fields["band"]: match.path for match in matches}
    if len(matches) > 1:
        raise GeotuneError(
            f"{matches[0].path} and {matches[1].path}: same scene and date; make data.scenes "
            "narrower, or mark the band with {band}",
            code="scene-duplicate",
            key="data.scenes",
            file=matches[1].path,
        )
    return matches[0].path


def _name_of(match: Match) -> str:
    rest = Path(match.scene_path)
    if match.path.name == rest.name:  # {band} is in a folder's name
        return match.path.stem
    stem = rest.name.removesuffix(match.path.suffix)
    return stem.strip("_-. ") or match.path.absolute().parent.name
