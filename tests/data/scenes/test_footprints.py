"""Distances and overlaps of scenes on Earth, against geodesics and areas computed independently."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod, Transformer
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin

from geotune.data.raster.source import BandFile, RasterSource
from geotune.data.raster.windows import Window
from geotune.data.scenes.footprints import (
    Footprint,
    areas,
    footprint,
    group_distance,
    within_distance,
)
from geotune.data.scenes.scene import Scene

GEOD = Geod(ellps="WGS84")


def scene(
    name: str, x: float, y: float, *, crs: str = "EPSG:32633", pixel: float = 10, side: int = 100
) -> Scene:
    files = (BandFile(Path(f"{name}.tif"), 1, None, False),)
    transform = from_origin(x, y, pixel, pixel)
    raster = RasterSource(("red",), files, True, (side, side), CRS.from_string(crs), transform)
    return Scene(name, raster, cast(Any, None), group=name)


def footprint_of(*args: Any, **kwargs: Any) -> Footprint:
    result = footprint(scene(*args, **kwargs))
    assert result is not None
    return result


def test_a_transform_that_leaves_the_earth_gives_no_footprint() -> None:
    """Pixels of one degree, as in files whose transform has the wrong unit."""
    assert footprint(scene("a", -80.5, 25.9, crs="EPSG:4326", pixel=1)) is not None
    assert footprint(scene("a", -80.5, 25.9, crs="EPSG:4326", pixel=1, side=512)) is None


def test_adjacent_scenes_do_not_overlap() -> None:
    result = group_distance([footprint_of("a", 500_000, 5e6)], [footprint_of("b", 501_000, 5e6)])
    assert result is not None and result.distance_m < 1e-3 and not result.overlaps


def test_overlap_in_square_metres() -> None:
    result = group_distance(
        [footprint_of("a", 500_000, 5e6)],
        [footprint_of("b", 500_600, 5e6), footprint_of("c", 7e5, 5e6)],
    )
    assert result is not None and result.distance_m == 0
    [overlap] = result.overlaps
    assert (overlap.one.scene, overlap.other.scene) == ("a", "b")
    # 400 m by 1000 m on the map, whose scale is 0.9996 along the central meridian
    assert overlap.area_m2 == pytest.approx(400_000 / 0.9996**2, rel=1e-3)


def test_overlap_across_projections() -> None:
    x, y = Transformer.from_crs(32633, 3857, always_xy=True).transform(500_500, 4_999_500)
    other = footprint_of("b", x - 300, y + 300, crs="EPSG:3857", pixel=6)
    result = group_distance([footprint_of("a", 500_000, 5e6)], [other])
    assert result is not None
    [overlap] = result.overlaps
    latitude = np.radians(45.15)
    assert overlap.area_m2 == pytest.approx((600 * np.cos(latitude)) ** 2, rel=0.01)


def test_overlap_below_a_pixel_does_not_count() -> None:
    result = group_distance([footprint_of("a", 500_000, 5e6)], [footprint_of("b", 500_992, 5e6)])
    assert result is not None and result.distance_m == 0 and not result.overlaps


def test_distance_across_the_180th_meridian() -> None:
    one = footprint_of("a", 179.99, 0, crs="EPSG:4326", pixel=1e-4, side=90)  # ends at 179.999
    other = footprint_of("b", -179.999, 0, crs="EPSG:4326", pixel=1e-4, side=90)
    result = group_distance([one], [other])
    assert result is not None
    assert result.distance_m == pytest.approx(0.002 * 111_320, rel=0.01)


def test_cropped_scene_has_its_own_footprint() -> None:
    full = scene("a", 500_000, 5e6)
    west = footprint(replace(full, raster=full.raster.crop(Window(0, 0, 100, 30))))
    east = footprint(replace(full, raster=full.raster.crop(Window(0, 50, 100, 50))))
    assert west is not None and east is not None
    result = group_distance([west], [east])
    assert result is not None and result.distance_m == pytest.approx(200, rel=1e-3)


def test_scene_without_georeference_has_no_footprint() -> None:
    one = scene("a", 0, 0)
    assert footprint(replace(one, raster=replace(one.raster, crs=None))) is None
    assert footprint(replace(one, raster=replace(one.raster, transform=Affine.identity()))) is None
    assert group_distance([], [footprint_of("a", 0, 0)]) is None


@pytest.mark.parametrize(
    ("xs", "expected"),
    [
        ([0, 3000, 6000], [0, 1, 2]),
        ([0, 1000, 2000], [0, 0, 0]),  # a row of tiles: the first and the last are one area as well
        ([0, 1400, 6000], [0, 0, 1]),
        ([0, 1700, 6000], [0, 1, 2]),
    ],
)
def test_scenes_that_adjoin_share_an_area(xs: list[float], expected: list[int]) -> None:
    scenes = [scene(f"{i}", 400_000 + x, 5e6) for i, x in enumerate(xs)]
    assert areas(scenes) == expected


def test_scenes_of_a_group_or_a_file_share_an_area() -> None:
    one, two, far = (scene(name, 4e5 + 1e4 * i, 5e6) for i, name in enumerate("abc"))
    assert areas([one, two, far]) == [0, 1, 2]
    assert areas([replace(one, group="day"), two, replace(far, group="day")]) == [0, 1, 0]
    parts = [
        replace(one, name=f"{col}", group=f"{col}", raster=one.raster.crop(Window(0, col, 100, 9)))
        for col in (0, 90)
    ]
    assert areas([*parts, two]) == [0, 0, 1]


def test_areas_without_georeference_are_groups() -> None:
    scenes = [scene(name, 0, 0) for name in "abc"]
    plain = [replace(each, raster=replace(each.raster, crs=None)) for each in scenes]
    assert areas(plain) == [0, 1, 2] and areas(scenes) == [0, 0, 0]
    assert areas([plain[0], scenes[1]]) == [0, 1]


degrees = st.tuples(st.floats(-179, 179), st.floats(-80, 80))


@settings(max_examples=50, deadline=None)
@given(st.lists(degrees, min_size=1, max_size=4), st.lists(degrees, min_size=1, max_size=4))
def test_distance_is_the_shortest_geodesic(one: Any, other: Any) -> None:
    """Scenes of a few metres are points on Earth: compare with all pairs of points."""

    def small(at: tuple[float, float]) -> Footprint:
        return footprint_of(f"{at}", *at, crs="EPSG:4326", pixel=1e-6, side=2)

    result = group_distance([small(at) for at in one], [small(at) for at in other])
    expected = min(GEOD.inv(*a, *b)[2] for a in one for b in other)
    assert result is not None and result.distance_m == pytest.approx(expected, abs=2)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=12),
    st.floats(1, 5000),
)
def test_within_distance_agrees_with_planar_distances(one: Any, other: Any, metres: float) -> None:
    def tile(at: tuple[int, int]) -> Footprint:
        return footprint_of(f"{at}", 500_000 + 400 * at[0], 5e6 - 400 * at[1], side=30)

    def apart(a: tuple[int, int], b: tuple[int, int]) -> float:
        return float(np.hypot(*(max(0, 400 * abs(p - q) - 300) for p, q in zip(a, b, strict=True))))

    distances = {at: min(apart(at, b) for b in other) for at in one}
    certain = {f"{at}" for at, d in distances.items() if d < metres * 0.99}
    possible = {f"{at}" for at, d in distances.items() if d < metres * 1.01}
    result = within_distance([tile(at) for at in one], [tile(at) for at in other], metres)
    assert certain <= result <= possible
    near = group_distance([tile(at) for at in one], [tile(at) for at in other])
    assert near is not None
    assert near.distance_m == pytest.approx(min(distances.values()), rel=2e-3, abs=0.5)
    same = {(f"{a}", f"{b}") for a in one for b in other if a == b}
    assert {(result.one.scene, result.other.scene) for result in near.overlaps} == same
