"""Lengths and sizes with units, as written in recipes."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

_BYTES: dict[str, int] = {
    unit: base**power
    for base, units in ((1000, "B KB MB GB TB"), (1024, "B KIB MIB GIB TIB"))
    for power, unit in enumerate(units.split())
}


def _nodata(value: float) -> float:
    if math.isinf(value):
        raise ValueError(f"found {value}, expected a number or .nan")
    return math.nan if math.isnan(value) else value  # one object: recipes are compared


def _nodata_text(value: float) -> float | str:
    return "nan" if math.isnan(value) else value


Nodata = Annotated[
    float,
    Field(allow_inf_nan=True),
    AfterValidator(_nodata),
    PlainSerializer(_nodata_text, when_used="json"),  # JSON has no NaN
    WithJsonSchema({"type": "number"}),
]
"""A nodata value; `.nan` for NaN."""


def _length(text: str) -> str:
    if re.fullmatch(r"\d+(\.\d+)? ?(px|m)", text) is None:
        raise ValueError(f"found {text!r}, expected a length such as 3 px or 2 m")
    return text


def _positive_length(text: str) -> str:
    if not float(_length(text).rstrip(" pxm")):
        raise ValueError(f"found {text!r}, expected a length greater than 0")
    return text


def _resolution(value: object) -> object:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?m", value) if isinstance(value, str) else None
    if match is None or not float(match[1]):
        raise ValueError(f"found {value!r}, expected metres per pixel such as 10 m")
    return value


def parse_size(value: Any) -> int:
    """Bytes of `8 GB`, `8GiB`, `8000MB` or a number of bytes.

    Raises `ValueError` for anything else, and for a number below a megabyte without a unit, which
    was probably meant to have one.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(value))
    unit = match[2].upper() or "B" if match else ""
    if match is None or unit not in _BYTES or not float(match[1]):
        raise ValueError(f"found {value!r}, expected a size such as 8GB, 8 GiB or 8000MB")
    size = round(float(match[1]) * _BYTES[unit])
    if not match[2] and size < _BYTES["MB"]:
        raise ValueError(f"found {value!r} without a unit, expected 8GB, 8 GiB or 8000MB")
    return size


_LENGTH = WithJsonSchema({"type": "string", "format": "length"})

Length = Annotated[str, AfterValidator(_length), _LENGTH]
"""In pixels or metres, such as `3 px` or `2 m`; may be 0."""

PositiveLength = Annotated[str, AfterValidator(_positive_length), _LENGTH]
"""In pixels or metres, such as `3 px` or `2 m`."""

Resolution = Annotated[
    str,
    BeforeValidator(_resolution),
    WithJsonSchema({"type": "string", "format": "resolution"}),
]
"""Metres per pixel, such as `10 m`."""

ByteSize = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(lambda size: f"{size}B"),
    WithJsonSchema({"type": "string", "format": "size"}),
]
"""Bytes; written with a unit, so that the resolved recipe can be read again."""
