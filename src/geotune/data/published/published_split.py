"""Published splits: the split and region of each image; the error for missing files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from geotune.config.split_options import PublishedSplitOptions
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
    expected_layout,
)
from geotune.errors import GeotuneError


class ImageSplit(NamedTuple):
    """The split of an image, and its region if the list states it."""

    split: str
    region: str = ""


def split_published(
    scenes: Sequence[Scene], options: PublishedSplitOptions, *, failed: Sequence[str] = ()
) -> Splits:
    """The published split of the scenes."""
    del options, failed  # applied when the scenes were opened
    return {split: [scene for scene in scenes if scene.split == split] for split in SPLIT_NAMES}


def read_published_split(
    info: DatasetInfo, root: Path, name: str | None
) -> dict[str, ImageSplit] | FolderSplit:
    """Read the split of each image by name; a `FolderSplit` depends on the path instead.

    `name` is one of `info.splits`, by default the first. Raises `GeotuneError` for an unknown name,
    and for lists that are missing, damaged or name an image twice.
    """
    if not info.splits:
        raise GeotuneError(
            f"data.split: {info.name} has no published split; set one such as "
            "{kind: random, val: 0.2, test: 0.2}",
            code="split-name-unknown",
            key="data.split",
        )
    name = next(iter(info.splits)) if name is None else name
    if name not in info.splits:
        raise GeotuneError(
            f"data.split.name: {info.name} has no split {name!r}; it has {', '.join(info.splits)}",
            code="split-name-unknown",
            key="data.split.name",
        )
    split = info.splits[name]
    if isinstance(split, FolderSplit):
        return split
    if isinstance(split, PackagedSplit):
        return read_packaged_list(split)
    if isinstance(split, NamedSplit):
        return {image: ImageSplit(key) for key, images in split.names.items() for image in images}
    return _read_list_files(info, root, split)


def read_packaged_list(split: PackagedSplit) -> dict[str, ImageSplit]:
    """Read a list that is part of geotune: the split and region of each image by name."""
    text = files("geotune.datasets").joinpath("splits", split.file).read_text(encoding="utf-8")
    splits: dict[str, ImageSplit] = {}
    for line in text.splitlines():
        target, prefix, *suffixes = line.split()
        name, _, region = target.partition("/")
        splits |= {prefix + suffix: ImageSplit(name, region) for suffix in suffixes}
    return splits


def missing_files_error(
    info: DatasetInfo, root: Path, problem: str, source: str = ""
) -> GeotuneError:
    """The error for missing files: where to download them, and the expected layout."""
    return GeotuneError(
        f"{root}: {problem}; get it from {source or info.source} (licence: {info.licence}) and "
        "extract it there, or check data.root. Expected files:\n"
        + "\n".join(expected_layout(info)),
        code="dataset-files",
        key="data.root",
        file=root,
    )


def _read_list_files(info: DatasetInfo, root: Path, split: ListFileSplit) -> dict[str, ImageSplit]:
    missing = [file for file in dict.fromkeys(split.files.values()) if not (root / file).is_file()]
    if missing:
        raise missing_files_error(info, root, f"missing list {', '.join(missing)}", split.source)
    splits: dict[str, ImageSplit] = {}
    for name, file in split.files.items():
        path = root / file
        for image in _read_json_names(path, split.keys[name]) if split.keys else _read_names(path):
            if image in splits:
                raise GeotuneError(
                    f"{path}: {image} is in {splits[image].split} and in {name}; download the "
                    "lists again",
                    code="scene-duplicate",
                    file=path,
                )
            splits[image] = ImageSplit(name)
    return splits


def _read_names(path: Path) -> list[str]:
    """Names separated by white space, without image suffixes."""
    try:
        names = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise GeotuneError(
            f"{path}: cannot read a list of names ({error}); download it again",
            code="file-unreadable",
            file=path,
        ) from error
    return [Path(n).stem if Path(n).suffix.lower() in RASTER_SUFFIXES else n for n in names]


def _read_json_names(path: Path, key: str) -> list[str]:
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
