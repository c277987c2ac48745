"""Write features to a GeoPackage in batches; equal features give equal bytes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyogrio
import pyogrio.errors
import pyogrio.raw
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS

from geotune.errors import GeotuneError
from geotune.utils.paths import ogr_path

_DATE = "OGR_CURRENT_DATE"
"""GDAL's option for the date in the file; by default the time of writing."""


def write_features(
    path: Path,
    layer: str,
    geometry: NDArray[Any],
    fields: Mapping[str, NDArray[Any]],
    *,
    geometry_type: str,
    crs: CRS | None,
    append: bool,
    layer_metadata: Mapping[str, str] | None = None,
) -> None:
    """Write features to a layer of a GeoPackage: a new file, or appended.

    Raises `GeotuneError` if the file cannot be written.
    """
    date = pyogrio.get_gdal_config_option(_DATE)
    pyogrio.set_gdal_config_options({_DATE: "1970-01-01T00:00:00.000Z"})
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'crs' was not provided")
            pyogrio.raw.write(
                ogr_path(path),
                geometry=shapely.to_wkb(geometry),
                field_data=list(fields.values()),
                fields=list(fields),
                layer=layer,
                driver="GPKG",
                geometry_type=geometry_type,
                crs=None if crs is None else crs.to_wkt(),
                append=append,
                layer_metadata=dict(layer_metadata) if layer_metadata else None,
            )
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise GeotuneError(
            f"{path.name}: the {layer} cannot be written ({error}); free disk space",
            code="output-not-writable",
            file=path,
        ) from error
    finally:
        pyogrio.set_gdal_config_options({_DATE: date})
