"""Attributes of vector labels and point tables that may hold a class, but are not read."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas

from geotune.data.labels.class_mapping import as_integer
from geotune.data.labels.vector_io import attribute_columns, read_features
from geotune.data.text_io import read_csv

Attributes = Mapping[str, Counter[str]]
"""How often each value of an attribute occurs, by attribute; `""` for a missing value."""

MAX_VALUES = 20
"""An attribute with more values is no class."""

IDENTIFIERS = ("id", "fid", "gid", "objectid", "ogc_fid")


def unread_attributes(path: Path, read: Sequence[str] = ()) -> Attributes:
    """Text and integer attributes of few values in a vector file or CSV, other than those read.

    Args:
        path: a file that was read as labels before.
        read: lower-case names of the attributes that are read.
    """
    attributes = _attributes(path, path.stat().st_mtime_ns)
    return {name: counts for name, counts in attributes.items() if name.lower() not in read}


def possible_classes(
    files: Iterable[Attributes], class_names: Iterable[str]
) -> dict[str, Counter[str]]:
    """The attributes of a data set that look like a class.

    Text is, if it has a class's name among others, or if it repeats and varies within a file;
    numbers are, if they repeat and vary within a file.
    """
    by_name: dict[str, list[Counter[str]]] = {}
    for attributes in files:
        for name, counts in attributes.items():
            by_name.setdefault(name, []).append(counts)
    names = {name.strip().casefold() for name in class_names}
    return {
        name: sum(counts, Counter()) for name, counts in by_name.items() if _is_class(counts, names)
    }


def _is_class(files: Sequence[Counter[str]], class_names: set[str]) -> bool:
    total = sum(files, Counter[str]())
    if not 2 <= len(total) <= MAX_VALUES:
        return False
    if class_names & {value.strip().casefold() for value in total}:
        return True
    if all(as_integer(value) is not None for value in total if value):
        return any(2 <= len(counts) < counts.total() for counts in files)
    return len(total) < total.total() and any(len(counts) > 1 for counts in files)


@functools.lru_cache(maxsize=1)  # many scenes may share one file
def _attributes(path: Path, mtime_ns: int) -> Attributes:
    if path.suffix.lower() in (".csv", ".txt"):
        (_, header), *rows = [*read_csv(path)] or [("", [])]
        cells = [row for _, row in rows]
        columns = {
            name.strip(): pandas.Series([row[i] for row in cells], dtype=object)
            for i, name in enumerate(header)
            if name.strip().lower() not in ("x", "y")
        }
    else:
        frame = read_features(path)
        columns = {name: frame[name] for name in attribute_columns(frame)}
    counted = {
        name: _count(values)
        for name, values in columns.items()
        if name.lower() not in IDENTIFIERS and values.dtype.kind not in "mM"
    }
    return {name: counts for name, counts in counted.items() if 0 < len(counts) <= MAX_VALUES}


def _count(values: pandas.Series[object]) -> Counter[str]:
    """The values as text; none for fractions."""
    present = values.notna() & (values != "")
    numbers = pandas.to_numeric(values[present], errors="coerce")
    if numbers.notna().all() and (numbers % 1 != 0).any():
        return Counter()
    texts = [
        str(value if (number := as_integer(value)) is None else number)
        for value in values[present].tolist()
    ]
    missing = int(np.count_nonzero(~present))
    return Counter(texts) + Counter({"": missing})
