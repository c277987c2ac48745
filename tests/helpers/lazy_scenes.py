"""Scenes without files, with just enough information to split them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from rasterio.crs import CRS
from rasterio.transform import from_origin

from geotune.data.raster.source import BandFile, RasterSource
from geotune.data.scenes.scene import Scene
from geotune.data.splits.base import Splits


class FakeLabels:
    """Labels that only state whether they are of a whole image."""

    def __init__(self, image_level: bool) -> None:
        self.image_level = image_level


def scene(
    name: str,
    x: float = 0,
    y: float = 0,
    side: int = 64,
    *,
    image_level: bool = False,
    georeferenced: bool = True,
) -> Scene:
    """A scene of `side` x `side` pixels of 10 m, `x` metres east and `y` metres south."""
    files = (BandFile(Path(f"{name}.tif"), 1, None, False),)
    crs = CRS.from_epsg(32633) if georeferenced else None
    transform = from_origin(500_000 + x, 5_000_000 - y, 10, 10)
    raster = RasterSource(("red",), files, True, (side, side), crs, transform)
    return Scene(name, raster, cast(Any, FakeLabels(image_level)), group=name)


def scenes(listed: Sequence[str]) -> list[Scene]:
    return [scene(name) for name in listed]


def names(splits: Splits) -> dict[str, list[str]]:
    """The names of the scenes in each split."""
    return {split: [scene.name for scene in members] for split, members in splits.items()}
