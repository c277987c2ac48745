"""How published data sets are described: files, bands, classes and published splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

SPLIT_NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class FolderSplit:
    """The value of a field of the image's path determines the split.

    Attributes:
        field: field of the path patterns.
        splits: field value to split name.
    """

    field: str
    splits: Mapping[str, str]


@dataclass(frozen=True)
class ListFileSplit:
    """Files that come with the data list the images of each split.

    Attributes:
        files: split name to path, relative to the root: text with a name per line or, with `keys`,
            a JSON file with lists of names.
        keys: split name to the list's key in the JSON.
        source: download page of the lists, if they are not distributed with the images.
    """

    files: Mapping[str, str]
    keys: Mapping[str, str] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class NamedSplit:
    """Split name to image names."""

    names: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class PackagedSplit:
    """A list that is part of the geotune package, in `datasets/splits/`.

    Each line has the split (or `split/region`), a common prefix of image names and their suffixes:
    `train Ghana_ 103272 24858`.
    """

    file: str


PublishedSplit = FolderSplit | ListFileSplit | NamedSplit | PackagedSplit


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """Description of a published data set.

    Path patterns are relative to the root; `{field}` matches any text without `/`, the same text
    wherever the field occurs.

    Attributes:
        name: the value of `data.name`.
        title: full name and content.
        task: `segment`, `detect` or `classify`.
        classes: names, in the authors' order.
        bands: names, in file order.
        window: default side of training windows in pixels; the image size for chips.
        licence: of images and labels.
        paper: URL.
        source: download page.
        images: patterns of image files; several if there are several layouts or folders. With
            `{band}` each band is a file; with `layers` each band is a layer of a file.
        image_name: name of an image, from the fields of its path.
        labels: patterns of the label file, from the fields of the image's path; the first existing
            file is used. Empty for `classify`, where the field `label` is the class.
        oriented_labels: label files with oriented boxes, if those are separate files.
        oriented: whether oriented boxes are available.
        format: annotation format, as in `data.format`.
        region: region of an image, from the fields of its path; metrics are reported by region.
        class_values: mask values of each class, by default its index; for colour masks 0xRRGGBB.
        ignore_values: mask values that are ignored.
        layers: of HDF5 files, band name to the prefix of its layer's name.
        grid_band: for bands in separate files, the band that defines the pixel grid.
        grey: single-band images are greyscale; their band is repeated for each of `bands`.
        dates: acquisition date by region, if neither the files nor their names state it.
        nodata: nodata value, if the files do not declare it.
        georeferenced: false: the coordinates in the files are unusable, and ignored.
        gsd_m: nominal ground sampling distance in metres, for display.
        without_objects: field values of images that contain no object and have no label file.
        splits: published splits by name; the first is the default.
        note: what users should know before using the data set.
    """

    name: str
    title: str
    task: Literal["segment", "detect", "classify"]
    classes: Sequence[str]
    bands: Sequence[str]
    window: int
    licence: str
    paper: str
    source: str
    images: Sequence[str]
    image_name: str
    labels: Sequence[str] = ()
    oriented_labels: Sequence[str] = ()
    oriented: bool = False
    format: str = ""
    region: str = ""
    class_values: Mapping[str, Sequence[int]] = field(default_factory=dict)
    ignore_values: Sequence[int] = ()
    layers: Mapping[str, str] = field(default_factory=dict)
    grid_band: str = ""
    grey: bool = False
    dates: Mapping[str, date] = field(default_factory=dict)
    nodata: float | None = None
    georeferenced: bool = True
    gsd_m: float | None = None
    without_objects: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, PublishedSplit] = field(default_factory=dict)
    note: str = ""


def expected_layout(info: DatasetInfo) -> list[str]:
    """The expected files of a data set relative to its root, a pattern per line."""

    def lines(patterns: Sequence[str], suffix: str) -> list[str]:
        return [f"  {'or ' if i else ''}{pattern}{suffix}" for i, pattern in enumerate(patterns)]

    layout = lines(info.images, "")
    layout += lines(info.labels, "  (labels)")
    layout += lines(info.oriented_labels, "  (labels with oriented boxes)")
    for name, split in info.splits.items():
        if isinstance(split, ListFileSplit):
            files = ", ".join(dict.fromkeys(split.files.values()))
            source = f", from {split.source}" if split.source else ""
            layout.append(f"  {files}  (lists of the split {name}{source})")
    return layout
