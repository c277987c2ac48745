"""From the values in label files to class indices."""

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
"""The index of a value that stands for no class."""

Mask = NDArray[np.int16]
"""Class indices, `IGNORE` and `UNKNOWN`."""

Value = int | str
ClassValueSpec = Mapping[str, Value | Sequence[Value]]
"""Class name to its value in the labels, or its values: numbers, or text in vector files."""


@dataclass(frozen=True)
class ClassMapping:
    """Which value in a label file stands for which class.

    Attributes:
        classes: names, in the order of their indices.
        values: those of each class.
        ignored: values that are not counted.
    """

    classes: tuple[str, ...]
    values: tuple[tuple[Value, ...], ...]
    ignored: tuple[int, ...]

    @staticmethod
    def of(
        classes: Sequence[str],
        class_values: ClassValueSpec | None = None,
        ignore_values: Sequence[int] = (IGNORE,),
    ) -> ClassMapping:
        """The values of `classes`, by default their indices.

        A value that a class has is counted even if it is among `ignore_values`. Raises
        `GeotuneError` where `class_values` and `classes` do not name the same or a value stands
        for two classes.
        """
        if class_values is None:
            values: tuple[tuple[Value, ...], ...] = tuple((i,) for i in range(len(classes)))
        else:
            for name in class_values:
                if name not in classes:
                    near = difflib.get_close_matches(name, classes, n=1)
                    hint = f"; did you mean {near[0]}?" if near else ""
                    raise GeotuneError(
                        f"data.class_values: {name!r} is no class; "
                        f"the classes are {', '.join(classes)}{hint}"
                    )
            without = [name for name in classes if name not in class_values]
            if without:
                raise GeotuneError(
                    f"data.class_values: has no value for {', '.join(without)}; "
                    "give one for each of task.classes"
                )
            values = tuple(_listed(class_values[name]) for name in classes)
            # polygons may name a class itself, whatever else stands for it
            owners: dict[Value, str] = {_plain(name): name for name in classes}
            for name, own in zip(classes, values, strict=True):
                for value in map(_plain, own):
                    if owners.get(value, name) != name:
                        raise GeotuneError(
                            f"data.class_values: {value} stands for {owners[value]} and for {name};"
                            " give each value to one class"
                        )
                    owners[value] = name
        numbers = {value for own in values for value in own}
        return ClassMapping(
            tuple(classes), values, tuple(v for v in ignore_values if v not in numbers)
        )

    @property
    def numbers(self) -> dict[int, int]:
        """Class index by number, of the values that are numbers."""
        return {
            value: i
            for i, own in enumerate(self.values)
            for value in own
            if not isinstance(value, str)
        }

    def indices(self, raw: NDArray[Any], nodata: float | None = None) -> Mask:
        """Class indices of raw values; `IGNORE` for what is not counted, `UNKNOWN` for the rest.

        `nodata` and NaN are not counted, unless nodata is a class's value.
        """
        if raw.dtype.kind in "ui" and raw.dtype.itemsize <= 2:  # looked up several times as fast
            unsigned = np.dtype(f"u{raw.dtype.itemsize}")
            looked_up: Mask = _table(self, raw.dtype.str, nodata).take(raw.view(unsigned))
            return looked_up
        return self._searched(raw, nodata)

    def _searched(self, raw: NDArray[Any], nodata: float | None) -> Mask:
        known = {value: IGNORE for value in self.ignored}
        if nodata is not None and np.isfinite(nodata):
            known[nodata] = IGNORE  # type: ignore[index]  # a float key equals its integer
        known.update(self.numbers)
        keys = np.array(sorted(known), dtype=np.float64)
        targets = np.array([known[key] for key in sorted(known)], dtype=np.int16)
        place = np.minimum(np.searchsorted(keys, raw), len(keys) - 1)
        found: Mask = np.where(keys[place] == raw, targets[place], np.int16(UNKNOWN))
        if raw.dtype.kind == "f":
            found[np.isnan(raw)] = IGNORE
        return found

    def index_of(self, value: object) -> int:
        """Class index of a vector label's attribute: a class's name (in any case) or value.

        `IGNORE` for a value that is not counted, `UNKNOWN` for the rest.
        """
        if isinstance(value, str):
            text = _plain(value)
            for i, (name, own) in enumerate(zip(self.classes, self.values, strict=True)):
                if text == _plain(name) or text in map(_plain, own):
                    return i
            try:
                value = float(text)
            except ValueError:
                return UNKNOWN
        if isinstance(value, (int, float, np.number)):
            found = self.numbers.get(value)  # type: ignore[arg-type]  # a float equals its integer
            if found is not None:
                return found
            if value in self.ignored:
                return IGNORE
        return UNKNOWN

    def describe(self) -> str:
        """The classes with their values, for messages."""
        return ", ".join(
            f"{name} ({' or '.join(map(str, own))})"
            for name, own in zip(self.classes, self.values, strict=True)
        )


@functools.lru_cache(maxsize=64)
def _table(values: ClassMapping, dtype: str, nodata: float | None) -> Mask:
    """The index of every value of a type of one or two bytes, by the unsigned number it is."""
    kind = np.dtype(dtype)
    every = np.arange(2 ** (8 * kind.itemsize), dtype=f"u{kind.itemsize}").view(kind)
    return values._searched(every, nodata)


def _listed(said: Value | Sequence[Value]) -> tuple[Value, ...]:
    return (said,) if isinstance(said, int | str) else tuple(said)


def _plain(value: Value) -> Any:
    """Text in any case and without spaces around it; a number as it is."""
    return value.strip().casefold() if isinstance(value, str) else value
