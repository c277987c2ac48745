"""NWPU VHR-10: a text file per image, with two corners and the class number per line.

(563,478),(630,573),1
"""

from __future__ import annotations

import re
from pathlib import Path

from geotune.data.annotations.base import (
    Annotation,
    AnnotationFormat,
    AnnotationOptions,
    ParsedAnnotations,
)
from geotune.data.annotations.parsing import box_corners, row_error
from geotune.data.raster.source import RasterSource
from geotune.data.text_io import parse_numbers, read_words

LINE = re.compile(r"\(([^,()]+),([^,()]+)\),\(([^,()]+),([^,()]+)\),(\d{1,9})")


def read_nwpu(path: Path, raster: RasterSource, options: AnnotationOptions) -> ParsedAnnotations:
    """Objects of one image."""
    return ParsedAnnotations(
        [_annotation(path, location, "".join(words)) for location, words in read_words(path)]
    )


def _annotation(path: Path, location: str, text: str) -> Annotation:
    match = LINE.fullmatch(text)
    if match is None:
        raise row_error(
            path,
            location,
            f"found {text[:80]!r}, expected two corners and a class such as (563,478),(630,573),1",
        )
    left, top, right, bottom = parse_numbers(match.groups()[:4], path, location)
    return Annotation(box_corners(left, top, right, bottom), location, int(match[5]))


def _matches(path: Path) -> bool:
    first = next(read_words(path), None) if path.suffix.lower() == ".txt" else None
    return first is not None and first[1][0].startswith("(")


NWPU = AnnotationFormat(read_nwpu, _matches)
