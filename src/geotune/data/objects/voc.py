"""Pascal VOC: an XML file for each image.

    <annotation>
      <size><width>800</width><height>600</height><depth>3</depth></size>
      <object>
        <name>ship</name> <difficult>0</difficult>
        <bndbox><xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>9</ymax></bndbox>
      </object>
    </annotation>

Pixels are counted from 1 and the last belongs to the box, so the one above covers 20 by 9 pixels.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from geotune.data.objects.annotations import Annotation, Found
from geotune.data.objects.options import Options
from geotune.data.objects.size import same_size
from geotune.data.objects.text import numbers, rectangle
from geotune.data.raster import RasterSource
from geotune.types import GeotuneError

SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_voc(path: Path, raster: RasterSource, options: Options) -> Found:
    """Objects of one image."""
    root = _parse(path)
    if root.tag != "annotation":
        raise GeotuneError(
            f"{path}: is an XML file of <{root.tag}>, expected <annotation>; mend data.labels"
        )
    size = root.find("size")
    if size is not None:
        said = [size.findtext(side) or "0" for side in ("height", "width")]
        height, width = numbers(said, path, "<size>")
        if width and height:  # many tools write 0 for what they do not know
            same_size(path, "<size>", (height, width), raster)
    return Found(
        [_annotation(path, f"object {i}", item) for i, item in enumerate(root.iter("object"), 1)]
    )


def _annotation(path: Path, place: str, item: Element) -> Annotation:
    box = item.find("bndbox")
    if box is None:
        raise GeotuneError(
            f"{path}: {place}: has no <bndbox>; expected one with {', '.join(SIDES)}"
        )
    left, top, right, bottom = numbers([box.findtext(side) for side in SIDES], path, place)
    if right < left or bottom < top:
        raise GeotuneError(
            f"{path}: {place}: goes from ({left:g}, {top:g}) to ({right:g}, {bottom:g}), expected "
            "xmin <= xmax and ymin <= ymax"
        )
    name = (item.findtext("name") or "").strip()
    difficult = numbers([item.findtext("difficult") or "0"], path, place).any()
    return Annotation(rectangle(left - 1, top - 1, right, bottom), place, name, bool(difficult))


def _parse(path: Path) -> Element:
    """The root of an XML file that declares no entities: those can be made to fill the memory."""
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(*declared: object) -> None:
        raise GeotuneError(
            f"{path}: declares the entity {declared[0]!r}, which annotations have no use for; take "
            "its DOCTYPE out"
        )

    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(path.read_bytes(), True)
        return builder.close()
    except OSError as error:
        raise GeotuneError(
            f"{path}: cannot be read ({error.strerror}); mend data.labels"
        ) from error
    except expat.ExpatError as error:
        raise GeotuneError(f"{path}: is no whole XML file ({error}); write it anew") from error
