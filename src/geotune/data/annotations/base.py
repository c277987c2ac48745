"""What a label file says of one image, whatever its format, and which of it can be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from geotune.boxes.oriented import hull
from geotune.boxes.polygons import minimum_rectangles
from geotune.data.annotations.annotation_options import AnnotationOptions
from geotune.data.annotations.object_target import Boxes
from geotune.data.labels.class_mapping import UNKNOWN, ClassMapping
from geotune.data.raster.source import RasterSource
from geotune.errors import GeotuneError
from geotune.utils.text import join_some

MIN_AREA = 1e-6
"""In square pixels: what is smaller comes from rounding."""
OUTSIDE_IMAGE = "annotations outside their image, left out"


class Annotation(NamedTuple):
    """One object as a file has it.

    Attributes:
        points: `(n, 2)` as (x, y) in pixels of the image; its box is the smallest around them.
        place: where it stands in its file, for messages: `line 3`.
        name: its class's name or number; None where the file does not say.
        difficult: whether the file says that it is not to be judged.
        remark: what a user should know of it, the same words for all of which it is true.
    """

    points: NDArray[np.float64]
    location: str
    class_name: object = None
    difficult: bool = False
    note: str = ""


@dataclass(frozen=True)
class ParsedAnnotations:
    """What a file says of an image.

    Attributes:
        annotations: of the image.
        elsewhere: what else the file holds, far from the image: numbers of features, from 1.
    """

    annotations: Sequence[Annotation]
    distant_features: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


@dataclass(frozen=True)
class AnnotationFormat:
    """A format of object labels.

    Attributes:
        read: the objects of one image; raises `GeotuneError` for an invalid file.
        matches: whether a file has this format.
        list_images: stems of the images listed in a file, for formats with one file for all images.
    """

    read: Callable[[Path, RasterSource, AnnotationOptions], ParsedAnnotations]
    matches: Callable[[Path], bool]
    list_images: Callable[[Path], list[str]] | None = None


@dataclass
class Notes:
    """What was noticed in the label files of a dataset, each kind with all its places."""

    locations: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, place: str) -> None:
        """`what` says it of the annotations at all its places together."""
        self.locations.setdefault(what, []).append(place)

    def notes(self) -> tuple[str, ...]:
        """A sentence for each kind."""
        return tuple(
            f"{what}: {len(places)} ({join_some(places, 3)})"
            for what, places in self.locations.items()
        )


def filter_valid(
    parsed: ParsedAnnotations,
    path: Path,
    shape: tuple[int, int],
    values: ClassMapping,
    options: AnnotationOptions,
    notes: Notes,
    *,
    shared: bool,
) -> tuple[Boxes, NDArray[np.int64], NDArray[np.bool_]]:
    """Boxes `(N, 4)` or `(N, 5)`, class indices and difficult flags `(N)` of what can be used.

    What has no area or lies wholly beside the image of `shape` (H, W) is left out with a remark,
    and so are other classes where `options` say it. What lies beside the image is not remarked of a
    file that is `shared` by several: it is theirs. Raises `GeotuneError` for
    coordinates that are no numbers and for other classes.
    """
    annotations = parsed.annotations
    boxes = _boxes(path, annotations, options.oriented)
    classes = _classes(path, annotations, values, options)
    sides = boxes[:, 2:4] if options.oriented else boxes[:, 2:] - boxes[:, :2]
    left, top, right, bottom = hull(boxes).T
    other = classes == UNKNOWN
    empty = sides.prod(axis=1) < MIN_AREA
    beside = (right <= 0) | (bottom <= 0) | (left >= shape[1]) | (top >= shape[0])
    noted = {
        f"annotations of other classes than {', '.join(values.classes)}, left out": other,
        "annotations without an area, left out": empty & ~other,
        OUTSIDE_IMAGE: beside & ~empty & ~other & (not shared),
    }
    for what, flags in noted.items():
        for i in np.flatnonzero(flags).tolist():
            notes.add(what, f"{path} {annotations[i].location}")
    for number in [] if shared else parsed.distant_features.tolist():
        notes.add(OUTSIDE_IMAGE, f"{path} feature {number}")
    kept = ~(other | empty | beside)
    for i in np.flatnonzero(kept).tolist():
        if annotations[i].note:
            notes.add(annotations[i].note, f"{path} {annotations[i].location}")
    difficult = np.array([a.difficult for a in annotations], dtype=np.bool_)
    return boxes[kept], classes[kept], difficult[kept]


def _boxes(path: Path, annotations: Sequence[Annotation], oriented: bool) -> Boxes:
    """The smallest boxes around the annotations' points."""
    if not annotations:
        return np.zeros((0, 5 if oriented else 4))
    points = np.concatenate([annotation.points for annotation in annotations])
    counts = [len(annotation.points) for annotation in annotations]
    starts = np.cumsum([0, *counts[:-1]])
    infinite = np.add.reduceat(~np.isfinite(points).all(axis=1), starts, dtype=np.int64) > 0
    if infinite.any():
        places = [annotations[i].location for i in np.flatnonzero(infinite).tolist()]
        raise GeotuneError(
            f"{path}: {join_some(places, 3)}: has a coordinate that is no finite number; mend it or "
            "take the annotation out"
        )
    if oriented:
        owners = np.repeat(np.arange(len(counts)), counts)
        return minimum_rectangles(np.asarray(shapely.multipoints(points, indices=owners)))
    low = np.minimum.reduceat(points, starts, axis=0)
    return np.concatenate([low, np.maximum.reduceat(points, starts, axis=0)], axis=1)


def _classes(
    path: Path, annotations: Sequence[Annotation], values: ClassMapping, options: AnnotationOptions
) -> NDArray[np.int64]:
    """Class index of each; `UNKNOWN` for others where they are to be left out."""
    nameless = [a.location for a in annotations if a.class_name is None]
    if nameless and len(values.classes) > 1:
        raise GeotuneError(
            f"{path}: {join_some(nameless, 3)}: does not say which of {', '.join(values.classes)} it "
            "is; write the class into the file (of a vector file name its field with "
            "data.class_field)"
        )
    indices = np.array(
        [0 if a.class_name is None else values.index_of(a.class_name) for a in annotations],
        dtype=np.int64,
    )
    unknown = Counter(
        str(a.class_name) for a, i in zip(annotations, indices, strict=True) if i == UNKNOWN
    )
    if unknown and options.other_classes == "refuse":
        first = annotations[int(np.argmax(indices == UNKNOWN))].location
        found = [f"{name!r} ({count} annotations)" for name, count in unknown.most_common()]
        raise GeotuneError(
            f"{path}: holds class {join_some(found)}, the first at {first}; expected "
            f"{values.describe()}; name it in task.classes, say what it means with "
            "data.class_values, or leave other classes out with data.other_classes: leave_out"
        )
    return indices
