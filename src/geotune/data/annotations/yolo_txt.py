"""YOLO: a text file for each image, a line for each object, in shares of the image's sides.

0 0.481 0.634 0.069 0.071                          class, centre, width, height
0 0.51 0.60 0.54 0.61 0.53 0.66 0.50 0.65          class, corners of an oriented box
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geotune.data.annotations.annotation_options import AnnotationOptions
from geotune.data.annotations.base import Annotation, AnnotationFormat, ParsedAnnotations
from geotune.data.annotations.outlines import SELF_INTERSECTING, box_corners, self_intersects
from geotune.data.raster.source import RasterSource
from geotune.data.text_io import parse_numbers, read_words
from geotune.errors import GeotuneError

FARTHEST = 2.0
"""Shares beyond are pixels: an object may reach out of its image, but not so far."""


def read_yolo(path: Path, raster: RasterSource, options: AnnotationOptions) -> ParsedAnnotations:
    """Objects of one image; after the class a box, or the corners of any polygon."""
    return ParsedAnnotations(
        [_annotation(path, place, words, raster) for place, words in read_words(path)]
    )


def fits(words: list[str]) -> bool:
    """Whether a line has as many words as a box or a polygon."""
    return len(words) == 5 or (len(words) >= 7 and len(words) % 2 == 1)


def _annotation(path: Path, place: str, words: list[str], raster: RasterSource) -> Annotation:
    if not fits(words):
        raise GeotuneError(
            f"{path}: {place}: has {len(words)} words, expected a class and x y w h, or a class "
            "and the corners x1 y1 x2 y2 ...; where a score stands among them take it out"
        )
    if not words[0].isdecimal():
        raise GeotuneError(
            f"{path}: {place}: found class {words[0]!r}, expected its number, counted from 0"
        )
    shares = parse_numbers(words[1:], path, place)
    if (np.abs(shares) > FARTHEST).any():
        far = shares[np.abs(shares) > FARTHEST][0]
        raise GeotuneError(
            f"{path}: {place}: found {far:g}, expected shares of the image's width and height, 0 "
            "to 1; divide pixels by them"
        )
    size = np.array([raster.shape[1], raster.shape[0]])
    name = int(words[0][:9])
    if len(shares) > 4:
        points = shares.reshape(-1, 2) * size
        return Annotation(
            points, place, name, note=SELF_INTERSECTING if self_intersects(points) else ""
        )
    if (shares[2:] < 0).any():
        raise GeotuneError(
            f"{path}: {place}: has the width {shares[2]:g} and height {shares[3]:g}, expected "
            "none below 0"
        )
    low, high = (shares[:2] - shares[2:] / 2) * size, (shares[:2] + shares[2:] / 2) * size
    return Annotation(box_corners(*low, *high), place, name)


def _matches(path: Path) -> bool:
    first = next(read_words(path), None) if path.suffix.lower() == ".txt" else None
    if first is None:
        return False
    words = first[1]
    numeric = all(word.replace(".", "", 1).lstrip("-").isdigit() for word in words)
    return numeric and fits(words)


YOLO = AnnotationFormat(read_yolo, _matches)
