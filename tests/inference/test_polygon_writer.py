"""Polygons are written to a GeoPackage in batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
import shapely.affinity
from rasterio.crs import CRS
from rasterio.transform import from_origin

from geotune.inference.polygon_writer import PolygonOptions, write_polygons
from geotune.inference.polygonize import Region
from geotune.inference.right_angles import square_up
from helpers.errors import raises

UTM = CRS.from_epsg(32633)
TEN_METRES = from_origin(5e5, 5e6, 10, 10)


def test_all_batches_are_written_and_georeferenced(tmp_path: Path) -> None:
    corners = np.arange(6000)
    boxes = shapely.box(corners, 0, corners + 1, 2)
    count = write_polygons(
        tmp_path / "boxes.gpkg",
        (Region(i % 2, one, 0.25) for i, one in enumerate(boxes)),
        ["land", "water"],
        shape=(2, 6000),
        crs=UTM,
        transform=from_origin(5e5, 5e6, 10, 20),
    )
    table = pyogrio.read_dataframe(tmp_path / "boxes.gpkg")
    assert count == len(table) == 6000
    assert table["class"].value_counts().to_dict() == {"land": 3000, "water": 3000}
    assert (table["pixels"] == 2).all()
    assert (table["area_m2"] == 400).all()
    assert (table["score"] == 0.25).all()
    last = table[table.geometry.centroid.x == 5e5 + 59995]
    assert last.geometry.iloc[0].bounds == (559990, 4999960, 560000, 5000000)


def pixels_of(shape: shapely.Polygon, size: int = 60) -> shapely.Polygon:
    """The outline of the pixels whose centre lies in a shape."""
    rows, cols = np.mgrid[:size, :size] + 0.5
    mask = shapely.contains_xy(shape, cols, rows)
    squares = shapely.box(cols - 0.5, rows - 0.5, cols + 0.5, rows + 0.5)
    return shapely.union_all(squares[mask])


@pytest.mark.parametrize("angle", [0, 17, 45, 80])
@pytest.mark.parametrize(
    "shape",
    [shapely.box(15, 20, 45, 38), shapely.box(15, 15, 45, 45) - shapely.box(30, 30, 50, 50)],
    ids=["rectangle", "L"],
)
def test_right_angles_recover_a_turned_building(shape: shapely.Polygon, angle: float) -> None:
    building = shapely.affinity.rotate(shape, angle, origin=(30, 30))
    squared = square_up(shapely.simplify(pixels_of(building), 1.5))
    assert len(squared.exterior.coords) == len(building.exterior.coords)
    edges = np.diff(shapely.get_coordinates(squared), axis=0)
    assert (edges * np.roll(edges, -1, axis=0)).sum(axis=1) == pytest.approx(0, abs=1e-9)
    assert squared.intersection(building).area / squared.union(building).area > 0.9


def test_a_shape_that_is_no_building_keeps_its_angles() -> None:
    triangle = shapely.Polygon([(0, 0), (40, 3), (20, 30)])
    assert square_up(triangle) == triangle


def test_options_select_and_simplify_polygons(tmp_path: Path) -> None:
    shapes = [pixels_of(shapely.Point(30, 30).buffer(radius)) for radius in (2, 5, 20)]

    def write(options: PolygonOptions) -> pyogrio.read_dataframe:
        path = tmp_path / "p.gpkg"
        path.unlink(missing_ok=True)
        regions = [Region(1, one, 0.5) for one in shapes]
        count = write_polygons(
            path, regions, ["land", "ship"], shape=(60, 60), crs=UTM, transform=TEN_METRES,
            options=options,
        )  # fmt: skip
        table = pyogrio.read_dataframe(path)
        assert count == len(table)
        return table

    whole = write(PolygonOptions())
    assert len(write(PolygonOptions(min_area=f"{shapes[1].area} px"))) == 2
    assert len(write(PolygonOptions(min_area=f"{shapes[1].area * 100 + 1} m2"))) == 1
    simple = write(PolygonOptions(simplify="10 m"))
    assert list(simple["pixels"]) == list(whole["pixels"])
    assert (
        simple.geometry.count_coordinates().iloc[2]
        < 40
        < whole.geometry.count_coordinates().iloc[2]
    )
    assert simple.geometry.hausdorff_distance(whole.geometry).max() <= 10
    assert simple.area.to_numpy() == pytest.approx(simple["area_m2"])


@pytest.mark.parametrize("option", ["min_area", "simplify"])
def test_quantities_need_a_unit_that_the_scene_has(option: str) -> None:
    name = f"--{option.replace('_', '-')}"
    with raises("option-invalid", mentions=[name, "px"]):
        PolygonOptions(**{option: "50"})
    in_metres = PolygonOptions(**{option: "5 m2" if option == "min_area" else "5 m"})
    in_metres.check_scene(UTM, TEN_METRES, (9, 9))
    with raises("pixel-size-missing", mentions=["px"]):
        in_metres.check_scene(None, TEN_METRES, (9, 9))
