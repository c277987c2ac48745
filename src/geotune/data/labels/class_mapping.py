"""Mapping of the values in label files to class indices."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geotune.errors import GeotuneError
from geotune.types import IGNORE

UNKNOWN = -1
"""The index of a value that maps to no class."""

IndexMap = NDArray[np.int16]
"""Class indices, `IGNORE` and `UNKNOWN`."""

ClassValue = int | str
ClassValueSpec = Mapping[str, ClassValue | Sequence[ClassValue]]
"""The value or values of each class: numbers, or text in vector files."""


@dataclass(frozen=True)
class ClassMapping:
    """Which values in a label file map to which class.

    Attributes:
        classes: names, in the order of their indices.
        values: of each class.
        ignored: values that are neither trained on nor counted.
    """

    classes: tuple[str, ...]
    values: tuple[tuple[ClassValue, ...], ...]
    ignored: tuple[int, ...]

    @staticmethod
    def from_spec(
        classes: Sequence[str],
        class_values: ClassValueSpec | None = None,
        ignore_values: Sequence[int] = (IGNORE,),
    ) -> ClassMapping:
        """The mapping of `class_values`; by default a class's value is its index.

        A value of a class is never ignored. Raises `GeotuneError` if `class_values` and `classes`
        have different names, or a value maps to two classes.
        """
        if class_values is None:
            values: tuple[tuple[ClassValue, ...], ...] = tuple((i,) for i in range(len(classes)))
        else:
            _check_names(classes, class_values)
            values = tuple(_as_tuple(class_values[name]) for name in classes)
            _check_unique(classes, values)
        used = {value for of_class in values for value in of_class}
        ignored = tuple(value for value in ignore_values if value not in used)
        return ClassMapping(tuple(classes), values, ignored)

    @property
    def index_by_number(self) -> dict[int, int]:
        """Class index by value, of the values that are numbers."""
        return {
            value: i
            for i, of_class in enumerate(self.values)
            for value in of_class
            if not isinstance(value, str)
        }

    def indices(self, raw: NDArray[Any], nodata: float | None = None) -> IndexMap:
        """Class indices of raw values, `IGNORE` for ignored ones, `UNKNOWN` for others.

        `nodata`, unless it is a class's value, and NaN are ignored.
        """
        if raw.dtype.kind in "ui" and raw.dtype.itemsize <= 2:  # a table is several times faster
            unsigned = np.dtype(f"u{raw.dtype.itemsize}")
            looked_up: IndexMap = _table(self, raw.dtype.str, nodata).take(raw.view(unsigned))
            return looked_up
        return self._search(raw, nodata)

    def _search(self, raw: NDArray[Any], nodata: float | None) -> IndexMap:
        known = {value: IGNORE for value in self.ignored}
        if nodata is not None and np.isfinite(nodata):
            known[nodata] = IGNORE  # type: ignore[index]  # a float key equals its integer
        known.update(self.index_by_number)
        keys = np.array(sorted(known), dtype=np.float64)
        targets = np.array([known[key] for key in sorted(known)], dtype=np.int16)
        position = np.minimum(np.searchsorted(keys, raw), len(keys) - 1)
        indices: IndexMap = np.where(keys[position] == raw, targets[position], np.int16(UNKNOWN))
        if raw.dtype.kind == "f":
            indices[np.isnan(raw)] = IGNORE
        return indices

    def index_of(self, value: object) -> int:
        """Class index of an attribute of vector labels: a class's name (in any case) or value.

        `IGNORE` for an ignored value, `UNKNOWN` for others.
        """
        if isinstance(value, str):
            text = _normalise(value)
            for i, (name, of_class) in enumerate(zip(self.classes, self.values, strict=True)):
                if text == _normalise(name) or text in map(_normalise, of_class):
                    return i
            try:
                value = float(text)
            except ValueError:
                return UNKNOWN
        if isinstance(value, (int, float, np.number)):
            index = self.index_by_number.get(value)  # type: ignore[arg-type]  # a float equals its integer
            if index is not None:
                return index
            if value in self.ignored:
                return IGNORE
        return UNKNOWN

    def describe(self) -> str:
        """The classes with their values, for messages."""
        return ", ".join(
            f"{name} ({' or '.join(map(str, of_class))})"
            for name, of_class in zip(self.classes, self.values, strict=True)
        )


@functools.lru_cache(maxsize=64)
def _table(mapping: ClassMapping, dtype: str, nodata: float | None) -> IndexMap:
    """Lookup table for a type of one or two bytes: bits of a value as unsigned integer to index."""
    kind = np.dtype(dtype)
    values = np.arange(2 ** (8 * kind.itemsize), dtype=f"u{kind.itemsize}").view(kind)
    return mapping._search(values, nodata)


def _check_names(classes: Sequence[str], class_values: ClassValueSpec) -> None:
    problem = None
    unknown = [name for name in class_values if name not in classes]
    missing = [name for name in classes if name not in class_values]
    if unknown:
        near = difflib.get_close_matches(unknown[0], classes, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        problem = f"{unknown[0]!r} is not a class; the classes are {', '.join(classes)}{hint}"
    elif missing:
        problem = f"has no value for {', '.join(missing)}; give one for each of task.classes"
    if problem is not None:
        raise GeotuneError(
            f"data.class_values: {problem}", code="class-values", key="data.class_values"
        )


def _check_unique(classes: Sequence[str], values: Sequence[Sequence[ClassValue]]) -> None:
    # attributes of polygons may always be class names, whatever other values a class has
    owners: dict[ClassValue, str] = {_normalise(name): name for name in classes}
    for name, of_class in zip(classes, values, strict=True):
        for value in map(_normalise, of_class):
            if owners.get(value, name) != name:
                raise GeotuneError(
                    f"data.class_values: {value} maps to {owners[value]} and to {name}; "
                    "assign each value to one class",
                    code="class-values",
                    key="data.class_values",
                )
            owners[value] = name


def _as_tuple(values: ClassValue | Sequence[ClassValue]) -> tuple[ClassValue, ...]:
    return (values,) if isinstance(values, int | str) else tuple(values)


def _normalise(value: ClassValue) -> Any:
    """Text in lower case without surrounding spaces; numbers unchanged."""
    return value.strip().casefold() if isinstance(value, str) else value
