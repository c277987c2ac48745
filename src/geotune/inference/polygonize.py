"""Polygonize a class map without loading the map or all polygons into memory.

The map is read in bands of rows, with the scores whose mean each polygon gets. Objects that touch
the seam between two bands stay open until they are complete; pieces are joined if pixels of one
class meet across the seam.

    band 0   ....AAAA....BB...    A and B touch the seam and stay open
             ----|--|----||---
    band 1   ....AAAAAAAABB...    A ends here: its pieces are merged and returned
             ------------||---    B stays open
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize, shapes
from rasterio.transform import Affine
from shapely import Polygon
from shapely.geometry import shape as as_geometry

Rows = NDArray[np.uint8]
Owners = NDArray[np.int64]

NO_OBJECT = -1


class Region(NamedTuple):
    """A region of one value.

    Attributes:
        value: of its pixels in the map.
        polygon: its outline in pixels (column, row).
        score: mean score of its pixels; NaN without scores.
    """

    value: int
    polygon: Polygon
    score: float


@dataclass
class _OpenObject:
    """An object that may continue beyond the seam."""

    value: int
    pieces: list[Polygon] = field(default_factory=list)
    vertices: int = 0
    scores: float = 0
    pixels: float = 0

    def add(self, piece: Polygon, score: float) -> None:
        self.pieces.append(piece)
        self.vertices += shapely.get_num_coordinates(piece)
        self.scores += score * piece.area
        self.pixels += piece.area

    def join(self, other: _OpenObject) -> None:
        self.pieces += other.pieces
        self.vertices += other.vertices
        self.scores += other.scores
        self.pixels += other.pixels

    def close(self) -> Iterator[Region]:
        """The object's polygon; several if it was split before and the rest is disconnected."""
        parts = self.pieces
        if len(parts) > 1:
            # removes collinear vertices on the seam
            parts = shapely.get_parts(shapely.simplify(shapely.union_all(parts), 0))
        for part in parts:
            yield Region(self.value, part, self.scores / self.pixels)
        self.pieces, self.vertices, self.scores, self.pixels = [], 0, 0, 0


def polygonize(
    read: Callable[[int, int], Rows],
    shape: tuple[int, int],
    skip: frozenset[int],
    *,
    read_scores: Callable[[int, int], NDArray[np.float32]] | None = None,
    band_pixels: int = 2**20,
    max_vertices: int = 250_000,
) -> Iterator[Region]:
    """The 4-connected regions of equal value.

    Args:
        read: returns rows `top` to `bottom` (exclusive) of the map, `(rows, W)`.
        shape: (H, W) of the map.
        skip: values without polygons.
        read_scores: returns the scores of the pixels of some rows, `(rows, W)`.
        band_pixels: pixels per band.
        max_vertices: limit for the vertices of all open objects together. Beyond it, objects are
            split at the seam, the largest first, which bounds the memory for objects that span
            the whole scene.
    """
    height, width = shape
    band_rows = max(1, band_pixels // width)
    open_objects: dict[int, _OpenObject] = {}
    above: Owners = np.full(width, NO_OBJECT, dtype=np.int64)
    last_row: Rows = np.zeros(width, dtype=np.uint8)
    numbers = itertools.count()
    for top in range(0, height, band_rows):
        bottom = min(top + band_rows, height)
        values = read(top, bottom)
        at_top: Owners = np.full(width, NO_OBJECT, dtype=np.int64)
        at_bottom: Owners = np.full(width, NO_OBJECT, dtype=np.int64)
        mask = ~np.isin(values, list(skip))
        transform = Affine.translation(0, top)
        found = list(shapes(values, mask, connectivity=4, transform=transform))
        scores = [math.nan] * len(found)
        if read_scores is not None and found:
            outlines = [geometry for geometry, _ in found]
            scores = _mean_scores(outlines, read_scores(top, bottom), transform)
        for (geometry, value), score in zip(found, scores, strict=True):
            piece = as_geometry(geometry)
            _, upper, _, lower = piece.bounds
            at_upper_seam, at_lower_seam = upper == top > 0, lower == bottom < height
            if not (at_upper_seam or at_lower_seam):
                yield Region(int(value), piece, score)
                continue
            number = next(numbers)
            open_objects[number] = _OpenObject(int(value))
            open_objects[number].add(piece, score)
            if at_upper_seam:
                _claim(at_top, piece, top, number)
            if at_lower_seam:
                _claim(at_bottom, piece, bottom, number)
        meet = (above != NO_OBJECT) & (at_top != NO_OBJECT) & (last_row == values[0])
        pairs = np.unique(np.stack([above[meet], at_top[meet]]), axis=1)
        joined = _join(open_objects, pairs)
        above = _renamed(at_bottom, joined)
        continuing = set(np.unique(above).tolist())
        for number in [number for number in open_objects if number not in continuing]:
            yield from open_objects.pop(number).close()
        while sum(one.vertices for one in open_objects.values()) > max_vertices:
            yield from max(open_objects.values(), key=lambda one: one.vertices).close()
        last_row = values[-1].copy()


def _mean_scores(
    outlines: list[Any], scores: NDArray[np.float32], transform: Affine
) -> list[float]:
    """The mean score of the pixels in each of several outlines that do not overlap."""
    numbered = zip(outlines, range(1, len(outlines) + 1), strict=True)
    owners = rasterize(numbered, scores.shape, transform=transform, dtype=np.int32).ravel()
    pixels = np.bincount(owners, minlength=len(outlines) + 1)[1:]
    sums = np.bincount(owners, scores.ravel(), minlength=len(outlines) + 1)[1:]
    means: list[float] = (sums / pixels).tolist()
    return means


def _claim(owners: Owners, piece: Polygon, row: int, number: int) -> None:
    """Set `number` in the columns where the piece's outline runs along the seam at `row`."""
    corners = shapely.get_coordinates(piece.exterior)
    on_seam = (corners[:-1, 1] == row) & (corners[1:, 1] == row)
    for one, two in zip(corners[:-1][on_seam, 0], corners[1:][on_seam, 0], strict=True):
        owners[int(min(one, two)) : int(max(one, two))] = number


def _join(open_objects: dict[int, _OpenObject], pairs: Owners) -> dict[int, int]:
    """Merge pairs of objects (2, N); maps each removed number to the remaining one."""
    joined: dict[int, int] = {}

    def root(number: int) -> int:
        while number in joined:
            number = joined[number]
        return number

    for one, two in pairs.T.tolist():
        small, large = sorted((root(one), root(two)), key=lambda n: len(open_objects[n].pieces))
        if small == large:
            continue
        open_objects[large].join(open_objects.pop(small))
        joined[small] = large
    return {number: root(number) for number in joined}


def _renamed(owners: Owners, joined: dict[int, int]) -> Owners:
    numbers, inverse = np.unique(owners, return_inverse=True)
    return np.array([joined.get(n, n) for n in numbers.tolist()], dtype=np.int64)[inverse]
