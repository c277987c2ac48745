"""Polygons of a map: exact areas, one for each 4-connected area, however the map is cut."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from shapely import Polygon

from geotune.inference.polygonize import polygonize

Map = NDArray[np.uint8]
maps = arrays(
    np.uint8,
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    elements=st.sampled_from([0, 1, 2, 255]),
)


def traced(values: Map, rows: int, **options: int) -> list[tuple[int, Polygon]]:
    return list(
        polygonize(
            lambda top, bottom: values[top:bottom],
            values.shape,
            frozenset({0, 255}),
            band_pixels=rows * values.shape[1],
            **options,
        )
    )


def burnt(found: list[tuple[int, Polygon]], shape: tuple[int, int]) -> Map:
    """What the polygons cover, drawn by their pixels' centres."""
    canvas = np.zeros(shape, dtype=np.uint8)
    rows, cols = np.mgrid[: shape[0], : shape[1]] + 0.5
    for value, polygon in found:
        inside = shapely.contains_xy(polygon, cols, rows)
        assert not canvas[inside].any()
        canvas[inside] = value
    return canvas


@settings(deadline=None)
@given(values=maps, rows=st.integers(1, 15))
def test_cutting_the_map_into_bands_changes_nothing(values: Map, rows: int) -> None:
    whole = traced(values, values.shape[0])
    cut = traced(values, rows)
    assert all(polygon.is_valid and polygon.geom_type == "Polygon" for _, polygon in cut)
    np.testing.assert_array_equal(burnt(cut, values.shape), np.where(values == 255, 0, values))
    key = lambda one: (one[0], one[1].normalize().wkt)  # noqa: E731
    assert sorted(map(key, cut)) == sorted(map(key, whole))


@settings(deadline=None)
@given(values=maps, rows=st.integers(1, 6), limit=st.integers(0, 40))
def test_a_limit_on_corners_cuts_objects_but_loses_and_doubles_nothing(
    values: Map, rows: int, limit: int
) -> None:
    cut = traced(values, rows, max_vertices=limit)
    assert all(polygon.is_valid and polygon.geom_type == "Polygon" for _, polygon in cut)
    np.testing.assert_array_equal(burnt(cut, values.shape), np.where(values == 255, 0, values))


def test_a_limit_on_corners_holds_for_an_area_through_the_whole_map() -> None:
    comb = np.zeros((400, 40), dtype=np.uint8)
    comb[:, 0] = 1
    comb[::2] = 1
    assert len(traced(comb, 10)) == 1
    pieces = traced(comb, 10, max_vertices=100)
    assert max(shapely.get_num_coordinates(polygon) for _, polygon in pieces) < 200
    assert sum(polygon.area for _, polygon in pieces) == comb.sum()


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_arms_that_meet_below_are_one_polygon(rows: int) -> None:
    values = np.array(
        [[1, 0, 1, 0, 2], [1, 0, 1, 0, 2], [1, 0, 1, 0, 2], [1, 1, 1, 1, 1], [1, 0, 0, 0, 1]],
        dtype=np.uint8,
    )
    found = traced(values, rows)
    assert sorted((value, polygon.area) for value, polygon in found) == [(1, 13), (2, 3)]


def test_touching_corners_do_not_join() -> None:
    assert len(traced(np.eye(4, dtype=np.uint8), 1)) == 4
