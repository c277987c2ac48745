"""A picture of predictions beside their images, from the examples of a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from geotune.report.from_run import Examples
from geotune.report.images import Picture

SIDE = 256
"""Pixels of the longer side of each picture, at least."""

_GAP = 8


def write_picture(path: Path, examples: Path) -> list[str]:
    """Draw the best and the worst window of `examples.npz`, one below the other.

    Returns the titles of the pictures of a row, from left to right; empty without examples, and
    then no file is written. Raises `GeotuneError` if the examples cannot be read.
    """
    found = Examples.load(examples)
    chosen = [*found.best[:1], *found.worst[:1]]
    if not chosen:
        return []
    titles = list(chosen[0].pictures)
    rows = [
        _beside([_enlarged(example.pictures[title]) for title in titles])
        for example in chosen
        if list(example.pictures) == titles
    ]
    Image.fromarray(_below(rows)).save(path, optimize=True)
    return titles


def _enlarged(picture: Picture) -> Picture:
    factor = max(1, -(-SIDE // max(picture.shape[:2])))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def _beside(pictures: Sequence[Picture]) -> Picture:
    height = max(len(picture) for picture in pictures)
    padded = [
        np.pad(p, ((0, height - len(p)), (0, _GAP), (0, 0)), constant_values=255) for p in pictures
    ]
    return np.concatenate(padded, axis=1)[:, :-_GAP]


def _below(rows: Sequence[Picture]) -> Picture:
    width = max(row.shape[1] for row in rows)
    padded = [
        np.pad(r, ((0, _GAP), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows
    ]
    return np.concatenate(padded)[:-_GAP]
