"""Finding the files of scenes by path patterns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from geotune.data.raster.open_raster import ByDate, ByModality, Files
from geotune.data.raster.tags import find_date
from geotune.data.scenes.patterns import Match, find
from geotune.errors import GeotuneError

Patterns = str | Sequence[str] | Mapping[str, str]
"""Of the scenes' files; by modality where there are several."""

Names = Sequence[str] | Mapping[str, Sequence[str]]
"""Of a file's bands in file order; by modality where there are several."""

RASTER_SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg", ".bmp")


def find_files(
    scenes: Patterns,
    *,
    bands: Names | None = None,
    wanted_bands: Sequence[str] | None = None,
) -> dict[str, Files]:
    """Files of each scene by the scene's name, in the patterns' order.

    A scene's name is what stands for `{scene}`, else the file's stem without its band, else
    (where the stem is only the band) the folder's name. Raises `GeotuneError` for a pattern that
    finds nothing and for two scenes of one name.
    """
    if isinstance(scenes, Mapping):
        return _by_modality(scenes, bands, wanted_bands)
    if isinstance(bands, Mapping):
        bands = [band for own in bands.values() for band in own]
    found: dict[str, Files] = {}
    for pattern in map(local_path, [scenes] if isinstance(scenes, str) else scenes):
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


def local_path(path: str) -> str:
    """The path, without `file://`. Raises `GeotuneError` for one that lies on a server."""
    path = path.removeprefix("file://")
    if "://" in path:
        raise GeotuneError(f"{path}: is not on this machine; fetch the file and name it")
    return path


def _by_modality(
    scenes: Mapping[str, str], bands: Names | None, wanted_bands: Sequence[str] | None
) -> dict[str, Files]:
    """Files of each scene that every modality has."""
    named = bands if isinstance(bands, Mapping) else {}
    found = {
        modality: find_files(
            pattern,
            bands=named.get(modality),
            wanted_bands=[band.rpartition(":")[2] for band in wanted_bands or ()],
        )
        for modality, pattern in scenes.items()
    }
    every = dict.fromkeys(name for files in found.values() for name in files)
    for modality, files in found.items():
        gone = [name for name in every if name not in files]
        if gone:
            raise GeotuneError(
                f"{scenes[modality]}: finds no file of {modality} for scene {', '.join(gone[:5])}, "
                f"which another modality has; a scene's name has to be the same in all: put "
                "{scene} in data.scenes where it stands"
            )
    return {
        name: ByModality({modality: files[name] for modality, files in found.items()})  # type: ignore[misc]  # no modality has modalities
        for name in every
    }


def _matches(pattern: str, bands: Sequence[str]) -> list[Match]:
    known = find(pattern, bands)
    if "{band}" not in pattern or not bands:
        return known
    # a band without any file must show which ones there are
    present = {match.names["band"] for match in known}
    return known if present >= set(bands) else find(pattern)


def _group(pattern: str, matches: Sequence[Match]) -> dict[str, Files]:
    """Files by scene."""
    if "{band}" not in pattern and "{date}" not in pattern:
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
    by_path: dict[str, list[Match]] = {}
    for match in matches:
        by_path.setdefault(match.shared, []).append(match)
    grouped: dict[str, Files] = {}
    for members in by_path.values():
        first = members[0]
        name = first.names.get("scene") or _name_of(first)
        if name in grouped:
            raise GeotuneError(
                f"{first_file(grouped[name])} and {first.path}: two scenes are called {name}; "
                "put {scene} in data.scenes where their paths differ"
            )
        grouped[name] = _by_date(members) if "{date}" in pattern else _by_band(members)
    return grouped


def _by_date(matches: Sequence[Match]) -> ByDate:
    days: dict[date, list[Match]] = {}
    for match in matches:
        day = find_date(match.names["date"])
        if day is None:
            raise GeotuneError(
                f"{match.path}: {match.names['date']!r} stands for {{date}} and is no date; "
                "expected one such as 20181013, 2018-10-13 or 2018286"
            )
        days.setdefault(day, []).append(match)
    return ByDate({day: _by_band(members) for day, members in sorted(days.items())})


def _by_band(matches: Sequence[Match]) -> Path | dict[str, Path]:
    """The file of each band, or the one with all of them."""
    if "band" in matches[0].names:
        return {match.names["band"]: match.path for match in matches}
    if len(matches) > 1:
        raise GeotuneError(
            f"{matches[0].path} and {matches[1].path}: are of one scene and one date; make "
            "data.scenes narrower, or put {band} where a band's name stands"
        )
    return matches[0].path


def _name_of(match: Match) -> str:
    rest = Path(match.shared)
    if match.path.name == rest.name:  # the band stands in a folder's name
        return match.path.stem
    stem = rest.name.removesuffix(match.path.suffix)
    return stem.strip("_-. ") or match.path.absolute().parent.name


def first_file(files: Files) -> Path:
    """The file, or the first of the files."""
    return files if isinstance(files, Path) else first_file(next(iter(files.values())))
