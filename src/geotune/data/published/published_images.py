"""Find the images of a published data set by the path patterns of its description."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from geotune.data.published.published_split import (
    ImageSplit,
    missing_files_error,
    read_published_split,
)
from geotune.data.raster.io import disk_path, hdf5_layers
from geotune.data.scenes.patterns import match_files, parse_fields
from geotune.datasets.base import DatasetInfo, FolderSplit
from geotune.errors import GeotuneError

Files = Path | dict[str, Path]
"""The file of an image, or the file of each band."""

Fields = dict[str, str]
Images = dict[str, tuple[Files, Fields]]


@dataclass(frozen=True)
class PublishedImage:
    """An image of a published data set.

    Attributes:
        name: unique in the data set.
        files: its file, or the file of each band.
        fields: values of the fields of the path pattern.
        split: train, val or test; None if the published split is not used.
        region: metrics are reported by region; by default the name.
    """

    name: str
    files: Files
    fields: Mapping[str, str]
    split: str | None
    region: str


def find_images(
    info: DatasetInfo,
    root: Path,
    *,
    bands: Sequence[str],
    published: bool = True,
    split: str | None = None,
) -> list[PublishedImage]:
    """Find the images under `root`, sorted by name.

    Args:
        info: description of the data set.
        root: folder of the extracted files.
        bands: bands to look for, if each is a file or a layer.
        published: find only the images of the published split `split`, and require all of them.
        split: one of `info.splits`, by default the first.

    Raises `GeotuneError` for missing files, with their source and the expected layout.
    """
    if not root.is_dir():
        raise missing_files_error(info, root, "folder not found")
    splits = read_published_split(info, root, split) if published else _folder_split(info)
    names = splits if isinstance(splits, dict) else {}
    found = _find_listed(info, root, bands, names) or _find_all(info, root, bands)
    if not found:
        raise missing_files_error(info, root, f"contains no image of {info.name}")
    missing = [name for name in names if name not in found]
    if missing:
        raise missing_files_error(
            info,
            root,
            f"{len(missing)} of {len(names)} images of the split are missing, such as "
            f"{', '.join(missing[:3])}",
        )
    images = []
    for name, (files, fields) in sorted(found.items()):
        if isinstance(splits, dict):
            image_split = splits.get(name)
        else:
            folder_split = splits.splits.get(fields[splits.field])
            image_split = ImageSplit(folder_split) if folder_split else None
        if image_split is None and (published or isinstance(splits, FolderSplit)):
            continue
        region = (image_split.region if image_split else "") or info.region.format(**fields) or name
        split_name = image_split.split if published and image_split else None
        images.append(PublishedImage(name, files, fields, split_name, region))
    if not images:
        raise missing_files_error(info, root, f"contains no image of the splits of {info.name}")
    return images


def label_file(
    info: DatasetInfo, root: Path, image: PublishedImage, *, oriented: bool = False
) -> Path:
    """The label file of an image. Raises `GeotuneError` if it is missing."""
    patterns = (oriented and info.oriented_labels) or info.labels
    files = [
        root / pattern.format(**image.fields)
        for pattern in patterns
        if _field_names(pattern) <= set(image.fields)
    ]
    for file in files:
        if disk_path(file).is_file():
            return file
    raise missing_files_error(
        info, root, f"{image.name} has no label file {files[0].relative_to(root)}"
    )


def _folder_split(info: DatasetInfo) -> dict[str, ImageSplit] | FolderSplit:
    """The split by folders, if any: other folders hold images whose labels are not published."""
    return next((split for split in info.splits.values() if isinstance(split, FolderSplit)), {})


def _field_names(pattern: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", pattern))


def _find_listed(
    info: DatasetInfo, root: Path, bands: Sequence[str], names: Iterable[str]
) -> Images:
    """Images by their names, if those determine the paths, so that no folder is searched.

    The first pattern with a file is used.
    """
    fields_in_name = _field_names(info.image_name)
    if any(_field_names(pattern) - fields_in_name - {"band"} for pattern in info.images):
        return {}
    images: Images = {}
    for name in names:
        fields = parse_fields(info.image_name, name, sorted(fields_in_name))
        if fields is None:
            continue
        for pattern in info.images:
            files = _existing_files(info, root, pattern, fields, bands)
            if files is not None:
                images[name] = files, fields
                break
    return images


def _existing_files(
    info: DatasetInfo, root: Path, pattern: str, fields: Fields, bands: Sequence[str]
) -> Files | None:
    """The files of an image; None if one is missing."""
    if "{band}" in pattern:
        files = {band: root / pattern.format(**fields, band=band) for band in bands}
        return files if all(file.is_file() for file in files.values()) else None
    path = root / pattern.format(**fields)
    return _band_layers(info, path, bands) if path.is_file() else None


def _find_all(info: DatasetInfo, root: Path, bands: Sequence[str]) -> Images:
    """All images under `root`; of images with the same name, that of the first pattern."""
    images: Images = {}
    for pattern in info.images:
        matched: Images = {}
        field_names = sorted(_field_names(pattern))
        for match in match_files(f"{glob.escape(str(root))}/{pattern}", bands, field_names):
            fields = {key: value for key, value in match.fields.items() if key != "band"}
            name = info.image_name.format(**fields)
            if "band" in match.fields:
                files, _ = matched.setdefault(name, ({}, fields))
                assert isinstance(files, dict)
                files[match.fields["band"]] = match.path
                continue
            if name in matched:
                raise GeotuneError(
                    f"{match.path}: a second image is named {name}; remove one",
                    code="scene-duplicate",
                    file=match.path,
                )
            matched[name] = _band_layers(info, match.path, bands), fields
        images = matched | images
    return images


def _band_layers(info: DatasetInfo, path: Path, bands: Sequence[str]) -> Files:
    """The layer of each band in an HDF5 file; other files as a whole."""
    if not info.layers:
        return path
    layers = hdf5_layers(path)
    files: dict[str, Path] = {}
    for band in bands:
        prefix = info.layers[band]
        matching = [name for name in layers if name == prefix or name.startswith(f"{prefix}_")]
        if len(matching) != 1:
            raise GeotuneError(
                f"{path}: has {len(matching) or 'no'} layers {prefix} for band {band}; expected "
                f"one among {', '.join(layers) or 'none'}",
                code="band-missing",
                file=path,
            )
        files[band] = path / matching[0]
    return files
