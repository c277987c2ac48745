"""Finding the image files of scenes by path patterns."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

from geotune.data.raster.open_raster import ByDate, ByModality, Files
from geotune.data.raster.tags import find_date
from geotune.data.scenes.patterns import (
    FIELDS,
    Match,
    explain_no_match,
    files_in_other_case,
    match_files,
)
from geotune.data.scenes.sentinel2 import is_safe, safe_bands
from geotune.errors import GeotuneError
from geotune.utils.remote import check_remote
from geotune.utils.text import nfc

Patterns = str | Sequence[str] | Mapping[str, str]
"""Patterns of the images of scenes; by modality if there are several."""

Names = Sequence[str] | Mapping[str, Sequence[str]]
"""Names of a file's bands in file order; by modality if there are several."""

RASTER_SUFFIXES = (
    ".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp",
    ".gif",
)  # fmt: skip


class FoundScene(NamedTuple):
    """The files of a scene.

    Attributes:
        files: of its image.
        fields: the text of the pattern's own fields, such as `{tile}`, and the `stem` of its file.
    """

    files: Files
    fields: Mapping[str, str]


def find_files(
    scenes: Patterns,
    *,
    bands: Names | None = None,
    wanted_bands: Sequence[str] | None = None,
) -> dict[str, Files]:
    """The files of each scene that `find_scenes` finds."""
    found = find_scenes(scenes, bands=bands, wanted_bands=wanted_bands)
    return {name: scene.files for name, scene in found.items()}


def find_scenes(
    scenes: Patterns,
    *,
    bands: Names | None = None,
    wanted_bands: Sequence[str] | None = None,
) -> dict[str, FoundScene]:
    """Find the files of each scene, by the scene's name, in the order of the patterns.

    The name is the text of `{scene}`; else that of the pattern's own fields, joined by `_`, such as
    `{tile}` and `{name}`, followed by the file's stem if that is only described by `*`; else the
    file's stem without band and date; else, if nothing is left of the stem, the folder's name.
    Raises `GeotuneError` for a pattern without a match and for two scenes with the same name.
    """
    if isinstance(scenes, Mapping):
        return _by_modality(scenes, bands, wanted_bands)
    if isinstance(bands, Mapping):
        bands = [band for names in bands.values() for band in names]
    found: dict[str, FoundScene] = {}
    for pattern in map(readable_path, [scenes] if isinstance(scenes, str) else scenes):
        matches = _matches(pattern, [*(wanted_bands or ()), *(bands or ())])
        if not matches:
            raise GeotuneError(
                f"{pattern}: {explain_no_match(pattern)} (in {Path.cwd()}); check data.scenes",
                code="scenes-missing",
                key="data.scenes",
            )
        grouped = _group(pattern, matches)
        if not grouped or any(
            first_file(s.files).suffix.lower() == ".zip" for s in grouped.values()
        ):
            raise _no_raster(pattern, matches[0].path)
        for name, scene in grouped.items():
            if name in found and found[name].files != scene.files:
                raise _duplicate(name, found[name].files, scene.files)
            found[name] = scene
    return found


def images_in_other_case(patterns: Sequence[str]) -> list[Path]:
    """Images that match no pattern, and one but for upper and lower case: a.TIF and `*.tif`."""
    others = {path for pattern in patterns for path in files_in_other_case(readable_path(pattern))}
    found = {match.path for pattern in patterns for match in match_files(readable_path(pattern))}
    return sorted(path for path in others - found if is_image(path))


def readable_path(path: str) -> str:
    """The path without `file://`. Raises `GeotuneError` for one that may not be read."""
    path = path.removeprefix("file://")
    if "://" in path:
        check_remote(path)
    return path


def first_file(files: Files) -> Path:
    """The file, or the first of several."""
    return files if isinstance(files, Path) else first_file(next(iter(files.values())))


def image_path(files: Files) -> Path:
    """The file, the first of several, or the folder of a Sentinel-2 product."""
    first = first_file(files)
    return next((path for path in first.parents if is_safe(path)), first)


def _by_modality(
    scenes: Mapping[str, str], bands: Names | None, wanted_bands: Sequence[str] | None
) -> dict[str, FoundScene]:
    """The files of each scene by modality. Raises `GeotuneError` for a missing modality."""
    named = bands if isinstance(bands, Mapping) else {}
    by_modality = {
        modality: find_scenes(
            pattern,
            bands=named.get(modality),
            wanted_bands=[band.rpartition(":")[2] for band in wanted_bands or ()],
        )
        for modality, pattern in scenes.items()
    }
    all_names = dict.fromkeys(name for found in by_modality.values() for name in found)
    for modality, found in by_modality.items():
        missing = [name for name in all_names if name not in found]
        if missing:
            raise GeotuneError(
                f"{scenes[modality]}: no {modality} file for scene {', '.join(missing[:5])}, "
                "which another modality has; a scene needs the same name in all: mark it with "
                "{scene} in data.scenes",
                code="scenes-missing",
                key="data.scenes",
            )
    return {
        name: FoundScene(
            ByModality({modality: found[name].files for modality, found in by_modality.items()}),  # type: ignore[misc]  # no modality has modalities
            next(iter(by_modality.values()))[name].fields,
        )
        for name in all_names
    }


def _matches(pattern: str, bands: Sequence[str]) -> list[Match]:
    known = match_files(pattern, bands)
    if "{band}" not in pattern or not bands:
        return known
    # if a band has no file, the message lists those that have one
    present = {match.fields["band"] for match in known}
    return known if present >= set(bands) else match_files(pattern)


def _group(pattern: str, matches: Sequence[Match]) -> dict[str, FoundScene]:
    """Group matches by scene."""
    scenes: dict[str, FoundScene] = {}
    by_path: dict[str, list[Match]] = {}
    file_name = pattern.rpartition("/")[2]
    in_file_name = re.search(r"\{(?!(?:band|date)\})\w+\}", file_name) or not glob.has_magic(
        file_name
    )
    several_files = "{band}" in pattern or "{date}" in pattern
    for match in matches:
        if not several_files and "*" in pattern and not is_image(match.path):
            continue  # side files: x.tif.aux.xml, x.geojson
        by_path.setdefault(match.scene_path, []).append(match)
    for members in by_path.values():
        first = members[0]
        if several_files:
            stem = nfc(_name_of(first))
            files = _by_date(members) if "{date}" in pattern else _by_band(members)
        else:
            stem, files = nfc(first.path.stem), files_at(first.path)
        fields = {name: text for name, text in first.fields.items() if name not in FIELDS}
        name = first.fields.get("scene") or "_".join(fields.values()) or stem
        if fields and "scene" not in first.fields and not in_file_name:
            name = f"{name}_{stem}"
        if name in scenes:
            raise _duplicate(name, scenes[name].files, files)
        scenes[name] = FoundScene(files, {**fields, "stem": stem} if fields else {})
    return scenes


def is_image(path: Path) -> bool:
    """Whether a path is that of a raster file, or of the folder of a Sentinel-2 product."""
    return path.suffix.lower() in RASTER_SUFFIXES or is_safe(path)


def _no_raster(pattern: str, path: Path) -> GeotuneError:
    advice = "unpack the archive" if path.suffix.lower() == ".zip" else "check data.scenes"
    return GeotuneError(
        f"{pattern}: matches {path}, which is no raster; expected one of "
        f"{', '.join(RASTER_SUFFIXES)} or a folder .SAFE; {advice}",
        code="scenes-missing",
        key="data.scenes",
        file=path,
    )


def _duplicate(name: str, one: Files, other: Files) -> GeotuneError:
    return GeotuneError(
        f"{first_file(one)} and {first_file(other)}: two scenes are named {name}; mark the parts "
        "of the path that differ with fields of any name in data.scenes and data.labels, such as "
        "{tile}/images/{name}.tif",
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
    return files_at(matches[0].path)


def files_at(path: Path) -> Path | dict[str, Path]:
    """The file, or the files of the bands of a Sentinel-2 product."""
    return safe_bands(path) if is_safe(path) else path


def _name_of(match: Match) -> str:
    rest = Path(match.scene_path)
    if match.path.name == rest.name:  # {band} is in a folder's name
        return match.path.stem
    stem = rest.name.removesuffix(match.path.suffix)
    return stem.strip("_-. ") or match.path.absolute().parent.name
