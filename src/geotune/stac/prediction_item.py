"""The STAC item of a prediction: its files, the scene and the model that it was derived from."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning

from geotune.data.raster.source import RasterSource
from geotune.stac import fields
from geotune.stac.extent import extent_of

MEDIA_TYPES = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".gpkg": "application/geopackage+sqlite3",
    ".geojson": fields.GEOJSON,
    ".csv": "text/csv",
    ".json": fields.JSON,
    ".parquet": "application/vnd.apache.parquet",
    ".qgs": "application/x-qgis-project",
}


def prediction_item(
    name: str,
    files: Sequence[Path],
    sources: Mapping[str, RasterSource],
    folder: Path,
    *,
    classes: Sequence[str],
    models: Mapping[str, str],
    created: str,
    version: str,
) -> dict[str, Any]:
    """The STAC item of a prediction, for a file in `folder`.

    Args:
        name: of the scene, or of a table.
        files: that were written, the main one first.
        sources: the scenes.
        folder: of the item.
        classes: of the model; empty for numbers.
        models: references to the models' items, with their titles.
        created: time of the prediction, as an ISO time in UTC.
        version: of geotune.
    """
    extent = extent_of(list(sources.values()))
    assets: dict[str, dict[str, Any]] = {}
    grid: dict[str, Any] = {}
    for path in files:
        assets[_key(name, path)] = _asset(path, folder, classes)
        if path.suffix == ".tif" and not grid:
            grid = _grid(path)
    used = [fields.PROJECTION] if grid else []
    used += [fields.RASTER] if any("raster:sampling" in each for each in assets.values()) else []
    if any("classification:classes" in asset for asset in assets.values()):
        used.append(fields.CLASSIFICATION)
    properties = {
        **fields.times(extent, fields.utc(created)),
        "created": fields.utc(created),
        "title": f"Prediction of {name}",
        "description": f"Predicted by geotune {version} with {', '.join(models.values())}",
        **grid,
    }
    return fields.item(
        name,
        extent,
        properties,
        extensions=used,
        assets=assets,
        links=[*_model_links(models), *_scene_links(sources, folder)],
    )


def _key(name: str, path: Path) -> str:
    """Such as `classes`, `polygons.gpkg` and `project`."""
    if path.suffix == ".qgs":
        return "project"
    return path.stem.removeprefix(f"{name}_") + ("" if path.suffix == ".tif" else path.suffix)


def _asset(path: Path, folder: Path, classes: Sequence[str]) -> dict[str, Any]:
    asset: dict[str, Any] = {"href": fields.relative_href(path, folder), "roles": ["data"]}
    if path.suffix == ".qgs":
        asset["roles"] = ["metadata"]
    if path.suffix in MEDIA_TYPES:
        asset["type"] = MEDIA_TYPES[path.suffix]
    if path.suffix != ".tif":
        return asset
    with _opened(path) as file:
        names = file.descriptions
        nodata = file.nodata
        asset["data_type"] = file.dtypes[0]
        if nodata is not None:
            asset["nodata"] = "nan" if nodata != nodata else nodata
        asset["raster:sampling"] = "area"
        if file.scales[0] != 1 and len(set(file.scales)) == 1:
            asset["raster:scale"], asset["raster:offset"] = file.scales[0], file.offsets[0]
        asset["bands"] = [{"name": name or f"band{i + 1}"} for i, name in enumerate(names)]
        if len(set(file.scales)) > 1:
            for band, scale in zip(asset["bands"], file.scales, strict=True):
                band["raster:scale"] = scale
    if classes and path.stem.endswith("_classes"):
        asset["classification:classes"] = fields.class_objects(classes)
    return asset


@contextmanager
def _opened(path: Path) -> Iterator[rasterio.DatasetReader]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            yield file


def _grid(path: Path) -> dict[str, Any]:
    """The grid of a map in fields of the projection extension; empty without georeference."""
    with _opened(path) as file:
        if file.crs is None:
            return {}
        epsg = file.crs.to_epsg()
        west, south, east, north = file.bounds
        return {
            "proj:code": None if epsg is None else f"EPSG:{epsg}",
            **({"proj:wkt2": file.crs.to_wkt()} if epsg is None else {}),
            "proj:shape": list(file.shape),
            "proj:transform": list(file.transform),
            "proj:bbox": [min(west, east), min(south, north), max(west, east), max(south, north)],
        }


def _model_links(models: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"rel": "derived_from", "href": href, "type": fields.GEOJSON, "title": title}
        for href, title in models.items()
    ]


def _scene_links(sources: Mapping[str, RasterSource], folder: Path) -> list[dict[str, Any]]:
    """A link to each file of each scene."""
    files: dict[Path, str] = {}
    for name, source in sources.items():
        for band in source.band_files:
            files.setdefault(band.path, name)
    return [
        {"rel": "derived_from", "href": fields.relative_href(path, folder), "title": title}
        for path, title in files.items()
    ]
