"""Reading the XML of annotation files."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from geotune.errors import GeotuneError


def parse_xml(path: Path) -> Element:
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
