"""Scenes of which no file is there: what has to be known of them to split them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from rasterio.crs import CRS
from rasterio.transform import from_origin

from geotune.data.raster.source import BandFile, RasterSource
from geotune.data.scenes.scene import Scene
from geotune.data.splits.base import Splits


class Whole:
    """Labels that no window may cut, or that may be cut."""

    def __init__(self, whole: bool) -> None:
        self.image_level = whole


def scene(
    name: str,
    x: float = 0,
    y: float = 0,
    side: int = 64,
    *,
    whole: bool = False,
    placed: bool = True,
) -> Scene:
    places = (BandFile(Path(f"{name}.tif"), 1, None, False),)
    crs = CRS.from_epsg(32633) if placed else None
    transform = from_origin(500_000 + x, 5_000_000 - y, 10, 10)
    raster = RasterSource(("red",), places, True, (side, side), crs, transform)
    return Scene(name, raster, cast(Any, Whole(whole)), group=name)


def scenes(listed: Sequence[str]) -> list[Scene]:
    return [scene(name) for name in listed]


def names(parts: Splits) -> dict[str, list[str]]:
    return {part: [scene.name for scene in scenes] for part, scenes in parts.items()}
