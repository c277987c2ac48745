"""Acquisition time and location of windows, for models that take them as input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rasterio.warp import transform as transform_points

from geotune.data.raster.crs import WGS84, transformer, wrap_longitude
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.errors import GeotuneError
from geotune.types import Times
from geotune.utils.text import join_some


def time_and_location(
    source: RasterSource, window: Window, metadata: Sequence[str]
) -> tuple[Times | None, tuple[float, float] | None]:
    """The dates of a window, and longitude and latitude of its centre.

    Each is None unless `metadata` lists it (`time`, `location`) and the files state it.
    """
    time = None
    if "time" in metadata and source.acquired is not None:
        days = source.dates or (source.acquired,)
        time = tuple((float(day.year), float(day.timetuple().tm_yday)) for day in days)
    location = None
    if "location" in metadata:
        location = _location(source, source.to_grid(window))
    return time, location


def _location(source: RasterSource, window: Window) -> tuple[float, float] | None:
    """Longitude and latitude of the centre of a window of the grid; None if unknown."""
    if source.crs is None or not source.georeferenced:
        return None
    x, y = source.transform @ (window.col + window.width / 2, window.row + window.height / 2)
    try:
        transformer(source.crs, WGS84)
    except GeotuneError:  # a local CRS
        return None
    longitudes, latitudes = transform_points(source.crs, WGS84, [x], [y])
    return wrap_longitude(float(longitudes[0])), float(latitudes[0])


def check_metadata(sources: Mapping[str, RasterSource], metadata: Sequence[str]) -> None:
    """Raise `GeotuneError` if the files of a scene lack an item of `metadata`."""
    for item, reason in (
        ("time", "no tag such as ACQUISITIONDATETIME, and no date in its name"),
        ("location", "no coordinate reference system, or a local one"),
    ):
        lacking = [
            name
            for name, source in sources.items()
            if item in metadata and not _has_item(source, item)
        ]
        if lacking:
            path = sources[lacking[0]].path
            more = f" (also missing in {join_some(lacking[1:])})" if lacking[1:] else ""
            raise GeotuneError(
                f"{path}: its {item} is unknown, but backbone.metadata requests it: {reason}"
                f"{more}; add it to the file, or remove {item} from backbone.metadata",
                code="metadata-missing",
                key="backbone.metadata",
                file=path,
            )


def _has_item(source: RasterSource, item: str) -> bool:
    if item == "time":
        return source.acquired is not None
    return _location(source, Window(0, 0, *source.grid_shape)) is not None
