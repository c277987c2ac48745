"""labelme: a JSON per image with outlines in pixels.

{"imagePath": "a.jpg", "imageHeight": 600, "imageWidth": 800,
 "shapes": [{"label": "ship", "shape_type": "polygon", "points": [[10, 20], [40, 20], [40, 60]]}]}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import shapely

from geotune.data.text_io import parse_numbers
from geotune.errors import GeotuneError

IMAGE_SIZE = "image_size"
"""The attribute of a frame in pixels with the (H, W) of its image; None for an unknown size."""

MIN_POINTS = {"polygon": 3, "rectangle": 2, "circle": 2, "point": 1}


def read_labelme(path: Path) -> geopandas.GeoDataFrame | None:
    """The outlines of a labelme file in pixels, with their `class`; None for any other file.

    Raises `GeotuneError` for an invalid shape, and for the JSON of another annotation tool.
    """
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None  # reported where it is read as a vector file
    if not isinstance(values, dict):
        return None
    if "_via_img_metadata" in values or _is_via(next(iter(values.values()), None)):
        raise GeotuneError(
            f"{path}: is a project or export of VIA, which is not read; export it as COCO",
            code="label-format-unknown",
            key="data.labels",
            file=path,
        )
    if not isinstance(values.get("shapes"), list) or "imagePath" not in values:
        return None
    shapes = [_shape(path, f"shape {i}", item) for i, item in enumerate(values["shapes"], 1)]
    frame = geopandas.GeoDataFrame(
        {"class": [item.get("label") for item in values["shapes"]]}, geometry=shapes
    )
    size = values.get("imageHeight"), values.get("imageWidth")
    known = all(isinstance(side, int) and side > 0 for side in size)
    frame.attrs[IMAGE_SIZE] = size if known else None
    return frame


def _shape(path: Path, location: str, item: Any) -> Any:
    kind = item.get("shape_type", "polygon") if isinstance(item, dict) else None
    listed = item.get("points") if isinstance(item, dict) else None
    needed = MIN_POINTS.get(str(kind))
    if needed is None or not isinstance(listed, list) or len(listed) < needed:
        raise GeotuneError(
            f"{path}: {location}: found a {kind} of {len(listed or [])} points; expected "
            f"{', '.join(MIN_POINTS)}, such as a polygon of at least 3",
            code="row-invalid",
            file=path,
        )
    is_pair = [isinstance(point, list) and len(point) == 2 for point in listed]
    words = [word for point in listed for word in point] if all(is_pair) else [None]
    points = parse_numbers(words, path, location).reshape(-1, 2)
    if kind == "rectangle":
        return shapely.box(*points[:2].min(axis=0), *points[:2].max(axis=0))
    if kind == "circle":
        return shapely.Point(points[0]).buffer(float(np.hypot(*(points[1] - points[0]))))
    return shapely.Point(points[0]) if kind == "point" else shapely.Polygon(points)


def _is_via(item: object) -> bool:
    return isinstance(item, dict) and {"filename", "regions"} <= item.keys()
