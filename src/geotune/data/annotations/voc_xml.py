"""Pascal VOC: an XML file for each image.

    <annotation>
      <size><width>800</width><height>600</height><depth>3</depth></size>
      <object>
        <name>ship</name> <difficult>0</difficult>
        <bndbox><xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>9</ymax></bndbox>
      </object>
    </annotation>

Pixels are counted from 1 and the last belongs to the box, so the one above covers 20 by 9 pixels.
DIOR-R has the four corners of an oriented box in its place, which are points of the image:

      <robndbox>
        <x_left_top>1</x_left_top><y_left_top>1</y_left_top> ... <x_left_bottom> ...
      </robndbox>
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

from geotune.data.annotations.annotation_options import AnnotationOptions
from geotune.data.annotations.base import Annotation, AnnotationFormat, ParsedAnnotations
from geotune.data.annotations.outlines import SELF_INTERSECTING, box_corners, self_intersects
from geotune.data.annotations.size import check_image_size
from geotune.data.annotations.xml_io import parse_xml
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
            f"{path}: is an XML file of <{root.tag}>, expected <annotation>; mend data.labels"
        )
    size = root.find("size")
    if size is not None:
        said = [size.findtext(side) or "0" for side in ("height", "width")]
        height, width = parse_numbers(said, path, "<size>")
        if width and height:  # many tools write 0 for what they do not know
            check_image_size(path, "<size>", (height, width), raster)
    return ParsedAnnotations(
        [_annotation(path, f"object {i}", item) for i, item in enumerate(root.iter("object"), 1)]
    )


def _annotation(path: Path, place: str, item: Element) -> Annotation:
    name = (item.findtext("name") or "").strip()
    difficult = bool(parse_numbers([item.findtext("difficult") or "0"], path, place).any())
    oriented = item.find("robndbox")
    if oriented is not None:
        points = parse_numbers([oriented.findtext(c) for c in CORNERS], path, place).reshape(4, 2)
        return Annotation(
            points, place, name, difficult, SELF_INTERSECTING if self_intersects(points) else ""
        )
    box = item.find("bndbox")
    if box is None:
        raise GeotuneError(
            f"{path}: {place}: has no <bndbox>; expected one with {', '.join(SIDES)}"
        )
    left, top, right, bottom = parse_numbers([box.findtext(side) for side in SIDES], path, place)
    if right < left or bottom < top:
        raise GeotuneError(
            f"{path}: {place}: goes from ({left:g}, {top:g}) to ({right:g}, {bottom:g}), expected "
            "xmin <= xmax and ymin <= ymax"
        )
    return Annotation(box_corners(left - 1, top - 1, right, bottom), place, name, difficult)


VOC = AnnotationFormat(read_voc, lambda path: path.suffix.lower() == ".xml")
