"""Acquisition time and location of windows, for models that take them as input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rasterio.warp import transform as transform_points

from geotune.data.raster.crs import WGS84
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
    if "location" in metadata and source.crs is not None:
        window = source.to_grid(window)
        x, y = source.transform @ (window.col + window.width / 2, window.row + window.height / 2)
        longitudes, latitudes = transform_points(source.crs, WGS84, [x], [y])
        location = (float(longitudes[0]), float(latitudes[0]))
    return time, location


def check_metadata(sources: Mapping[str, RasterSource], metadata: Sequence[str]) -> None:
    """Raise `GeotuneError` if the files of a scene lack an item of `metadata`."""
    for item, reason, has_item in (
        (
            "time",
            "no tag such as ACQUISITIONDATETIME, and no date in its name",
            lambda source: source.acquired is not None,
        ),
        ("location", "no coordinate reference system", lambda source: source.georeferenced),
    ):
        lacking = [name for name, source in sources.items() if not has_item(source)]
        if item in metadata and lacking:
            path = sources[lacking[0]].path
            more = f" (also missing in {join_some(lacking[1:])})" if lacking[1:] else ""
            raise GeotuneError(
                f"{path}: its {item} is unknown, but backbone.metadata requests it: {reason}"
                f"{more}; add it to the file, or remove {item} from backbone.metadata",
                code="metadata-missing",
                key="backbone.metadata",
                file=path,
            )
