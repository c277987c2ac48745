"""Amounts of memory and disk, as people write them."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

_UNITS: dict[str, int] = {
    unit: base**power
    for base, units in ((1000, "B KB MB GB TB"), (1024, "B KIB MIB GIB TIB"))
    for power, unit in enumerate(units.split())
}


def parse_size(value: Any) -> int:
    """Bytes of `8 GB`, `8GiB`, `8000MB` or a number of bytes. Raises `ValueError` for others.

    A number without a unit that would be less than a megabyte is refused: its unit was forgotten.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(value))
    unit = found[2].upper() or "B" if found else ""
    if found is None or unit not in _UNITS or not float(found[1]):
        raise ValueError(f"found {value!r}, expected an amount such as 8GB, 8 GiB or 8000MB")
    size = round(float(found[1]) * _UNITS[unit])
    if not found[2] and size < _UNITS["MB"]:
        raise ValueError(f"found {value!r}, which has no unit; expected 8GB, 8 GiB or 8000MB")
    return size


Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(lambda size: f"{size}B")]
"""Bytes in a recipe; written with their unit, so that what was read is read again."""
