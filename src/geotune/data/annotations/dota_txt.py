"""DOTA: a text file per image, with the corners of a box per line.

imagesource:GoogleEarth
gsd:0.146
2753 2408 2861 2385 2888 2468 2805 2502 plane 0
"""

from __future__ import annotations

from pathlib import Path

from geotune.data.annotations.base import (
    Annotation,
    AnnotationFormat,
    AnnotationOptions,
    ParsedAnnotations,
)
from geotune.data.annotations.parsing import SELF_INTERSECTING, row_error, self_intersects
from geotune.data.raster.source import RasterSource
from geotune.data.text_io import parse_numbers, read_words

HEADER = ("imagesource:", "gsd:")
NUM_COORDINATES = 8


def read_dota(path: Path, raster: RasterSource, options: AnnotationOptions) -> ParsedAnnotations:
    """Objects of one image: eight numbers, a class and, optionally, 0 or 1 for difficult."""
    return ParsedAnnotations(
        [
            _annotation(path, location, words)
            for location, words in read_words(path)
            if not words[0].lower().startswith(HEADER)
        ]
    )


def _annotation(path: Path, location: str, words: list[str]) -> Annotation:
    if len(words) not in (NUM_COORDINATES + 1, NUM_COORDINATES + 2):
        raise row_error(
            path,
            location,
            f"found {len(words)} words, expected x1 y1 x2 y2 x3 y3 x4 y4, a "
            "class and 0 or 1 for difficult; correct it",
        )
    points = parse_numbers(words[:NUM_COORDINATES], path, location).reshape(4, 2)
    class_name, *rest = words[NUM_COORDINATES:]
    difficult = bool(parse_numbers(rest, path, location).any())
    note = SELF_INTERSECTING if self_intersects(points) else ""
    return Annotation(points, location, class_name, difficult, note)


def _matches(path: Path) -> bool:  # after those of other text files
    return path.suffix.lower() == ".txt" and next(read_words(path), None) is not None


DOTA = AnnotationFormat(read_dota, _matches)
