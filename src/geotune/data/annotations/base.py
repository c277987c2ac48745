"""Annotations of one image in any format, and filtering those that can be used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from geotune.boxes.oriented import hull
from geotune.boxes.polygons import minimum_rectangles
from geotune.data.annotations.object_target import Boxes
from geotune.data.labels.class_mapping import UNKNOWN, ClassMapping
from geotune.data.labels.unread_attributes import Attributes
from geotune.data.raster.source import RasterSource
from geotune.errors import GeotuneError
from geotune.utils.text import join_some

MIN_AREA = 1e-6
"""Square pixels; smaller areas are rounding errors."""
OUTSIDE_IMAGE = "annotations outside their image, skipped"


@dataclass(frozen=True)
class AnnotationOptions:
    """How annotations are read.

    Attributes:
        oriented: use the smallest boxes at any angle; otherwise horizontal boxes.
        min_visibility: minimum visible fraction of an object's area for it to count in a window.
        class_field: class attribute of vector labels; `""` for none.
        point_size: side of the box around a point, `6 m` or `10 px`.
        other_classes: whether objects of other classes are an error (`refuse`) or skipped.
    """

    oriented: bool = False
    min_visibility: float = 0.5
    class_field: str | None = None
    point_size: str | None = None
    other_classes: Literal["refuse", "leave_out"] = "refuse"

    def point_pixels(self, raster: RasterSource) -> float:
        """Side of the box around a point, in pixels of an image.

        Raises `GeotuneError` if it is not set, or is in metres and the pixel size is unknown.
        """
        if self.point_size is None:
            raise GeotuneError(
                f"{raster.path}: its labels are points; set data.point_size, the side of the boxes "
                "around them, to a value such as 6 m or 10 px",
                code="point-size",
                key="data.point_size",
                file=raster.path,
            )
        match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(m|px)", self.point_size)
        if match is None or not float(match[1]):
            raise GeotuneError(
                f"data.point_size: found {self.point_size!r}, expected metres or pixels such as "
                "6 m or 10 px",
                code="point-size",
                key="data.point_size",
            )
        size = float(match[1])
        if match[2] == "px":
            return size
        if raster.gsd_m is None:
            raise GeotuneError(
                f"{raster.path}: the pixel size is unknown, but data.point_size is "
                f"{self.point_size}; set it in pixels, such as 10 px",
                code="metadata-missing",
                key="data.point_size",
                file=raster.path,
            )
        return size / raster.gsd_m


class Annotation(NamedTuple):
    """One object in a label file.

    Attributes:
        points: `(n, 2)`, x and y in pixels of the image; the object's box is the smallest around
            them.
        location: where it is in its file, for messages: `line 3`.
        class_name: class name or number; None if the file does not state it.
        difficult: whether it is ignored in evaluation.
        note: for the user; annotations with the same note are listed together.
    """

    points: NDArray[np.float64]
    location: str
    class_name: object = None
    difficult: bool = False
    note: str = ""


@dataclass(frozen=True)
class ParsedAnnotations:
    """The content of a label file.

    Attributes:
        annotations: of the image.
        distant_features: numbers, starting at 1, of features far from the image.
        unread: attributes of the file if none of them is read as the class.
        image: which of the images in the file they are of; None in a file about one image.
    """

    annotations: Sequence[Annotation]
    distant_features: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    unread: Attributes = field(default_factory=dict)
    image: object = None


@dataclass(frozen=True)
class AnnotationFormat:
    """A format of object labels.

    Attributes:
        read: the objects of one image; raises `GeotuneError` for an invalid file.
        matches: whether a file has this format.
        list_images: stems of the images listed in a file, for formats with one file for all images.
        class_indices: whether files state classes by index, whatever the names of the classes.
        in_pixels: whether coordinates are pixels of the image file, rather than of the scene, which
            may be resampled.
    """

    read: Callable[[Path, RasterSource, AnnotationOptions], ParsedAnnotations]
    matches: Callable[[Path], bool]
    list_images: Callable[[Path], list[str]] | None = None
    class_indices: bool = False
    in_pixels: bool = True


@dataclass
class Notes:
    """Notes about the label files of a data set: text to the locations it applies to."""

    locations: dict[str, list[str]] = field(default_factory=dict)

    def add(self, text: str, location: str) -> None:
        """Add a location to a note."""
        self.locations.setdefault(text, []).append(location)

    def texts(self) -> tuple[str, ...]:
        """Each note with the number of its locations and the first of them."""
        return tuple(
            f"{text}: {len(locations)} ({join_some(locations, 3)})"
            for text, locations in self.locations.items()
        )


def filter_valid(
    parsed: ParsedAnnotations,
    path: Path,
    shape: tuple[int, int],
    mapping: ClassMapping,
    options: AnnotationOptions,
    notes: Notes,
    *,
    shared: bool,
) -> tuple[Boxes, NDArray[np.int64], NDArray[np.bool_], bool | None]:
    """Boxes `(N, 4)` or `(N, 5)`, class indices and difficult flags `(N)` of usable annotations.

    Last, whether any annotation of the classes lies in the image; None without such annotations.

    Annotations without an area, entirely outside the image of `shape` (H, W) and, depending on
    `options`, of other classes are skipped with a note. With `shared`, several images use the file
    and annotations outside this one are not noted. Raises `GeotuneError` for coordinates that are
    not finite, and for other classes.
    """
    annotations = parsed.annotations
    boxes = _boxes(path, annotations, options.oriented)
    classes = _classes(path, annotations, mapping, options)
    sides = boxes[:, 2:4] if options.oriented else boxes[:, 2:] - boxes[:, :2]
    left, top, right, bottom = hull(boxes).T
    other = classes == UNKNOWN
    empty = sides.prod(axis=1) < MIN_AREA
    outside = (right <= 0) | (bottom <= 0) | (left >= shape[1]) | (top >= shape[0])
    skipped = {
        f"annotations of classes other than {', '.join(mapping.classes)}, skipped": other,
        "annotations without an area, skipped": empty & ~other,
        OUTSIDE_IMAGE: outside & ~empty & ~other & (not shared),
    }
    for text, mask in skipped.items():
        for i in np.flatnonzero(mask).tolist():
            notes.add(text, f"{path} {annotations[i].location}")
    for number in [] if shared else parsed.distant_features.tolist():
        notes.add(OUTSIDE_IMAGE, f"{path} feature {number}")
    kept = ~(other | empty | outside)
    for i in np.flatnonzero(kept).tolist():
        if annotations[i].note:
            notes.add(annotations[i].note, f"{path} {annotations[i].location}")
    difficult = np.array([a.difficult for a in annotations], dtype=np.bool_)
    misplaced = bool((outside & ~other).any()) or len(parsed.distant_features) > 0
    overlaps = True if kept.any() else False if misplaced else None
    return boxes[kept], classes[kept], difficult[kept], overlaps


def _boxes(path: Path, annotations: Sequence[Annotation], oriented: bool) -> Boxes:
    """The smallest boxes around the points of each annotation."""
    if not annotations:
        return np.zeros((0, 5 if oriented else 4))
    points = np.concatenate([annotation.points for annotation in annotations])
    counts = [len(annotation.points) for annotation in annotations]
    starts = np.cumsum([0, *counts[:-1]])
    invalid = np.add.reduceat(~np.isfinite(points).all(axis=1), starts, dtype=np.int64) > 0
    if invalid.any():
        locations = [annotations[i].location for i in np.flatnonzero(invalid).tolist()]
        raise GeotuneError(
            f"{path}: {join_some(locations, 3)}: has a coordinate that is not finite; correct or "
            "remove it",
            code="row-invalid",
            file=path,
        )
    if oriented:
        owners = np.repeat(np.arange(len(counts)), counts)
        return minimum_rectangles(np.asarray(shapely.multipoints(points, indices=owners)))
    low = np.minimum.reduceat(points, starts, axis=0)
    return np.concatenate([low, np.maximum.reduceat(points, starts, axis=0)], axis=1)


def _classes(
    path: Path, annotations: Sequence[Annotation], mapping: ClassMapping, options: AnnotationOptions
) -> NDArray[np.int64]:
    """Class indices; `UNKNOWN` for other classes that are to be skipped."""
    unclassified = [a.location for a in annotations if a.class_name is None]
    if unclassified and len(mapping.classes) > 1:
        raise GeotuneError(
            f"{path}: {join_some(unclassified, 3)}: has no class; expected one of "
            f"{', '.join(mapping.classes)} (for vector files set data.class_field)",
            code="class-field",
            key="data.class_field",
            file=path,
        )
    indices = np.array(
        [0 if a.class_name is None else mapping.index_of(a.class_name) for a in annotations],
        dtype=np.int64,
    )
    unknown = Counter(
        str(a.class_name) for a, i in zip(annotations, indices, strict=True) if i == UNKNOWN
    )
    if unknown and options.other_classes == "refuse":
        first = annotations[int(np.argmax(indices == UNKNOWN))].location
        names = [
            f"{repr(name) if name else '(no value)'} ({count} annotations)"
            for name, count in unknown.most_common()
        ]
        raise GeotuneError(
            f"{path}: unknown class {join_some(names)}, first at {first}; expected "
            f"{mapping.describe()}; add it to task.classes, map it with data.class_values, or skip "
            "other classes with data.other_classes: leave_out",
            code="class-unknown",
            key="data.other_classes",
            file=path,
        )
    return indices
