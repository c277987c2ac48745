"""One map of all scenes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.transform import from_origin

from geotune.mapping.mosaic import GTI, VRT, SceneMap, write_mosaics
from geotune.mapping.store import open_store


def add_map(folder: Path, name: str, values: np.ndarray, x: float, epsg: int = 32633) -> SceneMap:
    file, transform = f"scenes/{name}_classes.tif", from_origin(x, 5_000_000, 10, 10)
    (folder / "scenes").mkdir(exist_ok=True)
    with rasterio.open(
        folder / file, "w", driver="GTiff", count=1, height=values.shape[0], width=values.shape[1],
        dtype="uint8", nodata=255, crs=f"EPSG:{epsg}", transform=transform,
    ) as target:  # fmt: skip
        target.write(values, 1)
    return SceneMap(name, file, values.shape, CRS.from_epsg(epsg), transform)


def mosaics(folder: Path, maps: list[SceneMap]) -> tuple[list[str], list[str]]:
    store = open_store(str(folder))
    return write_mosaics(store, maps, dtype="uint8", nodata=255, classes=("land", "water"))


def test_scenes_lie_side_by_side_and_missing_pixels_hide_nothing(tmp_path: Path) -> None:
    one = np.ones((4, 6), np.uint8)
    two = np.zeros((4, 6), np.uint8)
    two[:, :2] = 255
    maps = [add_map(tmp_path, "a", one, 500_000), add_map(tmp_path, "b", two, 500_040)]
    assert mosaics(tmp_path, maps) == ([VRT, GTI], [])
    expected = np.concatenate([one, two[:, 2:]], axis=1)
    for name in (VRT, GTI):
        with rasterio.open(tmp_path / name) as file:
            assert file.crs == maps[0].crs and file.nodata == 255
            np.testing.assert_array_equal(file.read(1), expected)


def test_a_mosaic_can_be_moved(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(4, 6)
    (tmp_path / "one").mkdir()
    mosaics(tmp_path / "one", [add_map(tmp_path / "one", "a", values, 500_000)])
    (tmp_path / "one").rename(tmp_path / "two")
    for name in (VRT, GTI):
        with rasterio.open(tmp_path / "two" / name) as file:
            np.testing.assert_array_equal(file.read(1), values)


def test_scenes_in_another_reference_system_are_warped(tmp_path: Path) -> None:
    maps = [
        add_map(tmp_path, "a", np.zeros((40, 60), np.uint8), 500_000),
        add_map(tmp_path, "b", np.ones((20, 20), np.uint8), 300_000, epsg=32634),
    ]
    mosaics(tmp_path, maps)
    x, y = rasterio.warp.transform("EPSG:32634", "EPSG:32633", [300_100], [4_999_900])
    for name in (VRT, GTI):
        with rasterio.open(tmp_path / name) as file:
            assert next(file.sample([(500_300, 4_999_800)]))[0] == 0
            assert next(file.sample([(x[0], y[0])]))[0] == 1


def test_without_georeference_there_is_no_mosaic(tmp_path: Path) -> None:
    assert mosaics(tmp_path, []) == ([], [])


def test_scenes_without_a_place_in_the_mosaic_are_left_out_and_named(tmp_path: Path) -> None:
    one = np.ones((40, 60), np.uint8)
    far = add_map(tmp_path, "far", one[:20], -75, epsg=4326)
    site = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
    maps = [
        add_map(tmp_path, "a", one, 500_000),
        replace(far, transform=from_origin(-75, 0.01, 0.001, 0.001)),  # 90 degrees from the zone
        replace(add_map(tmp_path, "site", one[:20], 0), crs=site),
    ]
    assert mosaics(tmp_path, maps) == ([VRT, GTI], ["far", "site"])
    for name in (VRT, GTI):
        with rasterio.open(tmp_path / name) as file:
            np.testing.assert_array_equal(file.read(1), one)
