"""Reading files of text: what is in them, by line, and the numbers there."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geotune.errors import GeotuneError


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


def rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Of each row of a CSV that is not empty its place, `line 3`, and its cells.

    Raises `GeotuneError` where it cannot be read.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield f"line {reader.line_num}", row
    except csv.Error as error:
        raise GeotuneError(f"{path}: cannot be read as a CSV ({error}); write it anew") from error


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
