"""Write polygons to a GeoPackage in batches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine

from geotune.data.raster.pixel_area import PixelArea
from geotune.errors import GeotuneError
from geotune.inference.geopackage import write_features
from geotune.inference.polygonize import Region
from geotune.inference.right_angles import square_up

LAYER = "polygons"
_BATCH = 5000
_STEPS = (1.5, "px")
"""Tolerance that removes the steps of a pixel outline."""


@dataclass(frozen=True)
class PolygonOptions:
    """Which polygons of a class map are written, and how.

    Attributes:
        min_area: smaller polygons are left out, such as `50 m2` or `12 px`.
        simplify: vertices closer than this to the simplified outline are removed, such as `2 m` or
            `1 px`.
        right_angles: whether outlines become right-angled, as those of buildings; simplifies them
            by 1.5 px, unless `simplify` is given.

    Raises `GeotuneError` for areas and lengths without a known unit.
    """

    min_area: str | None = None
    simplify: str | None = None
    right_angles: bool = False

    def __post_init__(self) -> None:
        self.least()
        self.tolerance()

    def check_scene(self, crs: CRS | None, transform: Affine, shape: tuple[int, int]) -> None:
        """Raise `GeotuneError` if units are metres, but those of the scene's pixels are unknown."""
        in_pixels = {self.least()[1], self.tolerance()[1]} == {"px"}
        if not in_pixels and not PixelArea(crs, transform, shape).is_known:
            raise GeotuneError(
                "--min-area, --simplify: found metres, but the scene has no usable CRS; give both "
                "in px",
                code="pixel-size-missing",
            )

    def least(self) -> tuple[float, str]:
        """Minimum area and its unit, `m2` or `px`."""
        return _quantity("--min-area", self.min_area, ("m2", "px")) or (0, "px")

    def tolerance(self) -> tuple[float, str]:
        """Tolerance of the simplification and its unit, `m` or `px`."""
        given = _quantity("--simplify", self.simplify, ("m", "px"))
        return given or (_STEPS if self.right_angles else (0, "px"))


def _quantity(option: str, text: str | None, units: tuple[str, str]) -> tuple[float, str] | None:
    if text is None:
        return None
    match = re.fullmatch(rf"(\d+(?:\.\d+)?) ?({'|'.join(units)})", text.strip())
    if match is None:
        raise GeotuneError(
            f"{option}: found {text!r}, expected a number with a unit, such as 2 {units[0]} or "
            f"2 {units[1]}",
            code="option-invalid",
        )
    return float(match[1]), match[2]


def write_polygons(
    path: Path,
    regions: Iterable[Region],
    classes: Sequence[str],
    *,
    shape: tuple[int, int],
    crs: CRS | None,
    transform: Affine,
    options: PolygonOptions | None = None,
) -> int:
    """Write regions to the layer `polygons` of a GeoPackage.

    Fields: `class` (name), `score` (mean probability of the class), `pixels` of the map, `area_m2`
    of the polygon (null without a usable CRS). Returns the number of polygons. Raises
    `GeotuneError` if the file cannot be written.
    """
    area = PixelArea(crs, transform, shape)
    options = options or PolygonOptions()
    _append(path, [], classes, area, crs, options, first=True)
    rest, count = iter(regions), 0
    while batch := list(islice(rest, _BATCH)):
        count += _append(path, batch, classes, area, crs, options, first=False)
    return count


def _append(
    path: Path,
    batch: Sequence[Region],
    classes: Sequence[str],
    area: PixelArea,
    crs: CRS | None,
    options: PolygonOptions,
    *,
    first: bool,
) -> int:
    geometry: Any = np.array([region.polygon for region in batch], dtype=object)
    pixels = shapely.area(geometry).astype(np.float64)
    x, y = shapely.get_coordinates(shapely.centroid(geometry)).reshape(-1, 2).T
    pixel_m2 = area.at(x, y)
    least, unit = options.least()
    kept = pixels * (pixel_m2 if unit == "m2" else 1) >= least if least else pixels > 0
    outlines = _simplified(geometry[kept], pixel_m2[kept], options)
    t = area.transform
    matrix = np.array([[t.a, t.d], [t.b, t.e]])
    write_features(
        path,
        LAYER,
        shapely.transform(outlines, lambda points: points @ matrix + (t.c, t.f)),
        {
            "class": np.array([classes[region.value] for region in batch], dtype=object)[kept],
            "score": np.array([region.score for region in batch], dtype=np.float64)[kept].round(4),
            "pixels": np.rint(pixels[kept]).astype(np.int64),
            "area_m2": shapely.area(outlines) * pixel_m2[kept],
        },
        geometry_type="Polygon",
        crs=crs,
        append=not first,
    )
    return int(kept.sum())


def _simplified(
    outlines: NDArray[Any], pixel_m2: NDArray[np.float64], options: PolygonOptions
) -> NDArray[Any]:
    """Outlines in pixels after simplification."""
    tolerance, unit = options.tolerance()
    if tolerance and len(outlines):
        pixels = tolerance / np.sqrt(pixel_m2) if unit == "m" else tolerance
        simple: NDArray[Any] = shapely.simplify(outlines, pixels)
        outlines = np.where(shapely.area(simple) > 0, simple, outlines)
    if options.right_angles:
        outlines = np.array([square_up(outline) for outline in outlines], dtype=object)
    return outlines
