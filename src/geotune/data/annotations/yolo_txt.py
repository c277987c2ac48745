"""YOLO: a text file per image, an object per line, in fractions of the image's sides.

0 0.481 0.634 0.069 0.071                          class, centre, width, height
0 0.51 0.60 0.54 0.61 0.53 0.66 0.50 0.65          class, corners of an oriented box
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geotune.data.annotations.base import (
    Annotation,
    AnnotationFormat,
    AnnotationOptions,
    ParsedAnnotations,
)
from geotune.data.annotations.parsing import (
    SELF_INTERSECTING,
    box_corners,
    row_error,
    self_intersects,
)
from geotune.data.labels.class_mapping import as_integer
from geotune.data.raster.source import RasterSource
from geotune.data.text_io import parse_numbers, read_words

MAX_FRACTION = 2.0
"""Objects may extend past the image, but larger values are probably pixels."""


def read_yolo(path: Path, raster: RasterSource, options: AnnotationOptions) -> ParsedAnnotations:
    """Objects of one image: a class, and a box or the corners of any polygon."""
    return ParsedAnnotations(
        [_annotation(path, location, words, raster) for location, words in read_words(path)]
    )


def _valid_length(words: list[str]) -> bool:
    """Whether a line has as many words as a box or a polygon."""
    return len(words) == 5 or (len(words) >= 7 and len(words) % 2 == 1)


def _has_keypoints(words: list[str]) -> bool:
    """Whether a line is a box with keypoints: x, y and 0, 1 or 2 for their visibility."""
    visibility = words[7::3]
    return (
        len(words) > 5
        and len(words) % 3 == 2
        and all(map(_is_number, words))
        and {float(word) for word in visibility} <= {0, 1, 2}
        and any(float(word) == 2 for word in visibility)  # 0 and 1 are also edges of the image
    )


def _has_score(words: list[str]) -> bool:
    """Whether a line is a prediction: that of a label, followed by a score."""
    if len(words) < 6 or not _valid_length(words[:-1]) or not all(map(_is_number, words)):
        return False
    if not 0 <= float(words[-1]) <= 1:
        return False
    # four corners, a class and 0 or 1 are also a line of DOTA, in pixels
    return len(words) == 6 or all(abs(float(word)) <= MAX_FRACTION for word in words[1:])


def _annotation(path: Path, location: str, words: list[str], raster: RasterSource) -> Annotation:
    if _has_keypoints(words):
        raise row_error(
            path,
            location,
            f"found {len(words)} numbers: a class, x y w h and keypoints, as for poses; keep the "
            "first five of each line",
        )
    if _has_score(words):
        shape = "x y w h" if len(words) == 6 else "corners"
        raise row_error(
            path,
            location,
            f"found {len(words)} numbers: a class, {shape} and a score, as YOLO models write their "
            "predictions; labels have no score: check the predictions, and remove the last number "
            "of each line",
        )
    if not _valid_length(words):
        raise row_error(
            path,
            location,
            f"found {len(words)} words, expected a class and x y w h, or a "
            "class and corners x1 y1 x2 y2 ...",
        )
    class_number = as_integer(words[0])
    if class_number is None or class_number < 0:
        raise row_error(
            path, location, f"found class {words[0]!r}, expected a class number, starting at 0"
        )
    fractions = parse_numbers(words[1:], path, location)
    too_large = np.abs(fractions) > MAX_FRACTION
    if too_large.any():
        raise row_error(
            path,
            location,
            f"found {fractions[too_large][0]:g}, expected fractions of the "
            "image's width and height, 0 to 1; divide pixels by them",
        )
    size = np.array([raster.shape[1], raster.shape[0]])
    if len(fractions) > 4:
        points = fractions.reshape(-1, 2) * size
        note = SELF_INTERSECTING if self_intersects(points) else ""
        return Annotation(points, location, class_number, note=note)
    centre, sides = fractions[:2], fractions[2:]
    if (sides < 0).any():
        raise row_error(
            path,
            location,
            f"found a width of {sides[0]:g} and a height of {sides[1]:g}, expected at least 0",
        )
    low, high = (centre - sides / 2) * size, (centre + sides / 2) * size
    return Annotation(box_corners(*low, *high), location, class_number)


def _matches(path: Path) -> bool:
    first = next(read_words(path), None) if path.suffix.lower() == ".txt" else None
    if first is None:
        return False
    words = first[1]
    if not all(map(_is_number, words)):
        return False
    # with six the reader says what is wrong
    return _valid_length(words) or len(words) == 6 or _has_score(words) or _has_keypoints(words)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


YOLO = AnnotationFormat(read_yolo, _matches, class_indices=True)
