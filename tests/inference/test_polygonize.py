"""Polygonization: exact areas, one polygon per 4-connected region, for all bands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from geotune.inference.polygonize import Region, polygonize

Map = NDArray[np.uint8]
maps = arrays(
    np.uint8,
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    elements=st.sampled_from([0, 1, 2, 255]),
)


def polygons_of(values: Map, rows: int, **options: Any) -> list[Region]:
    return list(
        polygonize(
            lambda top, bottom: values[top:bottom],
            values.shape,
            frozenset({0, 255}),
            band_pixels=rows * values.shape[1],
            **options,
        )
    )


def rasterize(polygons: list[Region], shape: tuple[int, int]) -> Map:
    """Draw polygons by pixel centres."""
    canvas = np.zeros(shape, dtype=np.uint8)
    rows, cols = np.mgrid[: shape[0], : shape[1]] + 0.5
    for value, polygon, _ in polygons:
        inside = shapely.contains_xy(polygon, cols, rows)
        assert not canvas[inside].any()
        canvas[inside] = value
    return canvas


@settings(deadline=None)
@given(values=maps, rows=st.integers(1, 15))
def test_bands_do_not_change_the_polygons(values: Map, rows: int) -> None:
    whole = polygons_of(values, values.shape[0])
    cut = polygons_of(values, rows)
    assert all(polygon.is_valid and polygon.geom_type == "Polygon" for _, polygon, _ in cut)
    np.testing.assert_array_equal(rasterize(cut, values.shape), np.where(values == 255, 0, values))
    key = lambda one: (one[0], one[1].normalize().wkt)  # noqa: E731
    assert sorted(map(key, cut)) == sorted(map(key, whole))


@settings(deadline=None)
@given(values=maps, rows=st.integers(1, 6), limit=st.integers(0, 40))
def test_vertex_limit_splits_objects_without_loss(values: Map, rows: int, limit: int) -> None:
    cut = polygons_of(values, rows, max_vertices=limit)
    assert all(polygon.is_valid and polygon.geom_type == "Polygon" for _, polygon, _ in cut)
    np.testing.assert_array_equal(rasterize(cut, values.shape), np.where(values == 255, 0, values))


@settings(deadline=None)
@given(values=maps, rows=st.integers(1, 15))
def test_score_is_the_mean_over_the_pixels_of_the_region(values: Map, rows: int) -> None:
    scores = np.arange(values.size, dtype=np.float32).reshape(values.shape)
    regions = polygons_of(values, rows, read_scores=lambda top, bottom: scores[top:bottom])
    y, x = np.mgrid[: values.shape[0], : values.shape[1]] + 0.5
    for region in regions:
        inside = shapely.contains_xy(region.polygon, x, y)
        assert region.score == pytest.approx(scores[inside].mean())


def test_vertex_limit_holds_for_a_region_across_the_map() -> None:
    comb = np.zeros((400, 40), dtype=np.uint8)
    comb[:, 0] = 1
    comb[::2] = 1
    assert len(polygons_of(comb, 10)) == 1
    pieces = polygons_of(comb, 10, max_vertices=100)
    assert max(shapely.get_num_coordinates(polygon) for _, polygon, _ in pieces) < 200
    assert sum(polygon.area for _, polygon, _ in pieces) == comb.sum()


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_arms_that_meet_below_form_one_polygon(rows: int) -> None:
    values = np.array(
        [[1, 0, 1, 0, 2], [1, 0, 1, 0, 2], [1, 0, 1, 0, 2], [1, 1, 1, 1, 1], [1, 0, 0, 0, 1]],
        dtype=np.uint8,
    )
    polygons = polygons_of(values, rows)
    assert sorted((value, polygon.area) for value, polygon, _ in polygons) == [(1, 13), (2, 3)]


def test_diagonal_pixels_are_not_connected() -> None:
    assert len(polygons_of(np.eye(4, dtype=np.uint8), 1)) == 4
