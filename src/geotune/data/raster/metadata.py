"""When and where an image was taken, as far as its files say it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.warp import transform as to_crs

from geotune.errors import GeotuneError
from geotune.types import Times

if TYPE_CHECKING:
    from geotune.data.raster.source import RasterSource
    from geotune.data.raster.windows import Window

METRES_PER_DEGREE = 111_320.0  # along a meridian, and along the equator

_TAGS = (
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


def date_of(handle: DatasetReader, name: str) -> date | None:
    """The day an image was taken: from the file's tags or its name; None where neither says it.

    Names are read as `20181013`, `2018-10-13` or, as HLS has it, year and day of the year
    `2018286`.
    """
    tags = {**handle.tags(), **handle.tags(ns="IMAGERY")}
    # what wrote the file may have put its own time into TIFFTAG_DATETIME
    for text in (*(tags.get(key, "") for key in _TAGS), name, tags.get("TIFFTAG_DATETIME", "")):
        day = date_in(text)
        if day is not None:
            return day
    return None


def date_in(text: str) -> date | None:
    """The first date that a text holds, written as `date_of` says."""
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


def wavelength_of(handle: DatasetReader, index: int) -> float | None:
    """The centre of a band in micrometres where the file says it (GDAL's and ENVI's tags)."""
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


def metres_per_pixel(crs: CRS | None, transform: Affine, shape: tuple[int, int]) -> float | None:
    """The side of a pixel at the scene's centre in metres; None where the files do not say."""
    if crs is None or transform == Affine.identity():
        return None
    side = math.sqrt(abs(transform.a * transform.e - transform.b * transform.d))
    if crs.is_geographic:
        _, latitude = transform @ (shape[1] / 2, shape[0] / 2)
        return side * METRES_PER_DEGREE * math.sqrt(max(math.cos(math.radians(latitude)), 0.01))
    return side * float(crs.linear_units_factor[1])


def time_and_place(
    source: RasterSource, window: Window, metadata: Sequence[str]
) -> tuple[Times | None, tuple[float, float] | None]:
    """What `metadata` names of a window: when by date, longitude and latitude."""
    time = None
    if "time" in metadata and source.acquired is not None:
        days = source.dates or (source.acquired,)
        time = tuple((float(day.year), float(day.timetuple().tm_yday)) for day in days)
    place = None
    if "location" in metadata and source.crs is not None:
        x, y = source.transform @ (window.col + window.width / 2, window.row + window.height / 2)
        longitudes, latitudes = to_crs(source.crs, CRS.from_epsg(4326), [x], [y])
        place = (float(longitudes[0]), float(latitudes[0]))
    return time, place


def require_metadata(scenes: Mapping[str, RasterSource], metadata: Sequence[str]) -> None:
    """Raise `GeotuneError` that names the scenes whose files do not say what `metadata` asks."""
    for item, said in (
        ("time", lambda source: source.acquired is not None),
        ("location", lambda source: source.georeferenced),
    ):
        silent = [name for name, source in scenes.items() if item in metadata and not said(source)]
        if silent:
            source = scenes[silent[0]]
            where = (
                "no tag such as ACQUISITIONDATETIME, and no date in its name"
                if item == "time"
                else "no coordinate reference system"
            )
            more = f" (nor do {', '.join(silent[1:6])})" if silent[1:] else ""
            raise GeotuneError(
                f"{source.path}: does not say its {item}, which backbone.metadata asks for: "
                f"{where}{more}; add it to the file, or leave {item} out of backbone.metadata"
            )
