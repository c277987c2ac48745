"""Reading text files and CSVs, with line numbers for messages."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geotune.errors import GeotuneError


def read_text(path: Path) -> str:
    """Read a file. Raises `GeotuneError` if that fails or it is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise GeotuneError(
            f"{path}: cannot be read ({error.strerror}); check data.labels",
            code="file-missing" if isinstance(error, FileNotFoundError) else "file-unreadable",
            key="data.labels",
            file=path,
        ) from error
    except UnicodeDecodeError as error:
        raise GeotuneError(
            f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8, or check data.labels",
            code="file-unreadable",
            key="data.labels",
            file=path,
        ) from error


def read_words(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield `line 3` and its words for each line that is not blank."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if words := line.split():
            yield f"line {number}", words


def read_csv(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield `line 3` and its cells for each row that is not blank.

    Raises `GeotuneError` if the file cannot be read.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield f"line {reader.line_num}", row
    except csv.Error as error:
        raise GeotuneError(
            f"{path}: cannot be read as CSV ({error}); write it again",
            code="file-unreadable",
            file=path,
        ) from error


def parse_numbers(words: Sequence[object], path: Path, where: str) -> NDArray[np.float64]:
    """Parse numbers. Raises `GeotuneError` with `where`, such as `line 3`, for anything else."""
    problem = ""
    try:
        if any(isinstance(word, bool) for word in words):
            raise ValueError
        numbers = np.array([float(word) for word in words])  # type: ignore[arg-type]  # caught below
        if np.isfinite(numbers).all():
            return numbers
        problem = ", of which one is not finite; correct or remove it"
    except (TypeError, ValueError, OverflowError):
        pass
    text = " ".join(str(word) for word in words)
    raise GeotuneError(
        f"{path}: {where}: found {text[:80]!r}, expected {len(words)} numbers{problem}",
        code="row-invalid",
        file=path,
    )
