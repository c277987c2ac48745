"""What is said of a data set that others publish: its files, bands, classes and parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class FolderSplit:
    """The part is what stands for a field of the image's path.

    Attributes:
        field: of the path patterns.
        parts: what stands there, and which part it is.
    """

    field: str
    parts: Mapping[str, str]


@dataclass(frozen=True)
class ListFileSplit:
    """The part is the list that names the image, in files that come with the data.

    Attributes:
        files: by part, paths from the root: text with a name on each line, or, where `keys` are
            given, one JSON with lists of names.
        keys: by part, the list's key in that JSON.
        source: where the lists are to be had, if they do not lie with the images.
    """

    files: Mapping[str, str]
    keys: Mapping[str, str] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class NamedSplit:
    """The part's images by name."""

    parts: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class PackagedSplit:
    """Lists that geotune brings along, in `splits/`.

    A line has the part (or `part/region`, where the list says the region), the beginning of names
    and their ends: `train Ghana_ 103272 24858`.
    """

    file: str


Division = FolderSplit | ListFileSplit | NamedSplit | PackagedSplit


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """A data set that others publish.

    Path patterns start at the root; `{field}` stands for any text without `/`, the same wherever
    the field is named.

    Attributes:
        name: as a recipe has it.
        title: its name as people write it, and what it shows.
        task: what its labels are for: `segment`, `detect` or `classify`.
        classes: names, in the order that the authors give.
        bands: of its images, in file order.
        window: side of a training window in pixels; the image's side where it is a chip.
        licence: of images and labels.
        paper: its address.
        source: where the files are to be had.
        images: patterns of image files; several where the data lies in more than one way or
            place. With `{band}` each band has its file; with `layers` a file holds them all.
        image_name: of an image, made of the fields of its path.
        labels: patterns of the label file, made of the fields of the image's path; the first that
            there is counts. Empty for `classify`: the field `label` names the class.
        oriented_labels: the same of oriented boxes, where they lie elsewhere.
        oriented: whether there are oriented boxes.
        format: of objects, as `data.format` names it.
        region: made of the fields, too: what metrics are shown by.
        values: the values of each class in masks, by default its index; of masks in colours the
            colour as 0xRRGGBB.
        ignored: values of masks that are not counted.
        layers: of HDF5, how the name of a band's layer begins.
        finest: of bands in files of their own the one whose pixels images have.
        grey: images of one band are grey ones, and that band stands for each of `bands`.
        nodata: the value without data, where the files do not say.
        gsd_m: metres a pixel, for people.
        without_objects: what stands for fields of images in which there is no object, which have
            no label file.
        divisions: published splits by name, the first by default.
        note: what a person has to know before using it.
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
    values: Mapping[str, Sequence[int]] = field(default_factory=dict)
    ignored: Sequence[int] = ()
    layers: Mapping[str, str] = field(default_factory=dict)
    finest: str = ""
    grey: bool = False
    nodata: float | None = None
    gsd_m: float | None = None
    without_objects: Mapping[str, str] = field(default_factory=dict)
    divisions: Mapping[str, Division] = field(default_factory=dict)
    note: str = ""


def layout(about: DatasetInfo) -> list[str]:
    """The files of a data set from its root, one pattern a line."""

    def lines(patterns: tuple[str, ...], what: str) -> list[str]:
        return [f"  {'or ' if i else ''}{pattern}{what}" for i, pattern in enumerate(patterns)]

    found = lines(tuple(about.images), "")
    found += lines(tuple(about.labels), "  (labels)")
    found += lines(tuple(about.oriented_labels), "  (labels of oriented boxes)")
    for name, said in about.divisions.items():
        if isinstance(said, ListFileSplit):
            files = ", ".join(dict.fromkeys(said.files.values()))
            where = f", from {said.source}" if said.source else ""
            found.append(f"  {files}  (lists of the split {name}{where})")
    return found
