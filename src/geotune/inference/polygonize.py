"""Turning a map of classes into polygons without holding the map or all polygons.

The map is read in bands of whole rows. What touches the seam between two bands waits until it
is complete: pieces are joined where pixels of one class meet across the seam.

    band 0   ....AAAA....BB...    A and B wait: they touch the seam
             ----|--|----||---
    band 1   ....AAAAAAAABB...    A ends here: its pieces are united and handed on
             ------------||---    B waits on
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import shapes
from rasterio.transform import Affine
from shapely import Polygon
from shapely.geometry import shape as as_geometry

Rows = NDArray[np.uint8]
Owners = NDArray[np.int64]

NO_OBJECT = -1


@dataclass
class _OpenObject:
    """An object that may go on beyond the seam."""

    value: int
    pieces: list[Polygon] = field(default_factory=list)
    vertices: int = 0

    def add(self, piece: Polygon) -> None:
        self.pieces.append(piece)
        self.vertices += shapely.get_num_coordinates(piece)

    def close(self) -> Iterator[tuple[int, Polygon]]:
        """The object's polygon; several where it was cut before and its rest falls apart."""
        if len(self.pieces) == 1:
            yield self.value, self.pieces[0]
        elif self.pieces:
            # corners on the seam that are none in the whole
            united = shapely.simplify(shapely.union_all(self.pieces), 0)
            for part in shapely.get_parts(united):
                yield self.value, part
        self.pieces, self.vertices = [], 0


def polygonize(
    read: Callable[[int, int], Rows],
    shape: tuple[int, int],
    skip: frozenset[int],
    *,
    band_pixels: int = 2**20,
    max_vertices: int = 250_000,
) -> Iterator[tuple[int, Polygon]]:
    """Polygons of a map's 4-connected areas of one value, in pixels (column, row).

    Args:
        read: gives rows `top` to `bottom` (exclusive) of the map, `(rows, W)`.
        shape: (H, W) of the map.
        skip: values without polygons.
        band_pixels: pixels of a band.
        max_vertices: corners that waiting pieces may have together. An object that would need
            more is cut at a seam, the largest first; this is what bounds memory for areas that
            go through a whole scene.
    """
    height, width = shape
    band_rows = max(1, band_pixels // width)
    waiting: dict[int, _OpenObject] = {}
    above: Owners = np.full(width, NO_OBJECT, dtype=np.int64)
    last_row: Rows = np.zeros(width, dtype=np.uint8)
    numbers = itertools.count()
    for top in range(0, height, band_rows):
        bottom = min(top + band_rows, height)
        values = read(top, bottom)
        at_top: Owners = np.full(width, NO_OBJECT, dtype=np.int64)
        at_bottom: Owners = np.full(width, NO_OBJECT, dtype=np.int64)
        counted = ~np.isin(values, list(skip))
        place = Affine.translation(0, top)
        for geometry, value in shapes(values, counted, connectivity=4, transform=place):
            piece = as_geometry(geometry)
            _, upper, _, lower = piece.bounds
            goes_up, goes_down = upper == top > 0, lower == bottom < height
            if not (goes_up or goes_down):
                yield int(value), piece
                continue
            number = next(numbers)
            waiting[number] = _OpenObject(int(value))
            waiting[number].add(piece)
            if goes_up:
                _claim(at_top, piece, top, number)
            if goes_down:
                _claim(at_bottom, piece, bottom, number)
        meet = (above != NO_OBJECT) & (at_top != NO_OBJECT) & (last_row == values[0])
        pairs = np.unique(np.stack([above[meet], at_top[meet]]), axis=1)
        joined = _join(waiting, pairs)
        above = _renamed(at_bottom, joined)
        going_on = set(np.unique(above).tolist())
        for number in [number for number in waiting if number not in going_on]:
            yield from waiting.pop(number).close()
        while sum(one.vertices for one in waiting.values()) > max_vertices:
            yield from max(waiting.values(), key=lambda one: one.vertices).close()
        last_row = values[-1].copy()


def _claim(owners: Owners, piece: Polygon, row: int, number: int) -> None:
    """Write `number` where the piece's outline runs along the seam at `row`."""
    corners = shapely.get_coordinates(piece.exterior)
    on_seam = (corners[:-1, 1] == row) & (corners[1:, 1] == row)
    for one, two in zip(corners[:-1][on_seam, 0], corners[1:][on_seam, 0], strict=True):
        owners[int(min(one, two)) : int(max(one, two))] = number


def _join(waiting: dict[int, _OpenObject], pairs: Owners) -> dict[int, int]:
    """Unite the objects that meet, (2, N); says which number each one that went now goes by."""
    joined: dict[int, int] = {}

    def now(number: int) -> int:
        while number in joined:
            number = joined[number]
        return number

    for one, two in pairs.T.tolist():
        small, large = sorted((now(one), now(two)), key=lambda n: len(waiting[n].pieces))
        if small == large:
            continue
        gone = waiting.pop(small)
        waiting[large].pieces += gone.pieces
        waiting[large].vertices += gone.vertices
        joined[small] = large
    return {number: now(number) for number in joined}


def _renamed(owners: Owners, joined: dict[int, int]) -> Owners:
    known, where = np.unique(owners, return_inverse=True)
    return np.array([joined.get(n, n) for n in known.tolist()], dtype=np.int64)[where]
