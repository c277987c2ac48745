"""Objects and polygons in further formats, from the GeoPackage of each scene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyogrio.raw
import shapely
from numpy.typing import NDArray

from geotune.data.raster.source import RasterSource
from geotune.inference.coco_writer import CocoWriter
from geotune.inference.geoparquet import Features, check_pyarrow, write_geoparquet
from geotune.utils.paths import ogr_path

FeatureFormat = Literal["parquet", "coco"]
Shape = Literal["horizontal", "oriented", "points", "polygons"]
"""What the features are: boxes, points, or polygons of a class map."""

_BATCH = 5000


class FurtherFormats(AbstractContextManager["FurtherFormats"]):
    """Writes `<scene>_<layer>.parquet` of each scene, and one `<layer>.coco.json` of all.

    Args:
        formats: which.
        out_dir: of the predictions.
        layer: of the GeoPackages.
        classes: names.
        shape: of the features.

    Raises `GeotuneError` if a package is missing.
    """

    def __init__(
        self,
        formats: Sequence[FeatureFormat],
        out_dir: Path,
        layer: str,
        classes: Sequence[str],
        shape: Shape,
    ) -> None:
        self.parquet = "parquet" in formats
        self.out_dir = out_dir
        self.layer = layer
        self.geometry_type = "Point" if shape == "points" else "Polygon"
        self.coco: CocoWriter | None = None
        self._stack = ExitStack()
        if self.parquet:
            check_pyarrow()
        if "coco" in formats:
            self.coco = CocoWriter(
                out_dir / f"{layer}.coco.json",
                classes,
                oriented=shape == "oriented",
                rectangles=shape != "polygons",
                points=shape == "points",
            )

    def __enter__(self) -> FurtherFormats:
        if self.coco is not None:
            self._stack.enter_context(self.coco)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, package: Path, source: RasterSource, name: str) -> tuple[Path, ...]:
        """Write the features of a scene. Returns the files, that of all scenes included."""
        files = []
        if self.parquet:
            path = self.out_dir / f"{name}_{self.layer}.parquet"
            batches = _read(package, self.layer)
            write_geoparquet(path, batches, geometry_type=self.geometry_type, crs=source.crs)
            files.append(path)
        if self.coco is not None:
            self.coco.add_image(source.path.name, source.shape)
            for geometry, fields in _read(package, self.layer):
                pixels = _in_pixels(geometry, source)
                self.coco.write(pixels, fields["class"].tolist(), fields["score"])
            files.append(self.coco.path)
        return tuple(files)


def _read(package: Path, layer: str) -> Iterator[Features]:
    """The features of a layer in batches, at least one."""
    start = 0
    while True:
        meta, _, geometry, values = pyogrio.raw.read(
            ogr_path(package), layer=layer, skip_features=start, max_features=_BATCH
        )
        if start == 0 or len(geometry):
            yield shapely.from_wkb(geometry), dict(zip(meta["fields"], values, strict=True))
        if len(geometry) < _BATCH:
            return
        start += _BATCH


def _in_pixels(geometry: NDArray[Any], source: RasterSource) -> NDArray[Any]:
    t = ~source.transform
    matrix = np.array([[t.a, t.d], [t.b, t.e]])
    moved: NDArray[Any] = shapely.transform(geometry, lambda xy: xy @ matrix + (t.c, t.f))
    return moved
