"""Points: a CSV per image with the centres of objects, `x,y` in pixels.

x,y
68,36
68.5,4
"""

from __future__ import annotations

from pathlib import Path

from geotune.data.annotations.base import (
    Annotation,
    AnnotationFormat,
    AnnotationOptions,
    ParsedAnnotations,
)
from geotune.data.annotations.parsing import box_corners
from geotune.data.labels.points import read_point_table
from geotune.data.labels.unread_attributes import unread_attributes
from geotune.data.raster.source import RasterSource


def read_point_boxes(
    path: Path, raster: RasterSource, options: AnnotationOptions
) -> ParsedAnnotations:
    """Objects of one image: boxes of `point_size` around the points of `read_point_table`."""
    points = read_point_table(path)
    no_class = bool(points) and all(p.class_name is None for p in points)
    half = options.point_pixels(raster) / 2 if points else 0.0
    return ParsedAnnotations(
        [
            Annotation(
                box_corners(p.x - half, p.y - half, p.x + half, p.y + half), p.where, p.class_name
            )
            for p in points
        ],
        unread=unread_attributes(path) if no_class and options.class_field is None else {},
    )


POINTS = AnnotationFormat(read_point_boxes, lambda path: path.suffix.lower() == ".csv")
