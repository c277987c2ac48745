"""Mapping of the values in label files to class indices."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geotune.errors import GeotuneError
from geotune.types import IGNORE
from geotune.utils.text import did_you_mean, nfc

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
        explicit: whether the user gave the values of the classes.
        ignores_default: whether the user did not give the ignored values.
    """

    classes: tuple[str, ...]
    values: tuple[tuple[ClassValue, ...], ...]
    ignored: tuple[int, ...]
    explicit: bool = False
    ignores_default: bool = False

    @staticmethod
    def from_spec(
        classes: Sequence[str],
        class_values: ClassValueSpec | None = None,
        ignore_values: Sequence[int] | None = None,
        *,
        by_index: bool = False,
    ) -> ClassMapping:
        """The mapping of `class_values`.

        By default a class's value is the number that it is named by, else its index; with
        `by_index` always its index. Text that is a number equals that number. `IGNORE` is
        ignored by default; a value of a class never is. Raises `GeotuneError` if `class_values` and
        `classes` have different names, or a value maps to two classes.
        """
        if class_values is None:
            numbers = [None if by_index else as_integer(name) for name in classes]
            values: tuple[tuple[ClassValue, ...], ...] = tuple(
                (i if number is None else number,) for i, number in enumerate(numbers)
            )
        else:
            written = {nfc(name): name for name in classes}
            class_values = {written.get(nfc(k), k): value for k, value in class_values.items()}
            _check_names(classes, class_values)
            values = tuple(_as_tuple(class_values[name]) for name in classes)
        _check_unique(classes, values)
        used = {value for of_class in values for value in of_class}
        candidates = (IGNORE,) if ignore_values is None else ignore_values
        return ClassMapping(
            tuple(classes),
            values,
            tuple(value for value in candidates if value not in used),
            explicit=class_values is not None,
            ignores_default=ignore_values is None,
        )

    @functools.cached_property
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
        """Class index of an attribute of vector labels: a class's value or name (in any case).

        A number and its text map to the same class: the one that has it as value, else the one
        named by it. `IGNORE` for an ignored value, `UNKNOWN` for others.
        """
        number = as_integer(value)
        if number is not None and number in self.index_by_number:
            return self.index_by_number[number]
        text = _normalise(value) if isinstance(value, str) else None
        for i, (name, of_class) in enumerate(zip(self.classes, self.values, strict=True)):
            if text is not None and text in map(_normalise, (name, *of_class)):
                return i
            if number is not None and number == as_integer(name):
                return i
        return IGNORE if number in self.ignored else UNKNOWN

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
        hint = did_you_mean(unknown[0], classes)
        problem = f"{unknown[0]!r} is not a class; the classes are {', '.join(classes)}{hint}"
    elif missing:
        problem = f"has no value for {', '.join(missing)}; give one for each of task.classes"
    if problem is not None:
        raise GeotuneError(
            f"data.class_values: {problem}", code="class-values", key="data.class_values"
        )


def _check_unique(classes: Sequence[str], values: Sequence[Sequence[ClassValue]]) -> None:
    # attributes of polygons may always be class names, whatever other values a class has;
    # names that are numbers are looked up after the values
    owners: dict[ClassValue, str] = {
        _normalise(name): name for name in classes if as_integer(name) is None
    }
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
    """The values of a class; text that is a number as that number."""
    several = (values,) if isinstance(values, int | str) else values
    return tuple(value if (n := as_integer(value)) is None else n for value in several)


def as_integer(value: object) -> int | None:
    """An integer, or text such as `7`, `07` or `7.0`; None for anything else."""
    if isinstance(value, int):
        return int(value)
    if not isinstance(value, (str, float, np.number)):
        return None
    if isinstance(value, str) and ("_" in value or not value.isascii()):
        return None  # text such as 1_2, which Python reads as 12
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def _normalise(value: ClassValue) -> Any:
    """Text in lower case without surrounding spaces; numbers unchanged."""
    if not isinstance(value, str):
        return value
    return unicodedata.normalize("NFC", value).strip().casefold()
