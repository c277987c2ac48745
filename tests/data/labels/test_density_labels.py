"""Density maps sum to the number of objects, for any window, orientation and sigma."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import Point, box

from geotune.data.labels.density_labels import DensityLabels, open_density_labels
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window, grid_windows
from geotune.data.scenes.open_scenes import open_scenes
from helpers.errors import raises

SHAPE = (40, 56)


def labels(points: Any, sigma: float) -> DensityLabels:
    result = np.array(points, dtype=np.float64).reshape(-1, 2)
    return DensityLabels(Path("x"), ("trees",), SHAPE, result, sigma, True, ())


points_in_scene = st.lists(st.tuples(st.floats(0, 55.999), st.floats(0, 39.999)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(points=points_in_scene, sigma=st.floats(0.2, 20), size=st.integers(3, 64))
def test_windows_of_a_grid_sum_to_the_scene(
    points: list[tuple[float, float]], sigma: float, size: int
) -> None:
    made = labels(points, sigma)
    whole = made.read(Window(0, 0, *SHAPE))
    assert whole.values.sum(dtype=np.float64) == pytest.approx(len(points), abs=1e-4)
    assert (whole.values >= 0).all() and whole.counts.sum() == len(points)
    parts = [made.read(window) for window in grid_windows(SHAPE, size)]
    assert sum(np.nansum(part.values, dtype=np.float64) for part in parts) == pytest.approx(
        len(points), abs=1e-4
    )
    assert sum(part.counts.sum() for part in parts) == len(points)
    cut = made.read(Window(7, 11, 9, 13)).values
    np.testing.assert_allclose(cut, whole.values[7:16, 11:24], atol=1e-6)


@given(points=points_in_scene, orientation=st.integers(0, 7))
@settings(max_examples=30, deadline=None)
def test_orientations_keep_the_sum_and_move_objects_with_their_density(
    points: list[tuple[float, float]], orientation: int
) -> None:
    target = labels(points, 0.2).read(Window(0, 0, *SHAPE))
    turned = target.rotate90_flip(orientation)
    assert turned.values.sum() == pytest.approx(target.values.sum(), abs=1e-4)
    assert turned.counts.sum() == target.counts.sum()
    if points:
        # an object is where its density is highest, or shared with a neighbour
        assert turned.values[turned.counts > 0].min() > 0.2


def test_object_at_the_corner_sums_to_one_and_peaks_there() -> None:
    values = labels([(0.1, 0.1)], 3).read(Window(0, 0, *SHAPE)).values
    assert values.sum() == pytest.approx(1) and values.argmax() == 0


def test_window_contains_the_tail_of_an_object_outside() -> None:
    part = labels([(19.5, 20.5)], 2).read(Window(0, 20, 40, 20))
    # everything right of column 20: the mass beyond half a pixel from the centre
    assert 0.35 < part.values.sum() < 0.45 and part.counts.sum() == 0


def test_sigma_is_the_standard_deviation() -> None:
    values = labels([(28.0, 20.0)], 3).read(Window(0, 0, *SHAPE)).values.astype(np.float64)
    columns = np.arange(SHAPE[1]) + 0.5
    share = values.sum(axis=0)
    assert np.sqrt((share * (columns - 28) ** 2).sum()) == pytest.approx(3, rel=0.01)


def test_masked_pixels_are_not_counted() -> None:
    target = labels([(5.5, 5.5), (30.5, 5.5)], 0.2).read(Window(0, 0, *SHAPE))
    valid = np.ones(SHAPE, dtype=bool)
    valid[:, :20] = False
    shown = target.masked(valid)
    assert np.isnan(shown.values[:, :20]).all() and np.nansum(shown.values) == pytest.approx(1)
    assert [(index, list(where)) for index, where in shown.class_positions()] == [
        (0, [5 * 56 + 30])
    ]
    assert shown.has_labels and not shown.masked(np.zeros(SHAPE, dtype=bool)).has_labels
    beyond = labels([(1, 1)], 2).read(Window(-4, -4, 8, 8))
    assert np.isnan(beyond.values[:4]).all() and np.isnan(beyond.values[:, :4]).all()


# ---------------------------------------------------------------- files
@pytest.fixture
def scene(write_raster: Callable[..., Path]) -> RasterSource:
    return open_raster(write_raster("s.tif", np.ones((1, *SHAPE), dtype="uint8")))


def test_csv_in_pixels_or_coordinates_and_points_in_another_crs_are_equal(
    tmp_path: Path, scene: RasterSource
) -> None:
    at = [(3.0, 4.0), (50.5, 30.25)]
    there = [scene.transform @ point for point in at]
    (tmp_path / "p.csv").write_text("Y , x,kind\n" + "\n".join(f"{y},{x},oak" for x, y in at))
    (tmp_path / "c.csv").write_text("x,y\n" + "\n".join(f"{x},{y}" for x, y in there) + "\n")
    frame = geopandas.GeoDataFrame(geometry=[Point(p) for p in there], crs=scene.crs.to_wkt())  # type: ignore[union-attr]
    frame.to_crs("EPSG:4326").to_file(tmp_path / "p.geojson")
    frame.to_file(tmp_path / "p.gpkg")
    for name, xy in (
        ("p.csv", "pixels"),
        ("c.csv", "coordinates"),
        ("p.geojson", "pixels"),
        ("p.gpkg", "pixels"),
    ):
        result = open_density_labels(tmp_path / name, scene, objects="trees", xy=xy)  # type: ignore[arg-type]
        np.testing.assert_allclose(result.points, at, atol=1e-2)
        assert result.overlaps and result.classes == ("trees",) and result.label_unit == "object"


def test_sigma_in_metres_becomes_pixels(
    tmp_path: Path, scene: RasterSource, write_raster: Any
) -> None:
    (tmp_path / "p.csv").write_text("x,y\n1,1\n")
    opened = open_density_labels(tmp_path / "p.csv", scene, objects="trees", sigma="25 m")
    assert opened.sigma == 2.5
    plain = open_raster(write_raster("plain.tif", np.ones((1, 4, 4), dtype="uint8"), crs=None))
    with raises("metadata-missing", key="data.sigma", file=plain.path):
        open_density_labels(tmp_path / "p.csv", plain, objects="trees", sigma="25 m")


def test_missing_and_empty_files_have_no_objects(tmp_path: Path, scene: RasterSource) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "head.csv").write_text("x,y\n")
    for name in ("gone.csv", "empty.csv", "head.csv"):
        result = open_density_labels(tmp_path / name, scene, objects="trees")
        assert result.overlaps is None
        assert (result.read(Window(0, 0, *SHAPE)).values == 0).all()


def test_points_outside_the_scene_are_noted(tmp_path: Path, scene: RasterSource) -> None:
    (tmp_path / "p.csv").write_text("x,y\n1,1\n56,3\n-1,3\n")
    result = open_density_labels(tmp_path / "p.csv", scene, objects="trees")
    assert len(result.points) == 1
    assert "2 of 3 points" in result.notes[0]


def test_coordinates_that_are_read_as_pixels_are_explained(
    tmp_path: Path, write_raster: Any
) -> None:
    scene = write_raster("a.tif", np.ones((1, *SHAPE), dtype="uint8"))
    (tmp_path / "a.csv").write_text("x,y\n500055,4999905\n500155,4999805\n")
    options: Any = {"scenes": str(scene), "labels": f"{tmp_path}/{{stem}}.csv"}
    with raises("labels-outside", file=tmp_path / "a.csv", mentions="data.points: coordinates"):
        open_scenes(partial(open_density_labels, objects="trees"), **options)
    read = partial(open_density_labels, objects="trees", xy="coordinates")
    [found] = open_scenes(read, **options)
    np.testing.assert_allclose(found.labels.points, [[5.5, 9.5], [15.5, 19.5]])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "code", "mentions"),
    [
        ("a,b\n1,2\n", "column-missing", ["'a, b'", "x and y"]),
        ("x,y\n1,2\nn,3\n", "row-invalid", ["line 3", "'n 3'"]),
        ("x,y\n1\n", "row-invalid", ["line 2", "1 values", "2 columns"]),
        ("x,y\n1,nan\n", "row-invalid", ["line 2", "not finite"]),
    ],
)
def test_invalid_csv_raises_with_its_line(
    tmp_path: Path, scene: RasterSource, text: str, code: str, mentions: list[str]
) -> None:
    (tmp_path / "p.csv").write_text(text)
    with raises(code, file=tmp_path / "p.csv", mentions=mentions):
        open_density_labels(tmp_path / "p.csv", scene, objects="trees")


def test_polygons_as_points_raise(scene: RasterSource, write_polygons: Any) -> None:
    with raises("geometry-type", mentions=["Polygon"]):
        open_density_labels(write_polygons("p.gpkg", [box(1, 1, 3, 3)]), scene, objects="trees")
