"""Acquisition dates, wavelengths and orientation from the tags and names of raster files."""

from __future__ import annotations

import math
import re
from datetime import date, datetime

from rasterio.io import DatasetReader

_DATE_TAGS = (
    "ACQUISITIONDATETIME",
    "ACQUISITION_DATE",
    "DATE_ACQUIRED",
    "SENSING_TIME",
    "PRODUCT_START_TIME",
    "datetime",
)
_YEAR = r"(?<!\d)((?:19|20)\d\d)"
_DATE = re.compile(_YEAR + r"[-_:/]?(0[1-9]|1[0-2])[-_:/]?(0[1-9]|[12]\d|3[01])(?!\d)")
_DAY_OF_YEAR = re.compile(_YEAR + r"(00[1-9]|0[1-9]\d|[12]\d\d|3[0-5]\d|36[0-6])(?!\d)")


def acquisition_date(handle: DatasetReader, name: str) -> date | None:
    """The date an image was taken, from the file's tags or else its name; None without any."""
    tags = {**handle.tags(), **handle.tags(ns="IMAGERY")}
    # the software that wrote the file may have put its own time into TIFFTAG_DATETIME
    texts = (*(tags.get(key, "") for key in _DATE_TAGS), name, tags.get("TIFFTAG_DATETIME", ""))
    return next((day for text in texts if (day := find_date(text)) is not None), None)


def is_turned(handle: DatasetReader) -> bool:
    """Whether viewers show the image in another orientation than that of its rows and columns."""
    return handle.tags().get("EXIF_Orientation", "1").strip() not in ("0", "1")


def find_date(text: str) -> date | None:
    """The first date in a text: `20181013`, `2018-10-13` or year and day of the year, `2018286`."""
    for match in _DATE.finditer(text):
        try:
            return date(*map(int, match.groups()))
        except ValueError:
            continue
    match_of_year = _DAY_OF_YEAR.search(text)
    if match_of_year is None:
        return None
    try:
        return datetime.strptime("".join(match_of_year.groups()), "%Y%j").date()
    except ValueError:
        return None


def band_wavelength_um(handle: DatasetReader, index: int) -> float | None:
    """The central wavelength of a band from GDAL's or ENVI's tags; None without any."""
    imagery = handle.tags(index, ns="IMAGERY").get("CENTRAL_WAVELENGTH_UM")
    tags = handle.tags(index)
    value = imagery or tags.get("CENTRAL_WAVELENGTH_UM") or tags.get("wavelength")
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return None
    if not math.isfinite(number) or number <= 0:
        return None
    unit = "" if imagery else tags.get("wavelength_units", "")
    return number / 1000 if unit.lower().startswith("nano") else number
