"""Which part, and which region, each image of a published split is in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from geotune.config.split_options import PublishedSplitOptions
from geotune.data.published.missing import missing_files_error
from geotune.data.scenes.find import RASTER_SUFFIXES
from geotune.data.scenes.scene import Scene
from geotune.data.splits.base import Splits
from geotune.datasets.base import (
    SPLIT_NAMES,
    DatasetInfo,
    FolderSplit,
    ListFileSplit,
    NamedSplit,
    PackagedSplit,
)
from geotune.errors import GeotuneError


class SplitAssignment(NamedTuple):
    """Where an image belongs."""

    split: str
    region: str = ""


def published_assignments(
    about: DatasetInfo, root: Path, name: str | None
) -> dict[str, SplitAssignment] | FolderSplit:
    """The place of each image of a published split by the image's name, or where to read it.

    `name` is one of `about.divisions`, by default the first. Raises `GeotuneError` where there is
    none of this name, and for lists that are missing or name an image twice.
    """
    published = list(about.splits)
    if not published:
        raise GeotuneError(
            f"data.split: {about.name} has no published split; set one such as "
            "{kind: random, val: 0.2, test: 0.2}",
            code="split-name-unknown",
            key="data.split",
        )
    chosen = published[0] if name is None else name
    if chosen not in published:
        raise GeotuneError(
            f"data.split.name: {about.name} has no split {chosen!r}; it has {', '.join(published)}",
            code="split-name-unknown",
            key="data.split.name",
        )
    assignment = about.splits[chosen]
    if isinstance(assignment, FolderSplit):
        return assignment
    if isinstance(assignment, PackagedSplit):
        return read_packaged_list(assignment)
    if isinstance(assignment, NamedSplit):
        return {
            name: SplitAssignment(part)
            for part, names in assignment.names.items()
            for name in names
        }
    return _lists(about, root, assignment)


def split_published(
    scenes: Sequence[Scene], options: PublishedSplitOptions, *, failed: Sequence[str] = ()
) -> Splits:
    """The splits that were assigned when the scenes were opened; groups are their regions."""
    del options, failed  # already applied when the scenes were opened
    return {part: [scene for scene in scenes if scene.split == part] for part in SPLIT_NAMES}


def read_packaged_list(assignment: PackagedSplit) -> dict[str, SplitAssignment]:
    """The assignments in a list that geotune contains, by image name."""
    text = files("geotune.datasets").joinpath("splits", assignment.file).read_text(encoding="utf-8")
    found: dict[str, SplitAssignment] = {}
    for line in text.splitlines():
        place, start, *ends = line.split()
        part, _, region = place.partition("/")
        found |= {start + end: SplitAssignment(part, region) for end in ends}
    return found


def _lists(about: DatasetInfo, root: Path, assignment: ListFileSplit) -> dict[str, SplitAssignment]:
    gone = [
        file for file in dict.fromkeys(assignment.files.values()) if not (root / file).is_file()
    ]
    if gone:
        raise missing_files_error(about, root, f"missing list {', '.join(gone)}", assignment.source)
    found: dict[str, SplitAssignment] = {}
    for part, file in assignment.files.items():
        names = (
            _keyed(root / file, assignment.keys[part]) if assignment.keys else _lines(root / file)
        )
        for name in names:
            if name in found:
                raise GeotuneError(
                    f"{root / file}: {name} is in {found[name].split} and in {part}; download the "
                    "lists again",
                    code="scene-duplicate",
                    file=root / file,
                )
            found[name] = SplitAssignment(part)
    return found


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise GeotuneError(
            f"{path}: cannot read a list of names ({error}); download it again",
            code="file-unreadable",
            file=path,
        ) from error
    return [_without_suffix(line) for line in lines]


def _without_suffix(name: str) -> str:
    path = Path(name)
    return path.stem if path.suffix.lower() in RASTER_SUFFIXES else name


def _keyed(path: Path, key: str) -> list[str]:
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GeotuneError(
            f"{path}: invalid or truncated JSON ({error}); download it again",
            code="file-unreadable",
            file=path,
        ) from error
    names = values.get(key) if isinstance(values, Mapping) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise GeotuneError(
            f"{path}: no list of names {key!r}; download it again",
            code="file-unreadable",
            file=path,
        )
    return names
