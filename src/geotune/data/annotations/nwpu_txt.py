"""NWPU VHR-10: a text file for each image, a line for each object: two corners and the class.

(563,478),(630,573),1
"""

from __future__ import annotations

import re
from pathlib import Path

from geotune.data.annotations.annotation_options import AnnotationOptions
from geotune.data.annotations.base import Annotation, AnnotationFormat, ParsedAnnotations
from geotune.data.annotations.outlines import box_corners
from geotune.data.raster.source import RasterSource
from geotune.data.text_io import parse_numbers, read_words
from geotune.errors import GeotuneError

LINE = re.compile(r"\(([^,()]+),([^,()]+)\),\(([^,()]+),([^,()]+)\),(\d{1,9})")


def read_nwpu(path: Path, raster: RasterSource, options: AnnotationOptions) -> ParsedAnnotations:
    """Objects of one image."""
    return ParsedAnnotations(
        [_annotation(path, place, "".join(words)) for place, words in read_words(path)]
    )


def _annotation(path: Path, place: str, text: str) -> Annotation:
    found = LINE.fullmatch(text)
    if found is None:
        raise GeotuneError(
            f"{path}: {place}: found {text[:80]!r}, expected two corners and a class such as "
            "(563,478),(630,573),1"
        )
    left, top, right, bottom = parse_numbers(found.groups()[:4], path, place)
    return Annotation(box_corners(left, top, right, bottom), place, int(found[5]))


def _matches(path: Path) -> bool:
    first = next(read_words(path), None) if path.suffix.lower() == ".txt" else None
    return first is not None and first[1][0].startswith("(")


NWPU = AnnotationFormat(read_nwpu, _matches)
