"""Reading the text of annotation files, and numbers and outlines in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from geotune.types import GeotuneError

CROSSES = "outlines that cross themselves, taken as the box around all their corners"
"""The remark on such an annotation."""


def read_text(path: Path) -> str:
    """A file's text. Raises `GeotuneError` where it cannot be read or is no UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise GeotuneError(
            f"{path}: cannot be read ({error.strerror}); mend data.labels"
        ) from error
    except UnicodeDecodeError as error:
        raise GeotuneError(
            f"{path}: is no text in UTF-8 (byte {error.start}); write it anew, or mend data.labels"
        ) from error


def lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Of each line that is not empty its place, `line 3`, and its words."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if words := line.split():
            yield f"line {number}", words


def numbers(words: Sequence[object], path: Path, place: str) -> NDArray[np.float64]:
    """Numbers of a file. Raises `GeotuneError` that names the place for what is none."""
    try:
        if any(isinstance(word, bool) for word in words):
            raise ValueError
        return np.array([float(word) for word in words])  # type: ignore[arg-type]  # see below
    except (TypeError, ValueError, OverflowError):
        text = " ".join(str(word) for word in words)
        raise GeotuneError(
            f"{path}: {place}: found {text[:80]!r}, expected {len(words)} numbers"
        ) from None


def rectangle(left: float, top: float, right: float, bottom: float) -> NDArray[np.float64]:
    """Two corners of a horizontal box say where it is, but four what an oriented one is."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def crossing(points: NDArray[np.float64]) -> bool:
    """Whether an outline `(n, 2)` crosses itself; what has no area does not."""
    if len(points) < 4 or not np.isfinite(points).all():
        return False
    outline = shapely.LinearRing(points)
    return not outline.is_simple and bool(shapely.convex_hull(outline).area > 0)
