"""DOTA: a text file for each image, a line for each object with the corners of its box.

imagesource:GoogleEarth
gsd:0.146
2753 2408 2861 2385 2888 2468 2805 2502 plane 0
"""

from __future__ import annotations

from pathlib import Path

from geotune.data.annotations.annotation_options import AnnotationOptions
from geotune.data.annotations.base import Annotation, AnnotationFormat, ParsedAnnotations
from geotune.data.annotations.outlines import SELF_INTERSECTING, self_intersects
from geotune.data.raster.source import RasterSource
from geotune.data.text_io import parse_numbers, read_words
from geotune.errors import GeotuneError

HEADER = ("imagesource:", "gsd:")
CORNERS = 8


def read_dota(path: Path, raster: RasterSource, options: AnnotationOptions) -> ParsedAnnotations:
    """Objects of one image: eight numbers, a class, and 0 or 1 for difficult, which may lack."""
    return ParsedAnnotations(
        [
            _annotation(path, place, words)
            for place, words in read_words(path)
            if not is_header(words)
        ]
    )


def is_header(words: list[str]) -> bool:
    """Whether a line says something of the image."""
    return words[0].lower().startswith(HEADER)


def _annotation(path: Path, place: str, words: list[str]) -> Annotation:
    if len(words) not in (CORNERS + 1, CORNERS + 2):
        raise GeotuneError(
            f"{path}: {place}: has {len(words)} words, expected x1 y1 x2 y2 x3 y3 x4 y4, a class "
            "and 0 or 1 for difficult; mend the line"
        )
    points = parse_numbers(words[:CORNERS], path, place).reshape(4, 2)
    name, *rest = words[CORNERS:]
    difficult = bool(parse_numbers(rest, path, place).any())
    return Annotation(
        points, place, name, difficult, SELF_INTERSECTING if self_intersects(points) else ""
    )


def _matches(path: Path) -> bool:  # after those of other text files
    return path.suffix.lower() == ".txt" and next(read_words(path), None) is not None


DOTA = AnnotationFormat(read_dota, _matches)
