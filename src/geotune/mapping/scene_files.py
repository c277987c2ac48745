"""The files of scenes as plain values of a plan, and back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from geotune.data.raster.io import disk_path, open_dataset
from geotune.data.raster.open_raster import ByDate, ByModality, Files
from geotune.data.scenes.entry import SceneEntry
from geotune.errors import GeotuneError


def as_values(entry: SceneEntry, mask: Path | None) -> dict[str, Any]:
    """A scene as plain values, with the size and time of each of its files and of its `mask`.

    Paths are absolute, as workers may run in another folder.
    """
    paths = [*_paths(entry.files), *([] if mask is None else [_absolute(mask)])]
    inputs = (source for path in paths for source in _with_sources(disk_path(path)))
    return {
        "files": _files(entry.files),
        "acquired": None if entry.acquired is None else entry.acquired.isoformat(),
        "fields": dict(entry.fields),
        "inputs": [_state(path) for path in dict.fromkeys(inputs)],
    }


def from_values(values: Mapping[str, Any]) -> SceneEntry:
    """The scene that `as_values` describes."""
    day = values["acquired"]
    return SceneEntry(
        _opened(values["files"]),
        acquired=None if day is None else date.fromisoformat(day),
        fields=values["fields"],
    )


def changed_input(values: Mapping[str, Any]) -> str | None:
    """The first file of a scene whose size or time is no longer that of the plan."""
    return next(
        (path for path, *_ in values["inputs"] if _state(path) not in values["inputs"]), None
    )


def _files(files: Files) -> Any:
    if isinstance(files, Path):
        return str(_absolute(files))
    if isinstance(files, ByDate):
        return {"dates": {day.isoformat(): _files(each) for day, each in files.items()}}
    key = "modalities" if isinstance(files, ByModality) else "bands"
    return {key: {name: _files(each) for name, each in files.items()}}


def _opened(values: Any) -> Any:
    if isinstance(values, str):
        return Path(values)
    [(key, each)] = values.items()
    if key == "dates":
        return ByDate({date.fromisoformat(day): _opened(inner) for day, inner in each.items()})
    inner = {name: _opened(inner) for name, inner in each.items()}
    return ByModality(inner) if key == "modalities" else inner


def _paths(files: Files) -> Iterator[Path]:
    if isinstance(files, Path):
        yield _absolute(files)
    else:
        for each in files.values():
            yield from _paths(each)


def _with_sources(path: Path) -> Iterator[Path]:
    """A file, and those that it refers to if it is a VRT."""
    yield path
    if path.suffix.lower() == ".vrt":
        try:
            named = open_dataset(path).files
        except GeotuneError:  # it is reported where the scene is opened
            return
        # programs that look at a raster write statistics beside it
        others = (Path(name) for name in named if not name.endswith(".aux.xml"))
        yield from (source for each in others if each != path for source in _with_sources(each))


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _state(path: Path | str) -> list[Any]:
    """Path, size and modification time in ns; without the change time, which copies lack."""
    try:
        state = os.stat(path)
    except OSError:
        return [str(path), None, None]
    return [str(path), state.st_size, state.st_mtime_ns]
