"""Folds, blocks and dates: what is held out is held out."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.transform import from_origin

from geotune.data.blocks import split_by_blocks
from geotune.data.dates import split_by_date
from geotune.data.folds import split_into_folds
from geotune.data.footprints import footprint, gap
from geotune.data.raster import BandFile, RasterSource
from geotune.data.scene import Scene
from geotune.data.splits import Parts, group_of, split_at_random, split_by_list
from geotune.types import GeotuneError

CITIES = [
    f"{city}_{i}" for city, count in (("bern", 1), ("lima", 4), ("oslo", 2)) for i in range(count)
]


class Whole:
    """Labels that no window may cut, or that may be cut."""

    def __init__(self, whole: bool) -> None:
        self.whole = whole


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


def names(parts: Parts) -> dict[str, list[str]]:
    return {part: [scene.name for scene in scenes] for part, scenes in parts.items()}


def scenes(listed: Sequence[str]) -> list[Scene]:
    return [scene(name) for name in listed]


# ---------------------------------------------------------------- folds
def test_each_region_is_tested_once() -> None:
    tested: list[str] = []
    for fold in (1, 2, 3):
        parts = split_into_folds(scenes(CITIES), by="^([a-z]+)_", fold=fold)
        groups = {part: {one.group for one in members} for part, members in parts.items()}
        assert [len(groups[part]) for part in ("train", "val", "test")] == [1, 1, 1]
        assert not groups["test"] & (groups["train"] | groups["val"])
        assert sum(map(len, parts.values())) == len(CITIES)
        tested += names(parts)["test"]
    assert sorted(tested) == CITIES
    named = split_into_folds(scenes(CITIES), by="^([a-z]+)_", fold="oslo")
    assert names(named) == names(split_into_folds(scenes(CITIES), by="^([a-z]+)_", fold=3))


def test_scenes_of_the_regions_that_are_left_may_validate() -> None:
    parts = split_into_folds(scenes(CITIES), by="^([a-z]+)_", fold="bern", val=0.34)
    assert names(parts)["test"] == ["bern_0"] and len(parts["val"]) == 2
    assert {one.group for one in parts["val"]} <= {one.group for one in parts["train"]}


@settings(deadline=None)
@given(st.integers(3, 9), st.integers(3, 30))
def test_folds_hold_about_as_many_scenes_each(folds: int, count: int) -> None:
    listed = [f"s{i:02}" for i in range(max(count, folds))]
    sizes = []
    for fold in range(1, folds + 1):
        sizes.append(len(split_into_folds(scenes(listed), fold=fold, folds=folds)["test"]))
    assert sum(sizes) == len(listed) and max(sizes) - min(sizes) <= 1


def test_folds_that_are_not_there_are_refused() -> None:
    with pytest.raises(GeotuneError, match=r"found 'bernn', expected 1 to 3 .* did you mean bern"):
        split_into_folds(scenes(CITIES), by="^([a-z]+)_", fold="bernn")
    with pytest.raises(GeotuneError, match="found 4, expected 1 to 3"):
        split_into_folds(scenes(CITIES), by="^([a-z]+)_", fold=4)
    with pytest.raises(GeotuneError, match=r"2 folds of 2 groups.*at least 3"):
        split_into_folds(scenes(["a", "b"]), fold=1)


# ---------------------------------------------------------------- groups
def test_a_column_of_the_table_may_be_the_group() -> None:
    listed = [replace(one, attributes={"region": one.name[0]}) for one in scenes(CITIES)]
    parts = split_into_folds(listed, by="region", fold="o")
    assert names(parts)["test"] == ["oslo_0", "oslo_1"]
    with pytest.raises(
        GeotuneError, match=r"'regio' has no group.*the scenes have the columns reg"
    ):
        split_into_folds(listed, by="regio", fold="o")
    with pytest.raises(GeotuneError, match="column region is empty for bern_0"):
        group_of(replace(listed[0], attributes={"region": " "}), "region")


def test_groups_drawn_at_random_stay_whole() -> None:
    for seed in range(5):
        parts = split_at_random(scenes(CITIES), by="^([a-z]+)_", val=0.3, test=0.3, seed=seed)
        groups = [{one.group for one in members} for members in parts.values()]
        assert all(len(group) == 1 for group in groups) and len(set.union(*groups)) == 3


def test_scenes_that_could_not_be_read_may_be_named() -> None:
    listed = {"train": ["a", "gone.tif"], "val": ["b"]}
    with pytest.raises(GeotuneError, match="there is no scene 'gone"):
        split_by_list(scenes(["a", "b"]), **listed)
    parts = split_by_list(scenes(["a", "b"]), **listed, gone=["gone"])
    assert names(parts) == {"train": ["a"], "val": ["b"], "test": []}


# ---------------------------------------------------------------- dates
def dated(days: Sequence[str]) -> list[Scene]:
    return [
        replace(one, raster=replace(one.raster, acquired=date.fromisoformat(day)))
        for one, day in zip(scenes([f"s{i}" for i in range(len(days))]), days, strict=True)
    ]


def test_the_past_trains_and_the_future_tests() -> None:
    listed = dated(["2019-12-31", "2020-01-01", "2020-06-30", "2020-07-01", "2018-01-01"])
    parts = split_by_date(listed, val=date(2020, 1, 1), test=date(2020, 7, 1))
    assert names(parts) == {"train": ["s0", "s4"], "val": ["s1", "s2"], "test": ["s3"]}
    with pytest.raises(GeotuneError, match=r"data\.split\.test 2021-01-01: no scene .* 2020-07-01"):
        split_by_date(listed, val=date(2020, 1, 1), test=date(2021, 1, 1))
    with pytest.raises(GeotuneError, match="no scene is left for train"):
        split_by_date(listed, val=date(2010, 1, 1))


def test_the_date_may_stand_in_the_name() -> None:
    listed = scenes(["x-20180101", "y-2020-05-01", "z-20210101"])
    parts = split_by_date(listed, val=date(2019, 1, 1), test=date(2021, 1, 1), by="-(.*)$")
    assert [len(parts[part]) for part in ("train", "val", "test")] == [1, 1, 1]
    with pytest.raises(GeotuneError, match=r"x-20180101\.tif: .* finds 'x'; expected a date"):
        split_by_date(listed, val=date(2019, 1, 1), by="^(.)")
    with pytest.raises(GeotuneError, match=r"x-20180101\.tif: says no date"):
        split_by_date(listed, val=date(2019, 1, 1))


# ---------------------------------------------------------------- blocks
@settings(max_examples=60, deadline=None)
@given(
    st.integers(60, 500), st.integers(20, 100), st.integers(0, 19), st.integers(0, 9), st.booleans()
)
def test_blocks_of_a_scene_keep_the_buffer(
    size: int, side: int, buffer: int, seed: int, metres: bool
) -> None:
    """No two pieces come nearer than the buffer, and without one they cover every pixel once."""
    widths = [f"{10 * w} m" if metres else f"{w} px" for w in (side, buffer)]
    if size // side < 2:
        side = size // 2
        widths[0] = f"{side} px"
    parts = split_by_blocks(
        [scene("a", side=size)], side=widths[0], buffer=widths[1], val=0.3, test=0.3, seed=seed
    )
    pieces = [one for members in parts.values() for one in members]
    assert len({one.name for one in pieces}) == len(pieces) == (size // side) ** 2
    for one, other in combinations([piece.area for piece in pieces], 2):
        assert one is not None and other is not None
        down = max(one.row - other.row - other.height, other.row - one.row - one.height)
        across = max(one.col - other.col - other.width, other.col - one.col - one.width)
        assert max(down, across) >= buffer
    if not buffer:
        assert sum(p.area.height * p.area.width for p in pieces if p.area) == size**2
        assert min(min(p.shape) for p in pieces) >= side


def test_pieces_know_where_they_lie() -> None:
    parts = split_by_blocks([scene("a", side=400)], side="100 px", buffer="200 m", seed=1)
    shapes = {
        part: [place for one in members if (place := footprint(one))]
        for part, members in parts.items()
    }
    for one, other in combinations(shapes, 2):
        found = gap(shapes[one], shapes[other])
        assert found is not None and found.distance_m >= 199 and not found.overlaps


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 20), st.sampled_from(["0 m", "100 m", "300 m"]))
def test_chips_of_two_parts_keep_the_buffer(seed: int, buffer: str) -> None:
    chips = [scene(f"c{i}{j}", 640 * i, 640 * j, whole=True) for i in range(7) for j in range(7)]
    try:
        parts = split_by_blocks(chips, side="2000 m", buffer=buffer, val=0.3, test=0.3, seed=seed)
    except GeotuneError:  # the buffer may take all that a part has
        assume(False)
    again = split_by_blocks(chips[::-1], side="2000 m", buffer=buffer, val=0.3, test=0.3, seed=seed)
    assert {p: set(n) for p, n in names(parts).items()} == {
        p: set(n) for p, n in names(again).items()
    }
    groups = [{one.group for one in members} for members in parts.values()]
    assert not any(one & other for one, other in combinations(groups, 2))
    least = float(buffer.split()[0])
    shapes = [[place for one in members if (place := footprint(one))] for members in parts.values()]
    for one, other in combinations(shapes, 2):
        found = gap(one, other)
        assert found is None or found.distance_m >= 0.999 * least
    if not least:
        assert sum(map(len, parts.values())) == len(chips)


def test_chips_without_a_place_have_no_block() -> None:
    with pytest.raises(GeotuneError, match=r"c\.tif: is no larger than a block .* where it lies"):
        split_by_blocks([scene("c", placed=False), scene("d")], side="100 px")
    with pytest.raises(GeotuneError, match=r"c\.tif: does not say how large its pixels are"):
        split_by_blocks([scene("c", placed=False)], side="100 m")
    with pytest.raises(GeotuneError, match=r"buffer 30 px: leaves nothing of the blocks of 30 px"):
        split_by_blocks([scene("a", side=90)], side="30 px", buffer="30 px")
