"""Outlines of images in longitude and latitude, as GeoJSON has them (RFC 7946)."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
import shapely.affinity
import shapely.geometry
from rasterio.warp import transform_geom

from geotune.data.raster.crs import WGS84, bounds, transformer
from geotune.data.raster.longitude_axis import longitude_axis
from geotune.data.raster.source import RasterSource


def outline(source: RasterSource) -> Any:
    """The outline of an image in degrees, cut at the 180th meridian as RFC 7946 has it.

    Raises `GeotuneError` for a local coordinate reference system.
    """
    height, width = source.shape
    corners = ((0, 0), (0, height), (width, height), (width, 0), (0, 0))
    ring = [source.transform @ corner for corner in corners]
    to_degrees = transformer(source.crs or WGS84, WGS84)
    axis = longitude_axis(source.crs)
    west, _, east, _ = bounds(source.transform, source.shape)
    if axis is None or axis.contains(west, east):
        return transform_geom(source.crs, WGS84, {"type": "Polygon", "coordinates": [ring]})
    xs, ys = zip(*ring, strict=True)
    longitudes, latitudes = map(np.array, to_degrees.transform(xs, ys))
    expected = axis.longitude + (np.array(xs) - axis.centre) * (360 / axis.width)
    longitudes += 360 * np.round((expected - longitudes) / 360)
    longitudes -= 360 * np.floor((longitudes.min() + 180) / 360)  # the westernmost from -180 to 180
    whole = shapely.Polygon(np.stack([longitudes, latitudes], axis=1))
    parts = [shapely.intersection(whole, shapely.box(w, -90, w + 360, 90)) for w in (-180, 180)]
    parts[1] = shapely.affinity.translate(parts[1], -360)
    polygons = [part for part in parts if part.area]
    outline = polygons[0] if len(polygons) == 1 else shapely.multipolygons(polygons)
    return shapely.geometry.mapping(outline)
