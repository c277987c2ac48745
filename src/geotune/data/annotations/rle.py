"""COCO's run-length encoded masks, without rasterising them.

Counts alternate between pixels outside and inside the mask, column by column. In compressed form
each count is a base-32 number, five bits per character with the lowest bits first; from the third
on, it is the difference from the count before the previous one (pycocotools' `rleFrString`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geotune.data.annotations.parsing import box_corners


def decode_counts(text: str) -> list[int]:
    """Decode the counts of a compressed mask. Raises `ValueError` for invalid text."""
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"invalid character {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if shift > 40:
            raise ValueError("a count exceeds the pixels of any image")
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value, shift = 0, 0
    if shift:
        raise ValueError("truncated count")
    return counts


def mask_corners(counts: Sequence[int], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Corners `(n, 2)` of pixels whose convex hull is that of a mask of `shape` (H, W).

    At most twelve per run of pixels. Raises `ValueError` for counts that do not fill the mask.
    """
    lengths = np.array(counts, dtype=np.int64)
    if (lengths < 0).any() or lengths.sum() != shape[0] * shape[1]:
        raise ValueError(f"counts do not fill {shape[0]}x{shape[1]} pixels")
    ends = np.cumsum(lengths)[1::2]
    starts = ends - lengths[1::2]
    nonempty = ends > starts
    height = shape[0]
    corners = []
    for start, end in zip(starts[nonempty], ends[nonempty], strict=True):
        (first, top), (last, bottom) = divmod(start, height), divmod(end - 1, height)
        if first == last:
            corners.append(box_corners(first, top, first + 1, bottom + 1))
            continue
        corners.append(box_corners(first, top, first + 1, height))
        corners.append(box_corners(first + 1, 0, max(last, first + 1), height))
        corners.append(box_corners(last, 0, last + 1, bottom + 1))
    return np.concatenate(corners) if corners else box_corners(0, 0, 0, 0)
