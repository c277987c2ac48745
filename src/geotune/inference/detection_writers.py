"""Write detections to a GeoPackage and a GeoJSON in the CRS of the scene."""

from __future__ import annotations

import json
from collections.abc import Sequence
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

    The GeoJSON states its CRS in the member `crs`, which GDAL and QGIS read although RFC 7946 has
    removed it. Without an EPSG code no GeoJSON can be written, as its coordinates would be degrees.
    """

    def __init__(
        self, package: Path, text: Path | None, source: RasterSource, classes: Sequence[str],
        *, points: bool,
    ) -> None:  # fmt: skip
        self.package = package
        self.source = source
        self.classes = np.array(classes, dtype=object)
        self.points = points
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
        shapes = self._append(boxes, scores, classes)
        if self._text is not None:
            for shape, score, name in zip(shapes, scores, self.classes[classes], strict=True):
                feature = {
                    "type": "Feature",
                    "properties": {"class": name, "score": round(float(score), 4)},
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
    ) -> NDArray[Any]:
        shapes = shapely.points(centres(boxes)) if self.points else to_polygons(as_oriented(boxes))
        t = self.source.transform
        matrix = np.array([[t.a, t.d], [t.b, t.e]])
        placed = shapely.transform(np.asarray(shapes), lambda xy: xy @ matrix + (t.c, t.f))
        write_features(
            self.package,
            LAYER,
            np.asarray(placed),
            {"class": self.classes[classes], "score": scores.astype(np.float64)},
            geometry_type="Point" if self.points else "Polygon",
            crs=self.source.crs,
            append=self.package.exists(),
        )
        return np.asarray(placed)


def supports_geojson(source: RasterSource) -> bool:
    """Whether a GeoJSON can be written: coordinates without an EPSG code would be degrees."""
    return source.crs is not None and source.crs.to_epsg() is not None


def _crs_member(source: RasterSource) -> str:
    assert source.crs is not None
    name = f"urn:ogc:def:crs:EPSG::{source.crs.to_epsg()}"
    return f', "crs": {{"type": "name", "properties": {{"name": "{name}"}}}}'
