"""Run-length encoded masks of COCO, without drawing them.

A mask is read column by column; the counts are of pixels outside, inside, outside and so on. As
text each count is a number in base 32, five bits a character from the lowest on, and from the
third on it is the difference to the last but one (pycocotools' `rleFrString`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geotune.data.annotations.outlines import box_corners


def decode_counts(text: str) -> list[int]:
    """The counts of a compressed mask. Raises `ValueError` for text that is none."""
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"holds the character {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if shift > 40:
            raise ValueError("holds a count above any image's pixels")
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value, shift = 0, 0
    if shift:
        raise ValueError("ends within a count")
    return counts


def mask_corners(counts: Sequence[int], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Corners `(n, 2)` of the pixels in a mask of `shape` (H, W), so that their hull is its own.

    At most twelve of a run, however large the mask. Raises `ValueError` for counts that do not fill
    the mask.
    """
    lengths = np.array(counts, dtype=np.int64)
    if (lengths < 0).any() or lengths.sum() != shape[0] * shape[1]:
        raise ValueError(f"its counts do not fill {shape[0]}x{shape[1]} pixels")
    ends = np.cumsum(lengths)[1::2]
    starts = ends - lengths[1::2]
    there = ends > starts
    height = shape[0]
    corners = []
    for start, end in zip(starts[there], ends[there], strict=True):
        (first, top), (last, bottom) = divmod(start, height), divmod(end - 1, height)
        if first == last:
            corners.append(box_corners(first, top, first + 1, bottom + 1))
            continue
        corners.append(box_corners(first, top, first + 1, height))
        corners.append(box_corners(first + 1, 0, max(last, first + 1), height))
        corners.append(box_corners(last, 0, last + 1, bottom + 1))
    return np.concatenate(corners) if corners else box_corners(0, 0, 0, 0)
