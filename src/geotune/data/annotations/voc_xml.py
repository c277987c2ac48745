"""Pascal VOC: an XML file per image.

    <annotation>
      <size><width>800</width><height>600</height><depth>3</depth></size>
      <object>
        <name>ship</name> <difficult>0</difficult>
        <bndbox><xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>9</ymax></bndbox>
      </object>
    </annotation>

Pixel coordinates start at 1 and the last pixel is part of the box: this box has 20 by 9 pixels.
DIOR-R has the four corners of an oriented box instead, as image coordinates:

      <robndbox>
        <x_left_top>1</x_left_top><y_left_top>1</y_left_top> ... <x_left_bottom> ...
      </robndbox>

roLabelImg has centre, sides and the angle in radians, clockwise as seen:

      <robndbox> <cx>9</cx> <cy>5</cy> <w>12</w> <h>4</h> <angle>0.7</angle> </robndbox>
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from geotune.boxes.oriented import corners
from geotune.data.annotations.base import (
    Annotation,
    AnnotationFormat,
    AnnotationOptions,
    ParsedAnnotations,
)
from geotune.data.annotations.parsing import (
    SELF_INTERSECTING,
    box_corners,
    check_image_size,
    parse_xml,
    row_error,
    self_intersects,
)
from geotune.data.raster.source import RasterSource
from geotune.data.text_io import parse_numbers
from geotune.errors import GeotuneError

SIDES = ("xmin", "ymin", "xmax", "ymax")
CENTRE_SIDES_ANGLE = ("cx", "cy", "w", "h", "angle")
CORNERS = [
    f"{axis}_{corner}"
    for corner in ("left_top", "right_top", "right_bottom", "left_bottom")
    for axis in "xy"
]


def read_voc(path: Path, raster: RasterSource, options: AnnotationOptions) -> ParsedAnnotations:
    """Objects of one image."""
    root = parse_xml(path)
    if root.tag != "annotation":
        raise GeotuneError(
            f"{path}: found the root element <{root.tag}>, expected <annotation>; check "
            "data.labels and data.format",
            code="file-unreadable",
            key="data.labels",
            file=path,
        )
    size = root.find("size")
    if size is not None:
        sides = [size.findtext(side) or "0" for side in ("height", "width")]
        height, width = parse_numbers(sides, path, "<size>")
        if width and height:  # many tools write 0 for an unknown size
            check_image_size(path, "<size>", (height, width), raster)
    return ParsedAnnotations(
        [_annotation(path, f"object {i}", item) for i, item in enumerate(root.iter("object"), 1)]
    )


def _annotation(path: Path, location: str, item: Element) -> Annotation:
    class_name = (item.findtext("name") or "").strip()
    difficult = bool(parse_numbers([item.findtext("difficult") or "0"], path, location).any())
    oriented = item.find("robndbox")
    if oriented is not None:
        points = _oriented_corners(path, location, oriented)
        note = SELF_INTERSECTING if self_intersects(points) else ""
        return Annotation(points, location, class_name, difficult, note)
    box = item.find("bndbox")
    if box is None:
        raise row_error(path, location, f"has no <bndbox>; expected one with {', '.join(SIDES)}")
    sides = [box.findtext(side) for side in SIDES]
    left, top, right, bottom = parse_numbers(sides, path, location)
    if right < left or bottom < top:
        raise row_error(
            path,
            location,
            f"found a box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}), "
            "expected xmin <= xmax and ymin <= ymax",
        )
    return Annotation(
        box_corners(left - 1, top - 1, right, bottom), location, class_name, difficult
    )


def _oriented_corners(path: Path, location: str, item: Element) -> NDArray[np.float64]:
    """Corners `(4, 2)` of a `<robndbox>`."""
    if item.find("cx") is None:
        words = [item.findtext(corner) for corner in CORNERS]
        return parse_numbers(words, path, location).reshape(4, 2)
    box = parse_numbers([item.findtext(name) for name in CENTRE_SIDES_ANGLE], path, location)
    *_, width, height, angle = box
    if width < 0 or height < 0 or abs(angle) > 2 * np.pi:
        raise row_error(
            path,
            location,
            f"found a width of {width:g}, a height of {height:g} and an angle of {angle:g}, "
            "expected sides of at least 0 and radians",
        )
    return np.asarray(corners(box[None])[0])


VOC = AnnotationFormat(read_voc, lambda path: path.suffix.lower() == ".xml")
