"""Tiles of a plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotune.mapping.plan import (
    IMAGES_PER_TILE,
    PLAN,
    TILES,
    Plan,
    plan_tiles,
    read_plan,
    write_plan,
)
from geotune.mapping.store import open_store
from helpers.errors import raises


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    window=st.integers(8, 100),
    overlap=st.sampled_from([0.0, 0.25, 0.5]),
    kind=st.sampled_from(["classes", "values", "objects"]),
)
def test_cores_cover_every_pixel_once_and_lie_in_their_halo(
    height: int, width: int, window: int, overlap: float, kind: str
) -> None:
    tiles = plan_tiles({"a": (height, width)}, kind, window=window, overlap=overlap, tile=64)
    covered = np.zeros((height, width), int)
    for tile in tiles:
        covered[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width] += 1
        assert tile.halo_row <= tile.row and tile.halo_col <= tile.col
        assert tile.halo_row + tile.halo_height >= tile.row + tile.height
        assert tile.halo_col + tile.halo_width >= tile.col + tile.width
    assert (covered == 1).all()
    assert len({tile.tile for tile in tiles}) == len(tiles)


def test_tiles_of_a_table_are_groups_of_images() -> None:
    scenes = {f"i{n}": (8, 8) for n in range(IMAGES_PER_TILE + 3)}
    tiles = plan_tiles(scenes, "table", window=8, overlap=0.5, tile=64)
    assert [(tile.row, tile.height) for tile in tiles] == [
        (0, IMAGES_PER_TILE),
        (IMAGES_PER_TILE, 3),
    ]


def plan_of(tile: int = 64) -> Plan:
    scenes = {"a": (100, 90), "b": (64, 64)}
    tiles = plan_tiles(scenes, "classes", window=32, overlap=0.5, tile=tile)
    return Plan({"options": {"tile": tile}}, "classes", scenes, [], ["x", "y"], 32, tiles)


def test_a_plan_is_read_as_written_and_the_first_one_stays(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    store = open_store(str(tmp_path))
    assert read_plan(store) is None
    write_plan(store, plan_of())
    write_plan(store, plan_of(128))
    read = read_plan(store)
    assert read == plan_of() and read.id == plan_of().id


def test_plans_of_other_requests_have_other_ids() -> None:
    assert plan_of().id != replace(plan_of(), request={"options": {"tile": 128}}).id


@pytest.mark.parametrize("damage", [b"{}", b"", b'{"format": 0}'])
def test_a_damaged_plan_is_refused(tmp_path: Path, damage: bytes) -> None:
    pytest.importorskip("pyarrow")
    store = open_store(str(tmp_path))
    write_plan(store, plan_of())
    (tmp_path / PLAN).write_bytes(damage)
    with raises("file-unreadable", mentions=[PLAN]):
        read_plan(store)


def test_tiles_of_another_plan_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    one, other = open_store(str(tmp_path / "a")), open_store(str(tmp_path / "b"))
    write_plan(one, plan_of())
    write_plan(other, plan_of(128))
    (tmp_path / "a" / TILES).write_bytes((tmp_path / "b" / TILES).read_bytes())
    with raises("file-unreadable", mentions=[TILES]):
        read_plan(one)
