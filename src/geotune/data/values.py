"""From the values in label files to class indices."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geotune.types import IGNORE, GeotuneError

UNKNOWN = -1
"""The index of a value that stands for no class."""

Mask = NDArray[np.int64]


@dataclass(frozen=True)
class ClassValues:
    """Which value in a label file stands for which class.

    Attributes:
        classes: names, in the order of their indices.
        values: the value of each class.
        ignored: values that are not counted.
        also: further values, each with the index of its class.
    """

    classes: tuple[str, ...]
    values: tuple[int, ...]
    ignored: tuple[int, ...]
    also: tuple[tuple[int, int], ...] = ()

    @staticmethod
    def of(
        classes: Sequence[str],
        class_values: Mapping[str, int | Sequence[int]] | None = None,
        ignore_values: Sequence[int] = (IGNORE,),
    ) -> ClassValues:
        """The values of `classes`, one or more of each, by default their indices.

        A value that a class has is counted even if it is among `ignore_values`. Raises
        `GeotuneError` where `class_values` and `classes` do not name the same or a value stands
        for two classes.
        """
        if class_values is not None:
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
        numbers = [
            (i,) if class_values is None else _several(class_values[name], name)
            for i, name in enumerate(classes)
        ]
        every = [value for of_one in numbers for value in of_one]
        if len(set(every)) != len(every):
            twice = next(value for value in every if every.count(value) > 1)
            names = [
                name
                for name, of_one in zip(classes, numbers, strict=True)
                for value in of_one
                if value == twice
            ]
            raise GeotuneError(
                f"data.class_values: {twice} stands for {' and for '.join(names)}; "
                "give each class its own value"
            )
        return ClassValues(
            tuple(classes),
            tuple(of_one[0] for of_one in numbers),
            tuple(value for value in ignore_values if value not in every),
            tuple((value, i) for i, of_one in enumerate(numbers) for value in of_one[1:]),
        )

    @property
    def every(self) -> dict[int, int]:
        """The index of its class by each value."""
        return {value: i for i, value in enumerate(self.values)} | dict(self.also)

    def indices(self, raw: NDArray[Any], nodata: float | None = None) -> Mask:
        """Class indices of raw values; `IGNORE` for what is not counted, `UNKNOWN` for the rest.

        `nodata` and NaN are not counted, unless nodata is a class's value.
        """
        known = {value: IGNORE for value in self.ignored}
        if nodata is not None and np.isfinite(nodata):
            known[nodata] = IGNORE  # type: ignore[index]  # a float key equals its integer
        known.update(self.every)
        keys = np.array(sorted(known), dtype=np.float64)
        targets = np.array([known[key] for key in sorted(known)], dtype=np.int64)
        place = np.minimum(np.searchsorted(keys, raw), len(keys) - 1)
        found = np.where(keys[place] == raw, targets[place], UNKNOWN)
        if raw.dtype.kind == "f":
            found[np.isnan(raw)] = IGNORE
        return found

    def index_of(self, value: object) -> int:
        """Class index of a vector label's attribute: a class's name (in any case) or value.

        `IGNORE` for a value that is not counted, `UNKNOWN` for the rest.
        """
        if isinstance(value, str):
            text = value.strip().casefold()
            for i, name in enumerate(self.classes):
                if name.casefold() == text:
                    return i
            try:
                value = float(text)
            except ValueError:
                return UNKNOWN
        if isinstance(value, (int, float, np.number)):
            for number, i in self.every.items():
                if number == value:
                    return i
            if value in self.ignored:
                return IGNORE
        return UNKNOWN

    def describe(self, write: Callable[[float], str] = "{:g}".format) -> str:
        """The classes with their values as `write` puts them, for messages."""
        return ", ".join(
            f"{name} ({', '.join(write(v) for v, of in self.every.items() if of == i)})"
            for i, name in enumerate(self.classes)
        )


def _several(values: int | Sequence[int], name: str) -> tuple[int, ...]:
    found = (values,) if isinstance(values, int) else tuple(values)
    if not found:
        raise GeotuneError(f"data.class_values: has no value for {name}; give one at least")
    return found
