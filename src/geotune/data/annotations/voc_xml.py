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
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

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
        corners = [oriented.findtext(corner) for corner in CORNERS]
        points = parse_numbers(corners, path, location).reshape(4, 2)
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


VOC = AnnotationFormat(read_voc, lambda path: path.suffix.lower() == ".xml")
