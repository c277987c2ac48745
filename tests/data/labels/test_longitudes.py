"""Labels of scenes across the 180th meridian, however both write their coordinates."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from rasterio.features import rasterize
from rasterio.transform import Affine, from_origin
from shapely.affinity import translate
from shapely.geometry import MultiPolygon, Point, Polygon, box

from geotune.data.annotations.base import AnnotationOptions
from geotune.data.annotations.vector_file import read_vector
from geotune.data.labels.density_labels import open_density_labels
from geotune.data.labels.open_labels import open_labels
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window

SIDE = 0.01
SHAPE = (30, 60)
FIELD = Polygon([(5.2, 4.1), (50.7, 2.3), (47.2, 25.9), (22.1, 27.4)])
"""In pixels; the meridian is at column 20."""

Write = Callable[..., Path]


def scene_at(write_raster: Write, west: float) -> RasterSource:
    values = np.ones((1, *SHAPE), dtype="uint8")
    grid: Any = {"crs": "EPSG:4326", "transform": from_origin(west, 1, SIDE, SIDE)}
    return open_raster(write_raster("s.tif", values, **grid))


def in_degrees(shape: Any, west: float) -> Any:
    return shapely.transform(shape, lambda xy: np.array([west, 1]) + xy * (SIDE, -SIDE))


def cut(shape: Any) -> Any:
    """As RFC 7946 cuts polygons at the meridian."""
    whole = in_degrees(shape, 179.8)
    west = whole.intersection(box(0, -90, 180, 90))
    east = shapely.transform(whole.intersection(box(180, -90, 360, 90)), lambda xy: xy - (360, 0))
    return MultiPolygon([west, east])


SPELLINGS = {
    "cut": cut,
    "beyond 180": lambda shape: in_degrees(shape, 179.8),
    "beyond -180": lambda shape: in_degrees(shape, -180.2),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("west", [179.8, -180.2])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3832", "EPSG:4269"])
def test_polygons_and_boxes_across_the_meridian(
    write_raster: Write, tmp_path: Path, spelling: str, west: float, crs: str
) -> None:
    scene = scene_at(write_raster, west)
    shape = SPELLINGS[spelling](FIELD)
    frame = geopandas.GeoDataFrame(geometry=[shape], crs="EPSG:4326").to_crs(crs)
    path = tmp_path / "l.gpkg"
    frame.to_file(path)
    cols, rows = np.meshgrid(np.arange(SHAPE[1]) + 0.5, np.arange(SHAPE[0]) + 0.5)
    expected = shapely.contains_xy(FIELD, cols, rows)
    labels = open_labels(path, scene, classes=["background", "field"])
    mask = labels.read(Window(0, 0, *SHAPE)).mask
    assert (mask != expected).sum() <= (0 if crs == "EPSG:4326" else 5)
    [annotation] = read_vector(path, scene, AnnotationOptions()).annotations
    points = np.array(annotation.points)
    bounds = [*points.min(axis=0), *points.max(axis=0)]
    np.testing.assert_allclose(bounds, FIELD.bounds, atol=1e-3)


@pytest.mark.parametrize("west", [179.8, -180.2, 199.8, -160.2])
def test_points_across_the_meridian(write_raster: Write, tmp_path: Path, west: float) -> None:
    scene = scene_at(write_raster, west)
    pixels = np.array([[3.5, 3.5], [40.5, 7.5], [55.5, 20.5]])
    points = [Point((west + SIDE * x + 180) % 360 - 180, 1 - SIDE * y) for x, y in pixels]
    geopandas.GeoDataFrame(geometry=points, crs="EPSG:4326").to_file(tmp_path / "l.geojson")
    labels = open_density_labels(tmp_path / "l.geojson", scene, objects="tree")
    np.testing.assert_allclose(labels.points, pixels, atol=1e-6)


def test_a_polygon_around_the_globe_covers_both_sides(write_raster: Write, tmp_path: Path) -> None:
    scene = scene_at(write_raster, 179.8)
    geopandas.GeoDataFrame(geometry=[box(-180, -80, 180, 80)], crs="EPSG:4326").to_file(
        tmp_path / "l.geojson"
    )
    labels = open_labels(tmp_path / "l.geojson", scene, classes=["background", "sea"])
    assert (labels.read(Window(0, 0, *SHAPE)).mask == 1).all()


def test_polygons_next_to_a_scene_before_the_meridian(write_raster: Write, tmp_path: Path) -> None:
    """Reprojected from metres, the vertices of a polygon across the meridian lie on both sides."""
    scene = scene_at(write_raster, 179.3)
    field = in_degrees(Polygon([(30, 5), (90, 5), (90, 25), (30, 25)]), 179.3)  # up to 180.2
    frame = geopandas.GeoDataFrame(geometry=[field], crs="EPSG:4326").to_crs("EPSG:3832")
    frame.to_file(tmp_path / "l.gpkg")
    labels = open_labels(tmp_path / "l.gpkg", scene, classes=["background", "field"])
    expected = np.zeros(SHAPE)
    expected[5:25, 30:] = 1
    assert (labels.read(Window(0, 0, *SHAPE)).mask == expected).all()


EARTH = 2 * np.pi * 6378137
WORLDS = {"EPSG:4326": 360, "EPSG:3857": EARTH, "EPSG:3395": EARTH, "EPSG:4087": EARTH}
WORLDS |= {"EPSG:6933": 34735060.890322745}


def across(write_raster: Write, crs: str, turns: int) -> tuple[RasterSource, Affine]:
    """A scene of 1 km pixels whose column 20 is at the meridian, and its transform there."""
    side = WORLDS[crs] / 40_000
    transform = from_origin(WORLDS[crs] / 2 - 20 * side, 100 * side, side, side)
    moved = Affine.translation(turns * WORLDS[crs], 0) @ transform
    values = np.ones((1, *SHAPE), dtype="uint8")
    return open_raster(write_raster("s.tif", values, crs=crs, transform=moved)), transform


def cut_at(shape: Any, world: float) -> Any:
    west = shape.intersection(box(0, -1e9, world / 2, 1e9))
    east = translate(shape.intersection(box(world / 2, -1e9, world, 1e9)), -world)
    return MultiPolygon([west, east])


@pytest.mark.parametrize("spelling", ["cut", -1, 0, 1])
@pytest.mark.parametrize("turns", [-1, 0])
@pytest.mark.parametrize("crs", WORLDS)
@pytest.mark.parametrize(
    "of_labels", ["EPSG:4326", "EPSG:3857", "EPSG:6933", "EPSG:3832", "EPSG:32760"]
)
def test_polygons_in_cylindrical_projections(
    write_raster: Write, tmp_path: Path, spelling: Any, turns: int, crs: str, of_labels: str
) -> None:
    """Labels cut at the meridian, or whole in any turn, or in a CRS without a seam there."""
    scene, transform = across(write_raster, crs, turns)
    field = shapely.affinity.affine_transform(FIELD, transform.to_shapely())
    expected = rasterize([field], out_shape=SHAPE, transform=transform)
    if of_labels in WORLDS:
        # both x axes are proportional to the longitude
        parts = cut_at(field, WORLDS[crs])
        world = WORLDS[of_labels]
        shapes = geopandas.GeoSeries([*parts.geoms], crs=crs).to_crs(of_labels)
        east, west = (translate(s, world * (s.centroid.x < 0)) for s in shapes)
        whole = shapely.union_all([east, west], grid_size=world * 1e-12)
        shape = cut_at(whole, world) if spelling == "cut" else translate(whole, spelling * world)
    else:
        xs, ys = shapely.get_coordinates(field.segmentize(1e-3 * field.length)).T
        points = geopandas.points_from_xy(np.where(xs > WORLDS[crs] / 2, xs - WORLDS[crs], xs), ys)
        moved = geopandas.GeoSeries(points, crs=crs).to_crs(of_labels)
        shape = Polygon(shapely.get_coordinates(moved.array))
    path = tmp_path / "l.gpkg"
    geopandas.GeoDataFrame(geometry=[shape], crs=of_labels).to_file(path)
    labels = open_labels(path, scene, classes=["background", "field"])
    assert labels.overlaps
    mask = labels.read(Window(0, 0, *SHAPE)).mask
    assert (mask != expected).sum() <= 5
    [annotation] = read_vector(path, scene, AnnotationOptions()).annotations
    points = np.array(annotation.points)
    bounds = [*points.min(axis=0), *points.max(axis=0)]
    np.testing.assert_allclose(bounds, FIELD.bounds, atol=0.01)


@pytest.mark.parametrize("crs", WORLDS)
@pytest.mark.parametrize("turns", [-1, 0, 1])
def test_points_in_cylindrical_projections(
    write_raster: Write, tmp_path: Path, crs: str, turns: int
) -> None:
    scene, transform = across(write_raster, crs, turns)
    pixels = np.array([[3.5, 3.5], [40.5, 7.5], [55.5, 20.5]])
    for of_labels in (-1, 0, 1):
        xs, ys = transform @ tuple(pixels.T)
        xs = xs + of_labels * WORLDS[crs]
        geometry = geopandas.points_from_xy(xs, ys)
        geopandas.GeoDataFrame(geometry=geometry, crs=crs).to_file(tmp_path / "l.gpkg")
        lines = "\n".join(f"{x!r},{y!r}" for x, y in zip(xs.tolist(), ys.tolist(), strict=True))
        (tmp_path / "l.csv").write_text(f"x,y\n{lines}")
        for name in ("l.gpkg", "l.csv"):
            labels = open_density_labels(tmp_path / name, scene, objects="tree", xy="coordinates")
            np.testing.assert_allclose(labels.points, pixels, atol=1e-6)
        options = AnnotationOptions(point_size="2 px")
        found = read_vector(tmp_path / "l.gpkg", scene, options).annotations
        np.testing.assert_allclose([a.points.mean(axis=0) for a in found], pixels, atol=1e-6)


@pytest.mark.parametrize("crs", WORLDS)
@pytest.mark.parametrize("turns", [-1, 0])
def test_a_polygon_around_the_globe_in_another_crs(
    write_raster: Write, tmp_path: Path, crs: str, turns: int
) -> None:
    scene, _ = across(write_raster, crs, turns)
    for of_labels, world in list(WORLDS.items())[:2]:
        shape = box(-world / 2, -world / 6, world / 2, world / 6)
        geopandas.GeoDataFrame(geometry=[shape], crs=of_labels).to_file(tmp_path / "l.gpkg")
        labels = open_labels(tmp_path / "l.gpkg", scene, classes=["background", "sea"])
        assert (labels.read(Window(0, 0, *SHAPE)).mask == 1).all(), of_labels
