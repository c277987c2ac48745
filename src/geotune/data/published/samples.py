"""Finding the images of a named data set, with what their paths say."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from geotune.data.published.missing import missing_files_error
from geotune.data.published.published_split import SplitAssignment, published_assignments
from geotune.data.raster.io import disk_path, hdf5_layers
from geotune.data.scenes.patterns import match_files, parse_fields
from geotune.datasets.base import DatasetInfo, FolderSplit
from geotune.errors import GeotuneError

Files = Path | dict[str, Path]
"""An image's file, or the file of each band."""

Fields = dict[str, str]


@dataclass(frozen=True)
class PublishedImage:
    """An image of a named data set.

    Attributes:
        name: unlike any other's.
        files: the file, or the file of each band.
        fields: values of the fields of the path patterns.
        part: train, val or test; None where no published split is asked for.
        region: what metrics are shown by, by default the name.
    """

    name: str
    files: Files
    fields: Mapping[str, str]
    split: str | None
    region: str


def find_images(
    about: DatasetInfo,
    root: Path,
    *,
    bands: Sequence[str],
    published: bool = True,
    split: str | None = None,
) -> list[PublishedImage]:
    """Images under `root`, sorted by name.

    Args:
        about: the data set.
        root: where it was unpacked.
        bands: that are wanted, where each has its file.
        published: only images of the published split `split`, all of which must be there.
        split: one of `about.divisions`, by default the first.

    Raises `GeotuneError` that says what is missing, where to get it and how it has to lie.
    """
    if not root.is_dir():
        raise missing_files_error(about, root, "folder not found")
    assignments = published_assignments(about, root, split) if published else _labelled(about)
    named = assignments if isinstance(assignments, dict) else {}
    found = _by_name(about, root, bands, named) if _direct(about, named) else {}
    if not found:
        found = _every(about, root, bands)
    if not found:
        raise missing_files_error(about, root, f"contains no image of {about.name}")
    missing = [name for name in named if name not in found]
    if missing:
        raise missing_files_error(
            about,
            root,
            f"{len(missing)} of {len(named)} images of the split are missing, such as "
            f"{', '.join(missing[:3])}",
        )
    samples = []
    for name, (files, fields) in sorted(found.items()):
        place = _place(assignments, name, fields)
        if place is None and (published or isinstance(assignments, FolderSplit)):
            continue
        region = (place.region if place else "") or about.region.format(**fields) or name
        part = place.split if published and place else None
        samples.append(PublishedImage(name, files, fields, part, region))
    if not samples:
        raise missing_files_error(about, root, f"contains no image of the splits of {about.name}")
    return samples


def label_file(
    about: DatasetInfo, root: Path, sample: PublishedImage, *, oriented: bool = False
) -> Path:
    """The label file of an image. Raises `GeotuneError` where there is none."""
    patterns = (oriented and about.oriented_labels) or about.labels
    files = [root / p.format(**sample.fields) for p in patterns if _names(p) <= set(sample.fields)]
    for file in files:
        if disk_path(file).is_file():
            return file
    raise missing_files_error(
        about, root, f"{sample.name} has no label file {files[0].relative_to(root)}"
    )


def _labelled(about: DatasetInfo) -> dict[str, SplitAssignment] | FolderSplit:
    """The folders of the parts, where there are others, whose labels the authors keep."""
    return next((d for d in about.splits.values() if isinstance(d, FolderSplit)), {})


def _place(
    assignments: dict[str, SplitAssignment] | FolderSplit, name: str, fields: Mapping[str, str]
) -> SplitAssignment | None:
    if isinstance(assignments, dict):
        return assignments.get(name)
    part = assignments.splits.get(fields[assignments.field])
    return None if part is None else SplitAssignment(part)


def _names(pattern: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", pattern))


def _direct(about: DatasetInfo, named: Iterable[str]) -> bool:
    """Whether the names of images say their paths, so that no folder has to be searched."""
    known = _names(about.image_name) | {"band"}
    return bool(named) and all(_names(pattern) <= known for pattern in about.images)


Images = dict[str, tuple[Files, Fields]]


def _by_name(about: DatasetInfo, root: Path, bands: Sequence[str], names: Iterable[str]) -> Images:
    """The images whose names say their paths; of two places that which is described first."""
    found: Images = {}
    known = sorted(_names(about.image_name))
    for name in names:
        fields = parse_fields(about.image_name, name, known)
        if fields is None:
            continue
        for pattern in about.images:
            files = _there(about, root, pattern, fields, bands)
            if files is not None:
                found[name] = files, fields
                break
    return found


def _there(
    about: DatasetInfo, root: Path, pattern: str, fields: Fields, bands: Sequence[str]
) -> Files | None:
    """The files of one image, None where one is not there."""
    if "{band}" in pattern:
        files = {band: root / pattern.format(**fields, band=band) for band in bands}
        return files if all(file.is_file() for file in files.values()) else None
    path = root / pattern.format(**fields)
    return _layers(about, path, bands) if path.is_file() else None


def _every(about: DatasetInfo, root: Path, bands: Sequence[str]) -> Images:
    """All images; of two places the one that is described first."""
    found: Images = {}
    for pattern in about.images:
        here: Images = {}
        fields = sorted(_names(pattern))
        for match in match_files(f"{glob.escape(str(root))}/{pattern}", bands, fields):
            own = {key: value for key, value in match.fields.items() if key != "band"}
            name = about.image_name.format(**own)
            if "band" in match.fields:
                files, _ = here.setdefault(name, ({}, own))
                assert isinstance(files, dict)
                files[match.fields["band"]] = match.path
                continue
            if name in here:
                raise GeotuneError(
                    f"{match.path}: a second image is named {name}; remove one",
                    code="scene-duplicate",
                    file=match.path,
                )
            here[name] = _layers(about, match.path, bands), own
        found = here | found
    return found


def _layers(about: DatasetInfo, path: Path, bands: Sequence[str]) -> Files:
    """The bands in a file that holds each as a layer, else the file itself."""
    if not about.layers:
        return path
    there = hdf5_layers(path)
    found: dict[str, Path] = {}
    for band in bands:
        start = about.layers[band]
        own = [name for name in there if name == start or name.startswith(f"{start}_")]
        if len(own) != 1:
            raise GeotuneError(
                f"{path}: has {len(own) or 'no'} layers {start} for band {band}; expected one "
                f"among {', '.join(there) or 'none'}",
                code="band-missing",
                file=path,
            )
        found[band] = path / own[0]
    return found
