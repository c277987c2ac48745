"""Lengths as people write them, in metres or pixels."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ValidationInfo


def width(section: str, *, zero: bool = False) -> AfterValidator:
    """Refuses what is no width; `section` is where the key stands."""

    def check(text: str, info: ValidationInfo) -> str:
        known = re.fullmatch(r"\d+(\.\d+)? ?(px|m)", text)
        if not known or not (zero or float(text.rstrip(" pxm"))):
            name = f"{section}.{info.field_name}"
            raise ValueError(f"{name}: found {text!r}, expected a width such as 3 px or 2 m")
        return text

    return AfterValidator(check)


def _metres_a_pixel(value: object) -> object:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?m", value) if isinstance(value, str) else None
    if found is None or not float(found[1]):
        raise ValueError(f"data.resolution: found {value!r}, expected metres a pixel such as 10 m")
    return value


Width = Annotated[str, width("data")]
"""In pixels or metres, as people write it."""

Resolution = Annotated[str, BeforeValidator(_metres_a_pixel)]
"""Metres a pixel, as people write it."""
