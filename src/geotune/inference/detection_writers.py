"""Write detections to a GeoPackage and a GeoJSON in the CRS of the scene."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geotune.boxes.oriented import as_oriented, centres
from geotune.boxes.polygons import to_polygons
from geotune.data.raster.source import RasterSource
from geotune.inference.geopackage import write_features

LAYER = "objects"


class DetectionWriter(AbstractContextManager["DetectionWriter"]):
    """Writes objects with `class` and `score`: boxes as polygons, or points.

    With `novelty`, which maps points `(N, 2)` in scene pixels to values, also `novelty` of their
    centres.

    The GeoJSON states its CRS in the member `crs`, which GDAL and QGIS read although RFC 7946 has
    removed it. Without an EPSG code no GeoJSON can be written, as its coordinates would be degrees.
    """

    def __init__(
        self, package: Path, text: Path | None, source: RasterSource, classes: Sequence[str],
        *, points: bool, novelty: Callable[[NDArray[Any]], NDArray[np.float32]] | None = None,
    ) -> None:  # fmt: skip
        self.package = package
        self.source = source
        self.classes = np.array(classes, dtype=object)
        self.points = points
        self.novelty = novelty
        self.count = 0
        self._text = None if text is None else text.open("w", encoding="utf-8")
        if self._text is not None:
            self._text.write(
                '{"type": "FeatureCollection"' + _crs_member(source) + ', "features": ['
            )
        self._append(np.zeros((0, 4)), np.zeros(0, np.float32), np.zeros(0, np.int64))

    def write(
        self, boxes: NDArray[Any], scores: NDArray[np.float32], classes: NDArray[np.int64]
    ) -> None:
        """Write objects `(N)` in scene pixels. Raises `GeotuneError` if that fails."""
        if not len(boxes):
            return
        shapes, fields = self._append(boxes, scores, classes)
        names = fields.pop("class")
        if self._text is not None:
            for i, (shape, name) in enumerate(zip(shapes, names, strict=True)):
                numbers = {key: round(float(values[i]), 4) for key, values in fields.items()}
                feature = {
                    "type": "Feature",
                    "properties": {"class": name, **numbers},
                    "geometry": json.loads(shapely.to_geojson(shape)),
                }
                self._text.write(("\n" if not self.count else ",\n") + json.dumps(feature))
                self.count += 1
        else:
            self.count += len(boxes)

    def __exit__(self, *_: object) -> None:
        if self._text is not None:
            self._text.write("\n]}\n")
            self._text.close()

    def _append(
        self, boxes: NDArray[Any], scores: NDArray[np.float32], classes: NDArray[np.int64]
    ) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        shapes = shapely.points(centres(boxes)) if self.points else to_polygons(as_oriented(boxes))
        t = self.source.transform
        matrix = np.array([[t.a, t.d], [t.b, t.e]])
        placed = shapely.transform(np.asarray(shapes), lambda xy: xy @ matrix + (t.c, t.f))
        fields = {"class": self.classes[classes], "score": scores.astype(np.float64)}
        if self.novelty is not None:
            middle = np.asarray(centres(boxes), dtype=np.float64).reshape(-1, 2)
            fields["novelty"] = self.novelty(middle).astype(np.float64)
        write_features(
            self.package,
            LAYER,
            np.asarray(placed),
            fields,
            geometry_type="Point" if self.points else "Polygon",
            crs=self.source.crs,
            append=self.package.exists(),
        )
        return np.asarray(placed), fields


def supports_geojson(source: RasterSource) -> bool:
    """Whether a GeoJSON can be written: coordinates without an EPSG code would be degrees."""
    return source.crs is not None and source.crs.to_epsg() is not None


def _crs_member(source: RasterSource) -> str:
    assert source.crs is not None
    name = f"urn:ogc:def:crs:EPSG::{source.crs.to_epsg()}"
    return f', "crs": {{"type": "name", "properties": {{"name": "{name}"}}}}'
