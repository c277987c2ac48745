"""How a folder stores images and labels."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from geotune.api.init.pairing import SPLIT_WORDS
from geotune.data.labels.vector_io import is_vector
from geotune.data.raster.open_raster import Files
from geotune.data.scenes.find import RASTER_SUFFIXES
from geotune.data.text_io import read_words
from geotune.errors import GeotuneError
from geotune.utils.atomic import write_atomically
from geotune.utils.paths import files_below
from geotune.utils.text import nfc

PAGES = {
    "scenes": "docs/how-to/inputs.md",
    "objects": "docs/reference/detection-data.md",
    "init": "docs/how-to/init.md",
    "splits": "docs/explanation/splits.md",
}
"""Pages that errors name."""

Labels = Literal["raster", "vector", "objects", "image", "published"]
"""Rasters, vector files, a format of object labels, one label per image, or a known data set."""


PLACE = "place"
"""Column of a written table that names what images of several dates show."""


@dataclass(frozen=True)
class Layout:
    """How images and labels are stored.

    Attributes:
        data: values of `data`: kind, and where the files are.
        images: the first file of each scene.
        labels: label file of each image, or class folder; None for an image without.
        kind: of the labels.
        columns: of the table that lists the images.
        comments: by key.
        parts: folders in the paths that are named as splits.
        files: of images that have a file per band.
        published_split: whether the data set comes with its split.
    """

    data: Mapping[str, object]
    images: Sequence[Path]
    labels: Mapping[Path, Path | None]
    kind: Labels
    columns: Sequence[str] = ()
    comments: Mapping[str, str] = field(default_factory=dict)
    parts: Sequence[str] = ()
    files: Mapping[Path, Files] = field(default_factory=dict)
    published_split: bool = False

    @property
    def label_files(self) -> list[Path]:
        """All label files, without repeats."""
        return list(dict.fromkeys(path for path in self.labels.values() if path is not None))


def label_kind(path: Path) -> Labels:
    """The kind of a label file, by its suffix."""
    if path.suffix.lower() in RASTER_SUFFIXES:
        return "raster"
    return "vector" if is_vector(path) else "objects"


def find_lists(folder: Path, names: set[str]) -> dict[str, Path]:
    """Text files that list the scenes of each split by name, such as train.txt.

    Lists of other names are passed over; empty unless there are lists for train and val.
    """
    found: dict[str, Path] = {}
    texts = [path for path in files_below(folder) if path.suffix == ".txt"]
    for path in texts + sorted(folder.absolute().parent.glob("*.txt")):
        words = [word for word in re.split(r"[^a-z]+", path.stem.lower()) if word in SPLIT_WORDS]
        if len(words) == 1 and SPLIT_WORDS[words[0]] not in found:
            try:
                listed = [nfc(line[0]) for _, line in read_words(path)]
            except GeotuneError:  # another file
                continue
            if listed and all(name in names or Path(name).stem in names for name in listed):
                found[SPLIT_WORDS[words[0]]] = path
    return found if {"train", "val"} <= set(found) else {}


def write_rows(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomically(path, text.getvalue().encode())
