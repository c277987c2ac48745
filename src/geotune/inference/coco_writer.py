"""Write objects or polygons of many images to one COCO JSON, for annotation tools.

Coordinates are pixels of the image. The `bbox` of an oriented box is that before its rotation about
its centre, clockwise by `attributes.rotation` in degrees, as in CVAT; its corners are in
`segmentation`. Points are keypoints.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geotune.boxes.oriented import from_corners
from geotune.utils.atomic import replacing

_DIGITS = 4
"""Decimals of a pixel."""


class CocoWriter(AbstractContextManager["CocoWriter"]):
    """Streams annotations to a file, which appears when the context exits without an error.

    Args:
        path: the file.
        classes: names; category ids count from 1 in this order.
        oriented: whether polygons of four corners are oriented boxes.
        rectangles: whether polygons are boxes: those that are not oriented have no `segmentation`.
    """

    def __init__(
        self, path: Path, classes: Sequence[str], *, oriented: bool, rectangles: bool, points: bool
    ) -> None:
        self.path = path
        self.oriented = oriented
        self.rectangles = rectangles
        keypoint = {"keypoints": ["point"], "skeleton": []} if points else {}
        self._categories = [
            {"id": number, "name": name, "supercategory": "", **keypoint}
            for number, name in enumerate(classes, 1)
        ]
        self._ids = {name: number for number, name in enumerate(classes, 1)}
        self._images: list[dict[str, Any]] = []
        self._count = 0

    def __enter__(self) -> CocoWriter:
        with ExitStack() as stack:
            partial = stack.enter_context(replacing(self.path))
            self._file = stack.enter_context(partial.open("w", encoding="utf-8"))
            self._stack = stack.pop_all()
        self._file.write('{"annotations": [')
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        rest = {  # some readers fail without `info`
            "images": self._images,
            "categories": self._categories,
            "licenses": [],
            "info": {"description": "predictions of geotune"},
        }
        self._file.write("\n], " + json.dumps(rest, ensure_ascii=False)[1:] + "\n")
        self._stack.__exit__(kind, error, trace)

    def add_image(self, file_name: str, shape: tuple[int, int]) -> None:
        """Begin an image of `shape` (height, width); its annotations follow."""
        height, width = shape
        number = len(self._images) + 1
        self._images.append(
            {"id": number, "file_name": file_name, "width": width, "height": height}
        )

    def write(
        self, geometry: NDArray[Any], classes: Sequence[str], scores: NDArray[np.float64]
    ) -> None:
        """Write points or polygons in pixels of the current image."""
        for shape, name, score in zip(geometry, classes, scores, strict=True):
            self._count += 1
            annotation = {
                "id": self._count,
                "image_id": len(self._images),
                "category_id": self._ids[name],
                "iscrowd": 0,
                "score": round(float(score), 4),
                **self._described(shape),
            }
            self._file.write("\n" if self._count == 1 else ",\n")
            self._file.write(json.dumps(annotation))

    def _described(self, shape: Any) -> dict[str, Any]:
        if shape.geom_type == "Point":
            x, y = _rounded([shape.x, shape.y])
            return {
                "bbox": [x, y, 0, 0],
                "area": 0,
                "segmentation": [],
                "keypoints": [x, y, 2],
                "num_keypoints": 1,
            }
        if self.oriented:
            corners = shapely.get_coordinates(shape.exterior)[:4]
            cx, cy, w, h, angle = from_corners(corners).tolist()
            return {
                "bbox": _rounded([cx - w / 2, cy - h / 2, w, h]),
                "area": _rounded([w * h])[0],
                "segmentation": [_rounded(corners)],
                "attributes": {"occluded": False, "rotation": round(np.degrees(angle) % 360, 6)},
            }
        left, top, right, bottom = shape.bounds
        rings = [] if self.rectangles else without_holes(shape)
        return {
            "bbox": _rounded([left, top, right - left, bottom - top]),
            "area": _rounded([shape.area])[0],
            "segmentation": [
                _rounded(shapely.get_coordinates(ring.exterior)[:-1]) for ring in rings
            ],
        }


def without_holes(polygon: shapely.Polygon) -> list[shapely.Polygon]:
    """Polygons without holes whose union is `polygon`, which COCO cannot hold otherwise."""
    pieces, waiting = [], [polygon]
    while waiting:
        piece = waiting.pop()
        if not piece.interiors:
            pieces.append(piece)
            continue
        x = piece.interiors[0].centroid.x
        left, bottom, right, top = piece.bounds
        halves = shapely.box(left, bottom, x, top), shapely.box(x, bottom, right, top)
        cut = [shapely.intersection(piece, half) for half in halves]
        waiting += [part for part in shapely.get_parts(cut) if part.area > 0]
    return pieces


def _rounded(values: Any) -> list[float]:
    rounded: list[float] = np.round(np.asarray(values, dtype=np.float64).ravel(), _DIGITS).tolist()
    return rounded
