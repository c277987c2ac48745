"""Points: a CSV for each image with the objects' middles, `x,y` in pixels.

x,y
68,36
68.5,4
"""

from __future__ import annotations

from pathlib import Path

from geotune.data.annotations.annotation_options import AnnotationOptions
from geotune.data.annotations.base import Annotation, AnnotationFormat, ParsedAnnotations
from geotune.data.annotations.outlines import box_corners
from geotune.data.labels.points import read_point_table
from geotune.data.raster.source import RasterSource


def read_points(path: Path, raster: RasterSource, options: AnnotationOptions) -> ParsedAnnotations:
    """Objects of one image, as `read_point_table` reads them: points as boxes of `point_size`."""
    points = read_point_table(path)
    half = options.point_pixels(raster) / 2 if points else 0.0
    return ParsedAnnotations(
        [
            Annotation(
                box_corners(p.x - half, p.y - half, p.x + half, p.y + half), p.where, p.class_name
            )
            for p in points
        ]
    )


POINTS = AnnotationFormat(read_points, lambda path: path.suffix.lower() == ".csv")
