"""FAIR1M: an XML file per image, with the outline of each object.

    <annotation><objects>
      <object>
        <possibleresult><name>Boeing787</name></possibleresult>
        <points>
          <point>10.5,20</point> <point>60,20</point> <point>60,50</point> <point>10.5,50</point>
        </points>
      </object>
    </objects></annotation>

The last point may repeat the first.
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
    parse_xml,
    row_error,
    self_intersects,
)
from geotune.data.raster.source import RasterSource
from geotune.data.text_io import parse_numbers

MIN_POINTS = 3


def read_fair1m(path: Path, raster: RasterSource, options: AnnotationOptions) -> ParsedAnnotations:
    """Objects of one image."""
    objects = enumerate(parse_xml(path).iter("object"), 1)
    return ParsedAnnotations([_annotation(path, f"object {i}", item) for i, item in objects])


def _annotation(path: Path, location: str, item: Element) -> Annotation:
    words = [(point.text or "").split(",") for point in item.iterfind("points/point")]
    if len(words) < MIN_POINTS or any(len(pair) != 2 for pair in words):
        raise row_error(
            path,
            location,
            f"found {len(words)} points, expected at least {MIN_POINTS} such as "
            "<point>10.5,20</point> in <points>",
        )
    points = parse_numbers([word for pair in words for word in pair], path, location).reshape(-1, 2)
    if (points[0] == points[-1]).all():
        points = points[:-1]
    class_name = (item.findtext("possibleresult/name") or "").strip()
    note = SELF_INTERSECTING if self_intersects(points) else ""
    return Annotation(points, location, class_name, note=note)


def _matches(path: Path) -> bool:
    if path.suffix.lower() != ".xml":
        return False
    return parse_xml(path).find(".//possibleresult") is not None


FAIR1M = AnnotationFormat(read_fair1m, _matches)
