import json
import math
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import shapely.affinity
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform as warp_points
from shapely.geometry import Point, Polygon, box

from geotune.data.annotations.base import AnnotationOptions
from geotune.data.annotations.vector_file import read_vector
from geotune.data.labels.class_mapping import UNKNOWN, ClassMapping
from geotune.data.labels.open_labels import open_labels
from geotune.data.labels.points import read_points
from geotune.data.labels.polygon_labels import PolygonLabels
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window, grid_windows
from geotune.types import IGNORE
from helpers.errors import raises

SHIPS = ["background", "ship"]
LAND = ["water", "wood", "field"]


@pytest.fixture
def scene(write_raster: Any) -> RasterSource:
    return open_raster(write_raster("scene.tif", np.ones((1, 30, 40), dtype="uint8")))


def _whole(scene: RasterSource) -> Window:
    return Window(0, 0, *scene.shape)


def _centres_in(shape: Any, size: tuple[int, int]) -> Any:
    rows, cols = np.mgrid[: size[0], : size[1]]
    return shapely.contains_xy(shape, cols + 0.5, rows + 0.5)


# ---------------------------------------------------------------- values
def test_values_map_to_indices() -> None:
    values = ClassMapping.from_spec(["shadow", "land"], {"shadow": 7, "land": 3}, [255, 3])
    raw = np.array([[7, 3], [255, 1]], dtype="uint8")
    assert values.indices(raw).tolist() == [[0, 1], [IGNORE, UNKNOWN]]
    assert values.indices(raw, nodata=1).tolist() == [[0, 1], [IGNORE, IGNORE]]
    floats = np.array([7.0, np.nan, 3.5])
    assert values.indices(floats).tolist() == [0, IGNORE, UNKNOWN]


def test_attributes_map_to_indices() -> None:
    values = ClassMapping.from_spec(["water", "Forest"], {"water": 10, "Forest": 20})
    result = [values.index_of(v) for v in ["forest ", "WATER", 20, 10.0, "20", 255, "x", None, 11]]
    assert result == [1, 0, 1, 0, 1, IGNORE, UNKNOWN, UNKNOWN, UNKNOWN]


def test_several_values_may_map_to_one_class() -> None:
    spec = {"water": 0, "wood": ["Pine ", "oak", 7], "field": [3, 4]}
    values = ClassMapping.from_spec(LAND, spec, [255, 4])
    raw = np.array([[0, 7, 3], [4, 255, 1]], dtype="uint8")
    assert values.indices(raw).tolist() == [[0, 1, 2], [2, IGNORE, UNKNOWN]]
    result = [values.index_of(v) for v in ["pine", "OAK", "wood", "7", 4, "fir", "field"]]
    assert result == [1, 1, 1, 1, 2, UNKNOWN, 2]
    assert values.describe() == "water (0), wood (Pine  or oak or 7), field (3 or 4)"
    with raises("class-values", key="data.class_values", mentions=["4", "wood", "field"]):
        ClassMapping.from_spec(LAND, {**spec, "wood": [4, "oak"]})
    with raises("class-values", key="data.class_values", mentions=["field", "wood"]):
        ClassMapping.from_spec(LAND, {**spec, "wood": ["Field"]})


@pytest.mark.parametrize("number", [1, 1.0, np.int64(1), "1", " 1.0", "01"])
def test_a_number_and_its_text_mean_the_same_class(number: Any) -> None:
    raw = np.array([[1]], dtype="uint8")
    for classes, spec, expected in (
        (["1", "2", "3"], None, 0),  # classes named by numbers
        (["other", "2", "1"], None, 2),
        (["a", "b", "c"], None, 1),  # an index
        (["3", "1", "2"], {"3": 0, "1": 7, "2": 1}, 2),  # a given value
        (["a", "b", "c"], {"a": 0, "b": 3, "c": "1"}, 2),  # a given value, quoted
    ):
        values = ClassMapping.from_spec(classes, spec)
        assert values.index_of(number) == values.indices(raw)[0, 0] == expected
    assert ClassMapping.from_spec(["1", "2"], by_index=True).index_of(number) == 1


def test_classes_named_by_numbers_have_these_values() -> None:
    values = ClassMapping.from_spec(["111", "112", "255"])
    raw = np.array([[111, 112, 255, 0]], dtype="uint8")
    assert values.indices(raw).tolist() == [[0, 1, 2, UNKNOWN]]
    assert values.describe() == "111 (111), 112 (112), 255 (255)"
    values = ClassMapping.from_spec(["bg", "caf\u00e9"], {"bg": 0, "cafe\u0301": 7})
    assert values.classes[1] == "caf\u00e9" and values.index_by_number[7] == 1
    assert ClassMapping.from_spec(["1_0", "1_1", "\u0663"]).values == ((0,), (1,), (2,))
    given = ClassMapping.from_spec(["1", "2"], {"1": 10, "2": 20})
    result = [given.index_of(value) for value in (1, "1", 10, "20", 3)]
    assert result == [0, 0, 0, 1, UNKNOWN]
    with raises("class-values", key="data.class_values", mentions=["1", "other"]):
        ClassMapping.from_spec(["1", "other"])  # 1 is the name of one and the index of the other
    with raises("class-values", key="data.class_values", mentions=["1", "a", "b"]):
        ClassMapping.from_spec(["a", "b"], {"a": "1", "b": 1})


def test_class_values_must_match_the_classes() -> None:
    with raises("class-values", key="data.class_values", mentions=["'wod'", "mean wood"]):
        ClassMapping.from_spec(LAND, {"water": 0, "wod": 1, "field": 2})
    with raises("class-values", key="data.class_values", mentions=["field"]):
        ClassMapping.from_spec(LAND, {"water": 0, "wood": 1})
    with raises("class-values", key="data.class_values", mentions=["1", "wood", "field"]):
        ClassMapping.from_spec(LAND, {"water": 0, "wood": 1, "field": 1})


# ---------------------------------------------------------------- rasters
COLORS = {"water": 0x0000FF, "wood": [0x00FF00, 0x008000], "field": 0xFFFF00}


def test_colors_map_to_classes(scene: RasterSource, write_raster: Any) -> None:
    mask = np.zeros((3, 30, 40), dtype="uint8")
    mask[2] = 255
    mask[:, :5] = np.array([0, 128, 0])[:, None, None]
    mask[:, 5:7] = np.array([255, 255, 0])[:, None, None]
    path = write_raster("mask.tif", mask)
    labels = open_labels(path, scene, classes=LAND, class_values=COLORS)
    result = labels.read(_whole(scene)).mask  # type: ignore[attr-defined]  # a mask
    assert (result[:5] == 1).all() and (result[5:7] == 2).all() and (result[7:] == 0).all()
    mask[:, 29, 39] = 1, 2, 3
    labels = open_labels(write_raster("b.tif", mask), scene, classes=LAND, class_values=COLORS)
    known = "wood (0x00FF00 or 0x008000)"
    with raises("class-unknown", mentions=["0x010203 (1 pixels)", known]):
        labels.check([_whole(scene)])


@pytest.mark.parametrize(
    ("bands", "dtype", "values"),
    [(3, "uint8", None), (2, "uint8", COLORS), (3, "uint16", COLORS), (5, "uint8", COLORS)],
)
def test_masks_of_several_bands_without_colors_raise(
    scene: RasterSource, write_raster: Any, bands: int, dtype: str, values: Any
) -> None:
    path = write_raster("mask.tif", np.zeros((bands, 30, 40), dtype=dtype))
    with raises("class-values", file=path, mentions=[f"{bands} bands"]):
        open_labels(path, scene, classes=LAND, class_values=values)


def test_raster_labels_on_the_scenes_grid(scene: RasterSource, write_raster: Any) -> None:
    values = np.random.default_rng(0).choice([0, 1, 2, 255], (30, 40)).astype("uint8")
    labels = open_labels(write_raster("l.tif", values), scene, classes=LAND)
    assert (labels.read(_whole(scene)).mask == values).all()
    beyond = labels.read(Window(-1, 38, 3, 4)).mask
    assert (beyond[1:, :2] == values[:2, 38:]).all()
    assert (beyond[0] == IGNORE).all() and (beyond[:, 2:] == IGNORE).all()


def test_raster_labels_of_another_size_raise(scene: RasterSource, write_raster: Any) -> None:
    path = write_raster("l.tif", np.zeros((30, 39), dtype="uint8"))
    with raises("grid-mismatch", file=path, mentions=["30x39", scene.path, "30x40"]):
        open_labels(path, scene, classes=LAND)
    plain = write_raster("p.tif", np.zeros((29, 40), dtype="uint8"), crs=None)
    with raises("grid-mismatch", file=plain, mentions=["29x40", scene.path, "30x40"]):
        open_labels(plain, scene, classes=LAND)


def test_raster_labels_on_another_grid_are_reprojected(
    scene: RasterSource, write_raster: Any
) -> None:
    coarse = np.random.default_rng(0).integers(0, 3, (10, 10)).astype("uint8")
    # pixels three times the scene's, from its column 6 and row 3 on
    path = write_raster("l.tif", coarse, transform=from_origin(500_060, 4_999_970, 30, 30))
    labels = open_labels(path, scene, classes=LAND)
    mask = labels.read(_whole(scene)).mask
    assert (mask[3:30, 6:36] == coarse.repeat(3, 0).repeat(3, 1)[:27]).all()
    assert (mask[:3] == IGNORE).all() and (mask[:, :6] == IGNORE).all()
    assert (mask[:, 36:] == IGNORE).all()
    assert labels.overlaps and "another grid" in labels.notes[0]
    far = write_raster("f.tif", coarse, transform=from_origin(900_060, 4_999_970, 30, 30))
    assert open_labels(far, scene, classes=LAND).overlaps is False


def test_reprojected_labels_keep_a_class_whose_value_is_nodata(
    scene: RasterSource, write_raster: Any
) -> None:
    values = np.zeros((30, 40), dtype="uint8")
    path = write_raster(
        "l.tif", values, nodata=0, transform=from_origin(500_050, 5_000_000, 10, 10)
    )
    labels = open_labels(path, scene, classes=LAND)
    mask = labels.read(_whole(scene)).mask
    assert (mask[:, 5:] == 0).all() and (mask[:, :5] == IGNORE).all()
    assert any("nodata value 0 maps to water" in note for note in labels.notes)


def test_reprojected_labels_of_wide_integers(scene: RasterSource, write_raster: Any) -> None:
    path = write_raster(
        "l.tif", np.ones((30, 40), dtype="int16"), transform=from_origin(500_050, 5_000_000, 10, 10)
    )
    mask = open_labels(path, scene, classes=LAND, ignore_values=[]).read(_whole(scene)).mask
    assert (mask[:, 5:] == 1).all() and (mask[:, :5] == IGNORE).all()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32"])
def test_no_value_is_lost_on_another_grid(
    scene: RasterSource, write_raster: Any, dtype: str
) -> None:
    """Neither the lowest nor the highest value marks pixels outside the file."""
    info = np.iinfo(dtype)
    values = np.full((30, 40), info.min, dtype=dtype)
    values[:, 20:] = info.max
    for transform in (scene.transform, from_origin(500_050, 5_000_000, 10, 10)):
        path = write_raster("l.tif", values, transform=transform)
        labels = open_labels(path, scene, classes=LAND, ignore_values=[])
        with raises("class-unknown", file=path, mentions=[str(info.max)]):
            labels.check([_whole(scene)])
        spec = {"water": int(info.min), "wood": int(info.max), "field": 3}
        labels = open_labels(path, scene, classes=LAND, class_values=spec, ignore_values=[])
        mask = labels.read(_whole(scene)).mask  # type: ignore[attr-defined]
        shift = round((transform.c - scene.transform.c) / 10)
        assert (mask[:, :shift] == IGNORE).all()
        assert (mask[:, shift:] == (values == info.max)[:, : 40 - shift]).all()


def test_unknown_raster_values_raise(scene: RasterSource, write_raster: Any) -> None:
    values = np.zeros((30, 40), dtype="uint8")
    values[0, :3] = 9
    labels = open_labels(write_raster("l.tif", values), scene, classes=LAND)
    with raises(
        "class-unknown",
        file=labels.path,
        mentions=["9 (3 pixels)", "water (0)", "data.ignore_values"],
    ):
        labels.read(_whole(scene))


def test_raster_labels_with_a_crs_need_a_scene_with_one(write_raster: Any) -> None:
    plain = open_raster(write_raster("s.tif", np.ones((5, 5), dtype="uint8"), crs=None))
    path = write_raster("l.tif", np.zeros((5, 5), dtype="uint8"))
    with raises("crs-missing", file=plain.path, mentions=[path]):
        open_labels(path, plain, classes=LAND)


def test_color_masks_without_class_values_raise(scene: RasterSource, write_raster: Any) -> None:
    path = write_raster("l.tif", np.zeros((3, 30, 40), dtype="uint8"))
    with raises("class-values", file=path, mentions=["3 bands"]):
        open_labels(path, scene, classes=LAND)


# ---------------------------------------------------------------- polygons
SHIP = Polygon([(3.2, 4.1), (20.7, 6.3), (18.2, 22.9), (5.1, 15.4)])


@pytest.mark.parametrize("crs", [None, "EPSG:4326", "EPSG:3857", "EPSG:32634"])
def test_polygons_in_any_crs(scene: RasterSource, write_polygons: Any, crs: str | None) -> None:
    path = write_polygons("l.gpkg", [SHIP], to=crs, **{"class": ["ship"]})
    labels = open_labels(path, scene, classes=SHIPS)
    expected = _centres_in(SHIP, scene.shape)
    assert expected.sum() > 100
    assert (labels.read(_whole(scene)).mask == expected).all()


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326"])
@pytest.mark.parametrize(
    "transform",
    [
        Affine(10, 0, 500_000, 0, 10, 5_000_000),  # south at the top
        Affine(-10, 0, 500_000, 0, -10, 5_000_000),  # east at the left
        Affine(-10, 0, 500_000, 0, 10, 5_000_000),
        Affine(8, 6, 500_000, 6, -8, 5_000_000),
        Affine(0, 10, 500_000, 10, 0, 5_000_000),
    ],
)
def test_vector_labels_of_scenes_in_any_orientation(
    write_raster: Any, tmp_path: Path, transform: Any, crs: str
) -> None:
    scene = open_raster(
        write_raster("s.tif", np.ones((1, 30, 40), dtype="uint8"), transform=transform)
    )
    shape = shapely.affinity.affine_transform(SHIP, transform.to_shapely())
    path = tmp_path / "ship.gpkg"
    frame = geopandas.GeoDataFrame(geometry=[shape], crs="EPSG:32633").to_crs(crs)
    frame.to_file(path)
    labels = open_labels(path, scene, classes=SHIPS)
    expected = rasterize([(shape, 1)], out_shape=(30, 40), transform=transform)
    assert (labels.read(_whole(scene)).mask == expected).all()  # type: ignore[attr-defined]
    objects = read_vector(path, scene, AnnotationOptions()).annotations
    corner = SHIP.exterior.coords[0]
    assert objects[0].points[0] == pytest.approx(corner, abs=0.01)
    frame.set_geometry(
        geopandas.points_from_xy(*frame.geometry[0].exterior.xy)[:1], crs=crs
    ).to_file(path)
    assert read_points(path, scene)[0] == pytest.approx(corner, abs=0.01)


def test_long_edges_are_densified_before_reprojection(write_raster: Any, tmp_path: Path) -> None:
    wide = open_raster(
        write_raster(
            "wide.tif",
            np.ones((1, 300, 300), dtype="uint8"),
            transform=from_origin(300_000, 7_800_000, 2000, 2000),
        )
    )
    shape = box(11, 66, 22, 69)
    frame = geopandas.GeoDataFrame(geometry=[shape], crs="EPSG:4326")
    frame.to_file(tmp_path / "l.geojson")
    mask = open_labels(tmp_path / "l.geojson", wide, classes=SHIPS).read(_whole(wide)).mask
    cols, rows = np.meshgrid(np.arange(300) + 0.5, np.arange(300) + 0.5)
    lon, lat = warp_points(
        "EPSG:32633", "EPSG:4326", 300_000 + 2000 * cols.ravel(), 7_800_000 - 2000 * rows.ravel()
    )
    expected = shapely.contains_xy(shape, lon, lat).reshape(300, 300)
    assert expected.sum() > 10_000
    assert (mask != expected).sum() < 20  # straight edges miss some 500


def test_scene_across_the_180th_meridian(write_raster: Any, tmp_path: Path) -> None:
    grid: Any = dict(crs="EPSG:32660", transform=from_origin(820_000, 5_000, 100, 100))
    raster = open_raster(write_raster("s.tif", np.ones((1, 100, 300), dtype="uint8"), **grid))
    sides = [box(179.9, -0.05, 179.95, 0.05), box(-179.99, -0.05, -179.95, 0.05)]
    frame = geopandas.GeoDataFrame({"class": ["west", "east"]}, geometry=sides, crs="EPSG:4326")
    frame.to_file(tmp_path / "l.geojson")
    labels = open_labels(tmp_path / "l.geojson", raster, classes=["none", "west", "east"])
    mask = labels.read(_whole(raster)).mask
    west, east = np.argwhere(mask == 1)[:, 1], np.argwhere(mask == 2)[:, 1]
    assert len(west) > 1000 and len(east) > 1000 and west.max() < east.min()


@pytest.mark.parametrize("suffix", ["geojson", "shp", "gpkg"])
def test_vector_formats(scene: RasterSource, write_polygons: Any, suffix: str) -> None:
    path = write_polygons(f"l.{suffix}", [SHIP], **{"class": ["Ship"]})
    mask = open_labels(path, scene, classes=SHIPS).read(_whole(scene)).mask
    assert (mask == _centres_in(SHIP, scene.shape)).all()


corners = st.tuples(st.floats(-5, 45), st.floats(-5, 35))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.tuples(corners, corners, corners), st.integers(0, 2)), max_size=5),
    st.integers(3, 19),
)
def test_windows_of_polygons_equal_crops_of_the_whole(shapes: Any, size: int) -> None:
    polygons = np.array([shapely.make_valid(Polygon(points)) for points, _ in shapes], dtype=object)
    flat = [shape.geom_type != "Polygon" for shape in polygons]
    labels = PolygonLabels(
        path=Path("l.gpkg"),
        classes=tuple(LAND),
        shape=(30, 40),
        polygons=polygons[~np.array(flat, dtype=bool)],
        indices=np.array([i for _, i in shapes], dtype=np.int64)[~np.array(flat, dtype=bool)],
        outside=IGNORE,
        overlaps=True,
        notes=(),
    )
    whole = labels.read(Window(0, 0, 30, 40)).mask
    for window in grid_windows((30, 40), size):
        part = labels.read(window).mask
        inner = window.clip((30, 40))
        assert inner is not None
        assert (
            part[: inner.height, : inner.width] == whole[inner.slices_in(Window(0, 0, 30, 40))]
        ).all()


def test_polygons_with_many_vertices_are_clipped_without_loss(
    scene: RasterSource, write_polygons: Any
) -> None:
    round_one = Point(20, 15).buffer(12, quad_segs=400)
    labels = open_labels(write_polygons("l.gpkg", [round_one]), scene, classes=SHIPS)
    whole = _centres_in(round_one, scene.shape)
    for window in grid_windows(scene.shape, 10):
        rows, cols = window.slices_in(_whole(scene))
        assert (labels.read(window).mask == whole[rows, cols]).all()


def test_later_polygons_lie_on_top(scene: RasterSource, write_polygons: Any) -> None:
    shapes = [box(0, 0, 10, 10), box(5, 5, 15, 15), box(0, 0, 6, 6)]
    path = write_polygons("l.gpkg", shapes, kind=["wood", "field", "water"])
    mask = open_labels(path, scene, classes=LAND, class_field="kind").read(_whole(scene)).mask
    assert (mask[7, 2], mask[7, 7], mask[5, 5], mask[20, 20]) == (1, 2, 0, IGNORE)


def test_pixels_outside_polygons(scene: RasterSource, write_polygons: Any) -> None:
    path = write_polygons("l.gpkg", [box(0, 0, 5, 5)])
    for classes, unlabelled, expected in (
        (SHIPS, None, 0),
        (["Background", "ship"], None, 0),
        (["other", "ship"], None, IGNORE),
        (["other", "ship"], "background", 0),
        (SHIPS, "ignore", IGNORE),
    ):
        labels = open_labels(path, scene, classes=classes, unlabelled=unlabelled)  # type: ignore[arg-type]
        mask = labels.read(_whole(scene)).mask
        assert mask[20, 20] == expected and mask[2, 2] == 1


def test_class_values_map_numbers_in_polygons(scene: RasterSource, write_polygons: Any) -> None:
    path = write_polygons("l.gpkg", [box(0, 0, 5, 5)], label=[3])
    values = {"water": 1, "wood": 2, "field": 3}
    labels = open_labels(path, scene, classes=LAND, class_values=values)
    assert labels.read(_whole(scene)).mask[2, 2] == 2


def test_unknown_classes_of_polygons_raise(scene: RasterSource, write_polygons: Any) -> None:
    path = write_polygons("l.gpkg", [SHIP, SHIP, SHIP], **{"class": ["ship", "buoy", "buoy"]})
    with raises("class-unknown", file=path, mentions=["'buoy' (2 features)"]):
        open_labels(path, scene, classes=SHIPS)
    assert open_labels(path, scene, classes=SHIPS, class_field="").read(_whole(scene)).mask.any()
    with raises("class-field", key="data.class_field", file=path, mentions=["'kind'", "has class"]):
        open_labels(path, scene, classes=SHIPS, class_field="kind")
    silent = write_polygons("s.gpkg", [SHIP], owner=["a"])
    with raises("class-field", key="data.class_field", mentions=["water, wood, field", "owner"]):
        open_labels(silent, scene, classes=LAND)


def test_crs_of_only_scene_or_polygons_raises(
    scene: RasterSource, write_raster: Any, write_polygons: Any
) -> None:
    plain = open_raster(write_raster("plain.tif", np.ones((5, 5), dtype="uint8"), crs=None))
    labels = write_polygons("l.geojson", [SHIP])
    with raises("crs-missing", file=plain.path, mentions=[labels]):
        open_labels(labels, plain, classes=SHIPS)
    with rasterio.open(plain.path, "r+") as file:
        file.gcps = [GroundControlPoint(0, 0, 500_000, 5_000_000)], CRS.from_epsg(32633)
    with raises("crs-missing", file=plain.path, mentions=["gdalwarp", "ground control points"]):
        open_labels(labels, open_raster(plain.path), classes=SHIPS)
    local = write_raster(
        "local.tif", np.ones((5, 5), dtype="uint8"), crs='LOCAL_CS["x",UNIT["metre",1]]'
    )
    with raises("crs-incompatible", file=labels, mentions=[local, "GeoPackage"]):
        open_labels(labels, open_raster(local), classes=SHIPS)
    lost = write_polygons("l.shp", [SHIP], crs=None)
    with raises("crs-missing", file=lost, mentions=[scene.path]):
        open_labels(lost, scene, classes=SHIPS)


def test_polygons_elsewhere_do_not_overlap(scene: RasterSource, write_polygons: Any) -> None:
    far = open_labels(write_polygons("f.gpkg", [box(900, 900, 910, 910)]), scene, classes=SHIPS)
    assert far.overlaps is False and not far.read(_whole(scene)).mask.any()


@pytest.mark.parametrize("classes", [SHIPS, ["background", "a", "b"]])
def test_file_without_polygons_is_background(
    scene: RasterSource, tmp_path: Path, classes: list[str]
) -> None:
    path = tmp_path / "none.geojson"
    path.write_text('{"type": "FeatureCollection", "features": []}')
    labels = open_labels(path, scene, classes=classes)
    assert labels.overlaps is None and not labels.read(_whole(scene)).mask.any()


def test_invalid_polygons_are_made_valid(scene: RasterSource, write_polygons: Any) -> None:
    bow = Polygon([(2, 2), (22, 22), (22, 2), (2, 22)])
    flat = Polygon([(30, 2), (30, 9), (30, 4), (30, 2)])
    labels = open_labels(write_polygons("l.gpkg", [bow, flat]), scene, classes=SHIPS)
    mask = labels.read(_whole(scene)).mask
    assert mask[12, 4] == mask[12, 20] == 1 and mask[4, 12] == 0
    assert not mask[:, 25:].any()


def test_points_as_polygon_labels_raise(scene: RasterSource, write_polygons: Any) -> None:
    with raises("geometry-type", mentions=["1 features", "Point"]):
        open_labels(write_polygons("l.gpkg", [Point(3, 3)]), scene, classes=SHIPS)


def test_unreadable_label_files_raise(scene: RasterSource, tmp_path: Path) -> None:
    with raises("file-missing", key="data.labels", file=tmp_path / "gone.geojson"):
        open_labels(tmp_path / "gone.geojson", scene, classes=SHIPS)
    (tmp_path / "bad.geojson").write_text('{"type": "FeatureCol')
    with raises("file-unreadable", file=tmp_path / "bad.geojson"):
        open_labels(tmp_path / "bad.geojson", scene, classes=SHIPS)


def test_invalid_geometry_raises_with_its_feature(scene: RasterSource, tmp_path: Path) -> None:
    """A ring that starts with NaN is not closed; GEOS does not report the feature."""
    rings = [[[0, 0], [9, 0], [9, 9], [0, 0]], [[math.nan, 0], [9, 0], [9, 9], [math.nan, 0]]]
    shapes = [None, *({"type": "Polygon", "coordinates": [ring]} for ring in rings)]
    features = [{"type": "Feature", "properties": {}, "geometry": shape} for shape in shapes]
    path = tmp_path / "l.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    with raises("row-invalid", file=path, mentions=["feature 3"]):
        open_labels(path, scene, classes=SHIPS)


def test_features_without_geometry_are_ignored(scene: RasterSource, tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame({"class": ["ship"]}, geometry=[None], crs="EPSG:4326")
    frame.to_file(tmp_path / "l.geojson")
    labels = open_labels(tmp_path / "l.geojson", scene, classes=SHIPS)
    assert labels.overlaps is None and "1 features without geometry" in labels.notes[0]
